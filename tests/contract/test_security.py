"""What the kit's servers and channels promise about TLS, tokens and roles, on real connections."""

import json
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.support.certificates import Authority, Pair, an_authority
from tests.support.waiting import eventually

from homeostat.channels import ChannelSecurity, UnusableSecurity, open_channel
from homeostat.progress.v1.progress_pb2 import GetProgressRequest, GetProgressResponse
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat.tokens import Role, UnusableTokens, add_token, read_tokens
from homeostat_kit import tls
from homeostat_kit.auth import Guard, caller_name, roles_of
from homeostat_kit.grpc_client import connect
from homeostat_kit.grpc_server import RunningServer, Security, is_loopback, serve
from homeostat_kit.progress import SERVICE_NAME, ProgressServicer, progress_response
from homeostat_kit.settings import ServiceSettings
from homeostat_kit.tls import TlsFiles, UnusableCertificate
from homeostat_kit.watched import Watched

ROLES = roles_of(SERVICE_NAME, read=["GetProgress"])
CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return an_authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pair:
    return authority.signs("server")


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


async def who_calls() -> GetProgressResponse:
    return progress_response(caller_name() or "nobody", "", produced={}, applied={})


@asynccontextmanager
async def a_server(security: Security | None) -> AsyncIterator[RunningServer]:
    running = await serve(
        "127.0.0.1:0",
        ProgressServicer(who_calls).add_to,
        errors={},
        service_names=[SERVICE_NAME],
        security=security,
    )
    try:
        yield running
    finally:
        await running.stop(0)


async def ask(server: RunningServer, security: ChannelSecurity | None = None) -> str:
    """Whom the server takes the caller for; the status code where it refuses."""
    async with connect(server.address, security) as channel:
        try:
            answer = await ProgressServiceStub(channel).GetProgress(
                GetProgressRequest(), timeout=30
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return str(answer.service)


def with_token(token: str) -> ChannelSecurity:
    return ChannelSecurity(token=token)


async def test_without_a_file_of_tokens_everybody_is_let_in() -> None:
    async with a_server(Security()) as server:
        assert await ask(server) == "nobody"


async def test_a_token_with_the_role_is_let_in_under_its_name(tokens_file: Path) -> None:
    reader = add_token(tokens_file, "dashboard", [Role.READ])
    admin = add_token(tokens_file, "alice", [Role.ADMIN])
    async with a_server(Security.of(None, tokens_file, ROLES)) as server:
        assert await ask(server, with_token(reader)) == "dashboard"
        assert await ask(server, with_token(admin)) == "alice"


async def test_no_token_and_a_wrong_one_are_unauthenticated(tokens_file: Path) -> None:
    token = add_token(tokens_file, "dashboard", [Role.READ])
    async with a_server(Security.of(None, tokens_file, ROLES)) as server:
        for security in (None, with_token("x"), with_token(token[:-1]), with_token(token + "A")):
            assert await ask(server, security) == "UNAUTHENTICATED"


async def test_a_token_without_the_role_is_told_which_one_it_lacks(tokens_file: Path) -> None:
    token = add_token(tokens_file, "client", [Role.PREDICT, Role.MANAGE])
    async with (
        a_server(Security.of(None, tokens_file, ROLES)) as server,
        connect(server.address, with_token(token)) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ProgressServiceStub(channel).GetProgress(GetProgressRequest())
    assert refused.value.code() == CODE.PERMISSION_DENIED
    assert "'read'" in (refused.value.details() or "")
    assert "'client'" in (refused.value.details() or "")


async def test_a_method_in_no_table_is_for_admins_alone(tokens_file: Path) -> None:
    token = add_token(tokens_file, "all-but-admin", [Role.READ, Role.PREDICT, Role.MANAGE])
    admin = add_token(tokens_file, "alice", [Role.ADMIN])
    async with a_server(Security.of(None, tokens_file, {})) as server:
        assert await ask(server, with_token(token)) == "PERMISSION_DENIED"
        assert await ask(server, with_token(admin)) == "alice"
        async with connect(server.address, with_token(token)) as channel:
            for call in (channel.unary_unary("/no.Such/Method"), channel.unary_unary("/x/y")):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call(b"", timeout=5)
                assert refused.value.code() == CODE.PERMISSION_DENIED


async def test_a_stream_is_refused_before_a_message_is_sent(tokens_file: Path) -> None:
    add_token(tokens_file, "alice", [Role.ADMIN])
    async with (
        a_server(Security.of(None, tokens_file, ROLES)) as server,
        connect(server.address) as channel,
    ):
        call = channel.stream_stream("/no.Such/Method")(timeout=5)
        assert await call.code() == CODE.UNAUTHENTICATED


async def test_health_is_open_and_reflection_is_not(tokens_file: Path) -> None:
    reader = add_token(tokens_file, "dashboard", [Role.READ])

    async def reflected(channel: grpc.aio.Channel) -> int:
        asked = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
        )
        return len([each async for each in asked])

    async with a_server(Security.of(None, tokens_file, ROLES)) as server:
        async with connect(server.address) as channel:
            health = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=5
            )
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await reflected(channel)
            assert refused.value.code() == CODE.UNAUTHENTICATED
        async with connect(server.address, with_token(reader)) as channel:
            assert await reflected(channel) == 1


