"""Tokens, roles, TLS and mTLS on the real service, on every way in."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
from tests.integration.inference.conftest import TRANSPORTS
from tests.support.certificates import Authority, an_authority
from tests.support.inference import (
    MODEL,
    RunningInference,
    StandInRegistry,
    a_registry,
    an_inference,
    columns,
)
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, eventually

from homeostat.channels import ChannelSecurity, open_channel
from homeostat.client import Client, infer_request
from homeostat.inference.v1.truth_pb2 import Outcome, RecordOutcomesRequest
from homeostat.inference.v1.truth_pb2_grpc import TruthServiceStub
from homeostat.inference.v2.open_inference_pb2 import (
    ModelMetadataRequest,
    ServerLiveRequest,
    ServerReadyRequest,
)
from homeostat.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from homeostat.progress.v1.progress_pb2 import GetProgressRequest
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat.tokens import Role, add_token

pytestmark = pytest.mark.asyncio(loop_scope="module")
ROW = infer_request(MODEL, columns([0.5], ["red"]))
JSON_ROW = {
    "inputs": [
        {"name": "amount", "datatype": "FP32", "shape": [1, 1], "data": [0.5]},
        {"name": "kind", "datatype": "BYTES", "shape": [1, 1], "data": ["red"]},
        {"name": "count", "datatype": "INT64", "shape": [1, 1], "data": [1]},
    ]
}
TRUTH = RecordOutcomesRequest(model_name=MODEL, outcomes=[Outcome(client_id="a", value=1)])


@dataclass(frozen=True, slots=True)
class Guarded:
    inference: RunningInference
    http_address: str
    tokens: Mapping[Role, str]
    tokens_file: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def guarded(
    request: pytest.FixtureRequest, shared_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    tokens_file = folder / "tokens.json"
    tokens = {role: add_token(tokens_file, f"the {role.value}", [role]) for role in Role}
    http_address = f"127.0.0.1:{free_port()}"
    async with (
        a_registry() as registry,
        an_inference(
            port=free_port(),
            broker=shared_broker,
            registry=registry.address,
            folder=folder,
            transport=request.param,
            http_address=http_address,
            tokens_file=tokens_file,
        ) as running,
    ):
        yield Guarded(running, http_address, tokens, tokens_file)


async def ask(address: str, call: str, security: ChannelSecurity) -> str:
    """The status of one call over a connection of its own."""
    async with open_channel(address, security) as channel:
        inference = GRPCInferenceServiceStub(channel)
        calls: dict[str, Any] = {
            "live": lambda: inference.ServerLive(ServerLiveRequest(), timeout=10),
            "ready": lambda: inference.ServerReady(ServerReadyRequest(), timeout=10),
            "metadata": lambda: inference.ModelMetadata(
                ModelMetadataRequest(name=MODEL), timeout=10
            ),
            "infer": lambda: inference.ModelInfer(ROW, timeout=10),
            "stream": lambda: _streamed(inference),
            "truth": lambda: TruthServiceStub(channel).RecordOutcomes(TRUTH, timeout=10),
            "progress": lambda: ProgressServiceStub(channel).GetProgress(
                GetProgressRequest(), timeout=10
            ),
            "unknown": lambda: channel.unary_unary("/inference.GRPCInferenceService/No")(b""),
        }
        try:
            await calls[call]()
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


async def _streamed(inference: Any) -> list[Any]:
    while True:
        try:
            return [each async for each in inference.ModelStreamInfer(iter([ROW]), timeout=10)]
        except grpc.aio.AioRpcError as error:
            # grpc.aio's own word for a status that came while it was sending a message.
            if error.details() != "Internal error from Core":
                raise


OPEN = {"live", "ready"}
NEEDS = {
    "metadata": Role.READ,
    "infer": Role.PREDICT,
    "stream": Role.PREDICT,
    "truth": Role.PREDICT,
    "progress": Role.READ,
}


async def test_each_call_needs_its_role_and_health_none(guarded: Guarded) -> None:
    address = guarded.inference.address
    for call in (*OPEN, *NEEDS, "unknown"):
        for security in (ChannelSecurity(), ChannelSecurity(token="wrong")):
            expected = "OK" if call in OPEN else "UNAUTHENTICATED"
            assert await ask(address, call, security) == expected, call
        for role, token in guarded.tokens.items():
            may = call in OPEN or role in (NEEDS.get(call), Role.ADMIN)
            expected = "OK" if may else "PERMISSION_DENIED"
            if call == "unknown" and may:
                expected = "UNIMPLEMENTED"
            got = await ask(address, call, ChannelSecurity(token=token))
            assert got == expected, (call, role)


async def test_a_refusal_names_the_role(guarded: Guarded) -> None:
    security = ChannelSecurity(token=guarded.tokens[Role.READ])
    async with Client(guarded.inference.address, security=security) as client:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.infer(ROW)
    assert "'predict'" in (refused.value.details() or "")


async def test_http_needs_the_same_roles(guarded: Guarded) -> None:
    base = f"http://{guarded.http_address}/v2"
    asked = {
        "/health/live": None,
        "/health/ready": None,
        f"/models/{MODEL}": Role.READ,
        f"/models/{MODEL}/ready": Role.READ,
        "": Role.READ,
        f"/models/{MODEL}/stats": Role.READ,
        f"/models/{MODEL}/infer": Role.PREDICT,
        "/homeostat/outcomes": Role.PREDICT,
        "/repository/index": Role.READ,
    }
    truth = {"model_name": MODEL, "outcomes": [{"client_id": "a", "value": 1}]}
    bodies = {
        f"/models/{MODEL}/infer": JSON_ROW,
        "/homeostat/outcomes": truth,
        "/repository/index": {},
    }
    async with aiohttp.ClientSession() as session:
        for path, needed in asked.items():
            for role, token in {None: None, **guarded.tokens}.items():
                headers = {} if token is None else {"Authorization": f"Bearer {token}"}
                method = "POST" if path in bodies else "GET"
                async with session.request(
                    method, base + path, json=bodies.get(path), headers=headers
                ) as answer:
                    body = await answer.json()
                if needed is None or role in (needed, Role.ADMIN):
                    assert answer.status == 200, (path, role, body)
                elif role is None:
                    assert answer.status == 401, path
                    assert answer.headers["WWW-Authenticate"] == "Bearer"
                else:
                    assert answer.status == 403 and needed.value in body["error"], (path, role)


async def test_a_new_token_is_let_in_without_a_restart(guarded: Guarded) -> None:
    token = await asyncio.to_thread(add_token, guarded.tokens_file, "late comer", [Role.PREDICT])

    async def is_in() -> bool:
        security = ChannelSecurity(token=token)
        return await ask(guarded.inference.address, "infer", security) == "OK"

    await eventually(is_in, what="the new token")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return an_authority(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def over_tls(
    authority: Authority, broker: str, folder: Path, registry: StandInRegistry, **settings: Any
) -> AsyncIterator[tuple[RunningInference, str]]:
    own = authority.signs("server")
    http_address = f"127.0.0.1:{free_port()}"
    async with an_inference(
        port=free_port(),
        broker=broker,
        registry=registry.address,
        folder=folder,
        is_waited_for=False,
        transport="grpcio",
        http_address=http_address,
        tls_certificate_file=own.certificate,
        tls_key_file=own.key,
        **settings,
    ) as running:
        yield running, http_address


async def is_ready(running: RunningInference, security: ChannelSecurity) -> None:
    async def ready() -> bool:
        async with Client(running.address, security=security) as client:
            return await client.is_model_ready(MODEL)

    await eventually(ready, what="inference ready")


async def https(address: str, authority: Authority, client: Any = None) -> int:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://{address}/v2/models/{MODEL}/infer", json=JSON_ROW, ssl=context
        ) as answer,
    ):
        return answer.status


async def test_both_protocols_speak_tls_and_nothing_else(
    authority: Authority, shared_broker: str, tmp_path: Path
) -> None:
    async with (
        a_registry() as registry,
        over_tls(authority, shared_broker, tmp_path, registry) as (running, http_address),
    ):
        security = ChannelSecurity(ca_file=authority.certificate)
        await is_ready(running, security)
        assert await ask(running.address, "infer", security) == "OK"
        assert await ask(running.address, "infer", ChannelSecurity()) == "UNAVAILABLE"
        assert await https(http_address, authority) == 200
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://{http_address}/v2/health/live")


async def test_mtls_asks_every_client_for_a_certificate(
    authority: Authority, shared_broker: str, tmp_path: Path
) -> None:
    client = authority.signs("client")
    async with (
        a_registry() as registry,
        over_tls(
            authority,
            shared_broker,
            tmp_path,
            registry,
            tls_client_ca_file=authority.certificate,
        ) as (running, http_address),
    ):
        known = ChannelSecurity(
            ca_file=authority.certificate, certificate_file=client.certificate, key_file=client.key
        )
        await is_ready(running, known)
        assert await ask(running.address, "infer", known) == "OK"
        nameless = ChannelSecurity(ca_file=authority.certificate)
        assert await ask(running.address, "infer", nameless) == "UNAVAILABLE"
        assert await https(http_address, authority, client) == 200
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await https(http_address, authority)


async def test_a_renewed_certificate_is_shown_over_http_without_a_restart(
    authority: Authority, shared_broker: str, tmp_path: Path
) -> None:
    renewed = an_authority(tmp_path, "renewed")
    async with (
        a_registry() as registry,
        over_tls(authority, shared_broker, tmp_path, registry) as (running, http_address),
    ):
        await is_ready(running, ChannelSecurity(ca_file=authority.certificate))
        pair, own = renewed.signs("renewed-server"), authority.folder
        (own / "server.pem").write_bytes(pair.certificate.read_bytes())
        (own / "server.key").write_bytes(pair.key.read_bytes())

        async def is_renewed() -> bool:
            try:
                return await https(http_address, renewed) == 200
            except aiohttp.ClientError:
                return False

        await eventually(is_renewed, what="the renewed certificate")


async def log_of_failed_start(
    broker: str, folder: Path, registry: StandInRegistry, **settings: Any
) -> str:
    async with an_inference(
        port=free_port(),
        broker=broker,
        registry=registry.address,
        folder=folder,
        is_waited_for=False,
        **settings,
    ) as running:
        assert await asyncio.to_thread(running.process.wait, PATIENCE_SECONDS) != 0
        return running.log()


async def test_settings_that_cannot_be_kept_end_the_start_with_the_cure(
    authority: Authority, shared_broker: str, tmp_path: Path
) -> None:
    own = authority.signs("own")
    wrong = tmp_path / "tokens.json"
    wrong.write_text("{}")
    async with a_registry() as registry:
        for number, (settings, words) in enumerate((
            (
                {"tls_certificate_file": own.certificate, "tls_key_file": own.key},
                "HOMEOSTAT_INFERENCE_TRANSPORT=grpcio",
            ),
            ({"tls_certificate_file": own.certificate, "transport": "grpcio"}, "both, or neither"),
            ({"tokens_file": wrong}, "homeostat token new"),
        )):  # fmt: skip
            log = await log_of_failed_start(
                shared_broker, tmp_path / str(number), registry, **settings
            )
            assert words in log


async def test_a_door_that_strangers_reach_is_warned_of(shared_broker: str, tmp_path: Path) -> None:
    port, http_port = free_port(), free_port()
    async with (
        a_registry() as registry,
        an_inference(
            port=port,
            broker=shared_broker,
            registry=registry.address,
            folder=tmp_path,
            grpc_address=f"0.0.0.0:{port}",
            http_address=f"0.0.0.0:{http_port}",
        ) as running,
    ):

        def warnings_of() -> list[str]:
            return [line for line in running.log().splitlines() if "door_is_open" in line]

        await eventually(lambda: len(warnings_of()) >= 2, what="both doors are warned of")
        warnings = warnings_of()
    assert len(warnings) == 2
    assert all("tokens_file" in line and "tls_certificate_file" in line for line in warnings)
