"""The HTTP server's limits, with patience cut to fractions of a second."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from tests.support.waiting import eventually

from homeostat_inference.domain.errors import Overloaded, TooLarge
from homeostat_inference.edges import http_server
from homeostat_inference.edges.http_server import (
    Answer,
    Asked,
    Bench,
    HttpServer,
    Timeout,
    Unreadable,
)
from homeostat_inference.edges.rest import _is_local_name, _is_own, _need, _parts
from homeostat_kit.auth import Forbidden
from homeostat_kit.grpc_server import Security

MAX_BODY = 100_000
HEAD = b"POST /x HTTP/1.1\r\nHost: x\r\n"


async def echo(asked: Asked) -> Answer:
    return Answer(asked.body, content_type="text/plain")


def refuse(error: Exception) -> Answer:
    known = {Overloaded: 429, TooLarge: 413, Timeout: 408, Forbidden: 403, Unreadable: 400}
    return Answer(str(error).encode(), status=known.get(type(error), 500))


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_BODY_SECONDS", "_TAKE_SECONDS", "_IDLE_SECONDS", "_LINGER_SECONDS"):
        monkeypatch.setattr(http_server, name, 0.2)


@asynccontextmanager
async def a_server(
    respond: Callable[[Asked], Awaitable[Answer]] = echo,
    *,
    held_bytes: int = MAX_BODY,
    require: Callable[[Asked], None] = lambda head: None,
    refused: Callable[[Exception], Answer] = refuse,
) -> AsyncIterator[HttpServer]:
    server = HttpServer(
        require, respond, refused, Bench(), max_body_bytes=MAX_BODY, held_bytes=held_bytes
    )
    await server.start("127.0.0.1:0", Security())
    try:
        yield server
    finally:
        await server.stop()


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(server: HttpServer, sent: bytes = b"") -> Connection:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(sent)
    return reader, writer


async def rest_of(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(60):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


async def has_connections(server: HttpServer, count: int) -> bool:
    return server.connections_count == count


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(60):
        line = await reader.readline()
    return int(line.split()[1])


async def test_a_body_that_comes_too_slowly_is_not_waited_for() -> None:
    async with a_server() as server:
        reader, writer = await connect(server, HEAD + b"Content-Length: 10\r\n\r\nabc")
        assert await status_of(reader) == 408
        await rest_of(reader)
        writer.close()


async def test_a_connection_that_says_nothing_is_closed() -> None:
    async with a_server() as server:
        for sent in (b"", b"GET /x HTTP/1.1\r\nHos"):
            reader, writer = await connect(server, sent)
            assert await rest_of(reader) == b""
            writer.close()


async def test_a_client_that_does_not_take_its_answer_is_let_go() -> None:
    big = b"x" * 50_000_000

    async def respond(asked: Asked) -> Answer:
        return Answer(big)

    async with a_server(respond) as server:
        reader, writer = await connect(server, HEAD + b"Content-Length: 0\r\n\r\n")
        assert await status_of(reader) == 200
        await eventually(lambda: has_connections(server, 0), what="the connection is closed")
        assert len(await rest_of(reader)) < len(big)
        writer.close()


async def test_bodies_beyond_what_may_be_held_are_refused_until_there_is_room() -> None:
    goes_on = asyncio.Event()

    async def respond(asked: Asked) -> Answer:
        await goes_on.wait()
        return Answer(b"done")

    async with a_server(respond, held_bytes=1000) as server:
        first = await connect(server, HEAD + b"Content-Length: 900\r\n\r\n" + b"x" * 900)
        second = await connect(server, HEAD + b"Content-Length: 200\r\n\r\n" + b"x" * 200)
        assert await status_of(second[0]) == 429
        goes_on.set()
        assert await status_of(first[0]) == 200
        third = await connect(server, HEAD + b"Content-Length: 900\r\n\r\n" + b"x" * 900)
        assert await status_of(third[0]) == 200
        for _, writer in (first, second, third):
            writer.close()


async def test_who_announces_much_and_sends_nothing_keeps_nobody_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "_BODY_SECONDS", 30)
    async with a_server() as server:
        silent = [await connect(server, HEAD + b"Content-Length: 100000\r\n\r\n") for _ in "1234"]
        await eventually(lambda: has_connections(server, 4), what="four connections")
        reader, writer = await connect(server, HEAD + b"Content-Length: 900\r\n\r\n" + b"x" * 900)
        assert await status_of(reader) == 200
        for each in (writer, *(writer for _, writer in silent)):
            each.close()


async def test_compressed_bodies_weigh_what_they_unpack_to() -> None:
    goes_on, has_begun = asyncio.Event(), asyncio.Event()

    async def respond(asked: Asked) -> Answer:
        has_begun.set()
        await goes_on.wait()
        return Answer(b"done")

    packed = gzip.compress(b"x" * 90_000)
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    async with a_server(respond) as server:
        first = await connect(server, head + packed)
        await asyncio.wait_for(has_begun.wait(), 60)
        second = await connect(server, head + packed)
        assert await status_of(second[0]) == 429
        goes_on.set()
        assert await status_of(first[0]) == 200
        third = await connect(server, head + packed)
        assert await status_of(third[0]) == 200
        for _, writer in (first, second, third):
            writer.close()


async def test_who_may_not_call_is_told_before_the_body_comes() -> None:
    def require(head: Asked) -> None:
        raise Forbidden("not you")

    async with a_server(require=require) as server:
        reader, writer = await connect(server, HEAD + b"Content-Length: 100000\r\n\r\n")
        assert await status_of(reader) == 403
        assert b"Connection: close" in await rest_of(reader)
        writer.close()


async def test_a_client_that_goes_is_no_error_of_ours(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_server, "_BODY_SECONDS", 30)
    has_begun, goes_on = asyncio.Event(), asyncio.Event()
    seen: list[type[Exception]] = []

    async def respond(asked: Asked) -> Answer:
        has_begun.set()
        await goes_on.wait()
        return Answer(b"x" * 100_000)

    def remember(error: Exception) -> Answer:
        seen.append(type(error))
        return refuse(error)

    async with a_server(respond, refused=remember) as server:
        for sent in (b"Content-Length: 10\r\n\r\nabc", b"Content-Length: 3\r\n\r\nabc"):
            _, writer = await connect(server, HEAD + sent)
            await eventually(lambda: has_connections(server, 1), what="a connection")
            if sent.startswith(b"Content-Length: 3"):
                await asyncio.wait_for(has_begun.wait(), 60)
            writer.transport.abort()
            # Notices it, in the first case, while it reads.
            goes_on.set()
            await eventually(lambda: has_connections(server, 0), what="none")
    assert set(seen) <= {Unreadable}
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def test_a_body_that_is_too_long_is_refused_before_it_comes() -> None:
    async with a_server() as server:
        reader, writer = await connect(server, HEAD + b"Content-Length: 100001\r\n\r\n")
        assert await status_of(reader) == 413
        assert b"Connection: close" in await rest_of(reader)
        writer.close()


async def test_connections_beyond_a_number_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_MAX_CONNECTIONS", 3)
    monkeypatch.setattr(http_server, "_IDLE_SECONDS", 30)
    async with a_server() as server:
        kept = [await connect(server) for _ in range(3)]
        await eventually(lambda: has_connections(server, 3), what="three connections")
        reader, writer = await connect(server)
        assert await rest_of(reader) == b""
        kept[0][1].write(HEAD + b"Content-Length: 0\r\n\r\n")
        assert await status_of(kept[0][0]) == 200
        for each in (writer, *(writer for _, writer in kept)):
            each.close()


async def test_long_work_does_not_hold_up_the_loop() -> None:
    bench = Bench()
    begun, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> str:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(10)
        return "done"

    working = asyncio.create_task(bench.do(work, 1_000_000))
    await asyncio.wait_for(begun.wait(), 60)
    goes_on.set()
    assert await working == "done"
    assert await bench.do(lambda: "at once", 1) == "at once"
    bench.close()


@pytest.mark.parametrize(
    ("origin", "host", "is_open", "expected"),
    [
        ("http://localhost:8080", "localhost:8080", True, True),
        ("http://[::1]:8080", "[::1]:8080", True, True),
        ("http://evil.example:8080", "localhost:8080", True, False),
        # A name that its owner lets lead to this machine.
        ("http://evil.example:8080", "evil.example:8080", True, False),
        ("https://models.example", "models.example", False, True),
        ("https://evil.example", "models.example", False, False),
        ("null", "localhost:8080", True, False),
        ("http://[", "localhost:8080", True, False),
        ("", "", True, False),
    ],
)
def test_only_pages_of_its_own_are_answered(
    origin: str, host: str, is_open: bool, expected: bool
) -> None:
    assert _is_own(origin, host, is_open=is_open) is expected


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LOCALHOST:8080", True),
        ("127.0.0.1:8080", True),
        ("127.0.0.2", True),
        ("[::1]:8080", True),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("localhost@evil.example", False),
        ("192.168.1.2:8080", False),
        ("[", False),
    ],
)
def test_a_name_that_leads_here_by_its_owners_will_is_not_ours(host: str, expected: bool) -> None:
    assert _is_local_name(host) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2/models/m/infer", "POST ModelInfer"),
        ("/v2/models/m/versions/3/infer", "POST ModelInfer"),
        ("/v2/homeostat/outcomes", "POST RecordOutcomes"),
        ("/v2/repository/index", "POST RepositoryIndex"),
        ("/v2/repository/models/m/unload", "POST RepositoryModelLoad"),
        ("/v2", "GET ServerMetadata"),
        ("/v2/health/ready", "GET "),
        ("/v2/models", "GET RepositoryIndex"),
        ("/v2/models/stats", "GET ModelStatistics"),
        ("/v2/models/a%2Fb", "GET ModelMetadata"),
        ("/v2/models/m/versions/3/config", "GET ModelConfig"),
        ("/v2/models/m/versions", None),
        ("/v2/health/other", None),
        ("/", None),
    ],
)
def test_what_a_path_needs_is_known_from_its_head(path: str, expected: str | None) -> None:
    need = _need(_parts(path))
    found = None if need is None else f"{need.http_method} {need.call.rpartition('/')[2]}"
    assert found == expected