async def test_a_changed_file_is_taken_over(tokens_file: Path) -> None:
    first = add_token(tokens_file, "first", [Role.READ])
    async with a_server(Security.of(None, tokens_file, ROLES)) as server:
        assert await ask(server, with_token(first)) == "first"
        second = add_token(tokens_file, "second", [Role.READ])

        async def second_is_in() -> bool:
            return await ask(server, with_token(second)) == "second"

        await eventually(second_is_in, what="the new token")
        withdraw(tokens_file, "first")

        async def first_is_out() -> bool:
            return await ask(server, with_token(first)) == "UNAUTHENTICATED"

        await eventually(first_is_out, what="the withdrawn token")
        assert await second_is_in()


def withdraw(tokens_file: Path, name: str) -> None:
    document = json.loads(tokens_file.read_text())
    document["tokens"] = [each for each in document["tokens"] if each["name"] != name]
    tokens_file.write_text(json.dumps(document))


def test_a_file_that_became_useless_shuts_nobody_out(tokens_file: Path) -> None:
    add_token(tokens_file, "first", [Role.READ])
    watched = Watched(
        [tokens_file], lambda: read_tokens(tokens_file), unusable=UnusableTokens, look_seconds=0
    )
    for broken in (tokens_file.read_text()[:20], "", "{}"):
        tokens_file.write_text(broken)
        assert [each.name for each in watched.now()] == ["first"]
    tokens_file.unlink()
    assert [each.name for each in watched.now()] == ["first"]
    add_token(tokens_file, "second", [Role.READ])
    assert [each.name for each in watched.now()] == ["second"]


def test_a_token_is_kept_as_a_hash_that_only_its_owner_reads(tokens_file: Path) -> None:
    token = add_token(tokens_file, "alice", [Role.ADMIN])
    assert token not in tokens_file.read_text()
    assert stat.S_IMODE(tokens_file.stat().st_mode) == 0o600
    with pytest.raises(UnusableTokens, match="alice"):
        add_token(tokens_file, "alice", [Role.READ])
    with pytest.raises(UnusableTokens, match="role"):
        add_token(tokens_file, "bob", [])
    assert [each.name for each in read_tokens(tokens_file)] == ["alice"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"tokens": [{"name": "a"}]}',
        '{"tokens": [{"name": "a", "sha256": "00", "roles": []}]}',
        f'{{"tokens": [{{"name": "a", "sha256": "{"0" * 64}", "roles": ["king"]}}]}}',
    ],
)
def test_a_file_that_is_none_ends_the_start(tokens_file: Path, content: str) -> None:
    tokens_file.write_text(content)
    with pytest.raises(UnusableTokens, match="cure"):
        Guard(tokens_file, {})


async def test_tls_is_spoken_and_nothing_else(authority: Authority, own: Pair) -> None:
    async with a_server(Security(TlsFiles(own.certificate, own.key))) as server:
        assert await ask(server, ChannelSecurity(ca_file=authority.certificate)) == "nobody"
        assert await ask(server) == "UNAVAILABLE"


async def test_a_server_of_another_authority_is_not_trusted(own: Pair, tmp_path: Path) -> None:
    async with a_server(Security(TlsFiles(own.certificate, own.key))) as server:
        other = an_authority(tmp_path)
        assert await ask(server, ChannelSecurity(ca_file=other.certificate)) == "UNAVAILABLE"


