"""Where the registry asks for tokens, the audit and the four eyes go by them, not by claims."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from tests.integration.registry.harness import Registry, RegistryProcess
from tests.support.broker import TestBroker

from homeostat.channels import ChannelSecurity, open_channel
from homeostat.registry.v1 import registry_pb2 as pb
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat.tokens import Role, add_token

CODE = grpc.StatusCode


@pytest.fixture
async def callers(
    embedded_broker: TestBroker, postgres_url: str, tmp_path: Path
) -> AsyncIterator[dict[str, Registry]]:
    """A registry that asks for tokens, as alice and bob (who may manage) and a reader see it."""
    tokens_file = tmp_path / "tokens.json"
    tokens = {
        name: add_token(tokens_file, name, roles)
        for name, roles in {
            "alice": [Role.MANAGE, Role.READ],
            "bob": [Role.MANAGE, Role.READ],
            "reader": [Role.READ],
        }.items()
    }
    folder = tmp_path / "registry"
    folder.mkdir()
    settings = {"HOMEOSTAT_REGISTRY_TOKENS_FILE": str(tokens_file)}
    process = RegistryProcess(embedded_broker.address, postgres_url, folder, settings)
    process.start()
    async with AsyncExitStack() as stack:
        stack.callback(process.kill)
        found = {}
        for name, token in tokens.items():
            registry = found[name] = Registry(process)
            await registry.channel.close()
            registry.channel = await stack.enter_async_context(
                open_channel(f"127.0.0.1:{process.port}", ChannelSecurity(token=token))
            )
            registry.api = RegistryServiceStub(registry.channel)
        await found["reader"].wait_ready()
        yield found


async def test_the_audit_and_the_four_eyes_go_by_tokens(
    callers: dict[str, Registry], name: str
) -> None:
    alice, bob = callers["alice"], callers["bob"]
    await alice.a_model(name, pb.AUTONOMY_APPROVE)
    first = await alice.push(name, author="somebody else")
    assert first.author == "alice"
    proposed = (await alice.propose(name, "run-1")).version
    assert proposed.author == "alice"

    async def approve(by: Registry) -> pb.Version:
        request = pb.ApproveVersionRequest(
            model_name=name, version=proposed.version, approver="a third one", is_approved=True,
            etag=(await by.model(name)).etag,
        )  # fmt: skip
        return (await by.api.ApproveVersion(request, timeout=30)).version

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await approve(alice)
    assert refused.value.code() == CODE.PERMISSION_DENIED
    assert (await approve(bob)).stage == pb.STAGE_CHAMPION
    assert {each.actor for each in await alice.audit()} == {"alice", "bob"}


async def test_a_reader_changes_nothing(callers: dict[str, Registry], name: str) -> None:
    reader = callers["reader"]
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await reader.a_model(name)
    assert refused.value.code() == CODE.PERMISSION_DENIED
    assert "'manage'" in (refused.value.details() or "")
    await callers["alice"].a_model(name)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await reader.push(name)
    assert refused.value.code() == CODE.PERMISSION_DENIED
    assert (await reader.model(name)).name == name