async def test_mtls_lets_in_whom_the_authority_signed(
    authority: Authority, own: Pair, tmp_path: Path
) -> None:
    files = TlsFiles(own.certificate, own.key, authority.certificate)
    client, stranger = authority.signs("client"), an_authority(tmp_path).signs("stranger")
    async with a_server(Security(files)) as server:
        for pair, answer in ((client, "nobody"), (stranger, "UNAVAILABLE")):
            security = ChannelSecurity(
                ca_file=authority.certificate, certificate_file=pair.certificate, key_file=pair.key
            )
            assert await ask(server, security) == answer
        assert await ask(server, ChannelSecurity(ca_file=authority.certificate)) == "UNAVAILABLE"


async def test_a_renewed_certificate_is_shown_to_new_connections(tmp_path: Path) -> None:
    before, after = an_authority(tmp_path, "before"), an_authority(tmp_path, "after")
    first, second = before.signs("first"), after.signs("second")
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    files.certificate.write_bytes(first.certificate.read_bytes())
    files.key.write_bytes(first.key.read_bytes())
    async with a_server(Security(files)) as server:
        assert await ask(server, ChannelSecurity(ca_file=before.certificate)) == "nobody"
        files.certificate.write_bytes(second.certificate.read_bytes())
        # In between they don't belong together; the old pair stays.
        files.key.write_bytes(second.key.read_bytes())

        async def is_renewed() -> bool:
            return await ask(server, ChannelSecurity(ca_file=after.certificate)) == "nobody"

        await eventually(is_renewed, what="the renewed certificate")


async def test_files_that_do_not_belong_together_end_the_start(
    authority: Authority, own: Pair
) -> None:
    other = authority.signs("other")
    with pytest.raises(UnusableCertificate, match="cure"):
        async with a_server(Security(TlsFiles(own.certificate, other.key))):
            pass


async def test_files_that_are_replaced_between_two_looks_leave_the_old_pair(
    own: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key")
    files.certificate.write_bytes(own.certificate.read_bytes())
    files.key.write_bytes(own.key.read_bytes())
    context, _ = tls.ssl_context(files)

    def replaced(of: TlsFiles) -> None:
        of.certificate.write_bytes(b"half")

    monkeypatch.setattr(tls, "require_usable", replaced)
    with pytest.raises(UnusableCertificate, match="cure"):
        tls._load(context, files)
    files.key.unlink()
    with pytest.raises(UnusableCertificate, match="cure"):
        tls._configuration(files)


@pytest.mark.parametrize(
    ("address", "is_shown"),
    [
        ("127.0.0.1:50052", True),
        ("[::1]:50052", True),
        ("localhost:50052", True),
        ("unix:keeper.sock", True),
        ("models.example:50052", False),
        ("10.0.0.7:50052", False),
        ("localhost.example:50052", False),
    ],
)
async def test_a_token_does_not_go_to_other_machines_in_clear(
    address: str, is_shown: bool, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOMEOSTAT_ALLOW_CLEAR_TOKEN", raising=False)
    await open_channel(address, ChannelSecurity()).close()
    await open_channel(address, ChannelSecurity("t", authority.certificate)).close()
    if is_shown:
        await open_channel(address, ChannelSecurity("t")).close()
        return
    with pytest.raises(UnusableSecurity, match="HOMEOSTAT_TLS_CA_FILE"):
        open_channel(address, ChannelSecurity("t"))
    monkeypatch.setenv("HOMEOSTAT_ALLOW_CLEAR_TOKEN", "1")
    await open_channel(address, ChannelSecurity("t")).close()


def test_half_a_setting_is_refused() -> None:
    for wrong in (
        {"tls_certificate_file": "a.pem"},
        {"tls_client_ca_file": "a.pem"},
        {"peer_certificate_file": "a.pem"},
        {"peer_certificate_file": "a.pem", "peer_key_file": "a.key"},
    ):
        with pytest.raises(ValueError, match=r"both, or neither|needs"):
            ServiceSettings(**wrong)  # type: ignore[arg-type]


def test_the_environment_says_how_clients_connect(own: Pair) -> None:
    told = ChannelSecurity.from_environment(
        {"HOMEOSTAT_TOKEN": "t", "HOMEOSTAT_TLS_CA_FILE": os.fspath(own.certificate)}
    )
    assert told == ChannelSecurity(token="t", ca_file=own.certificate)
    assert "'t'" not in repr(told)
    with pytest.raises(UnusableSecurity, match="can't be read"):
        ChannelSecurity(ca_file=Path("no/such/file")).credentials()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("unix:/x/y.sock", True),
        ("0.0.0.0:1", False), ("[::]:1", False), ("10.0.0.1:1", False), ("host.example:1", False),
    ],
)  # fmt: skip
def test_what_strangers_can_reach_is_known(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
