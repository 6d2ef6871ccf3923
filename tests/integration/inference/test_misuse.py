"""HTTP/2 and gRPC, spoken wrongly: whatever comes over the wire, the next call is answered.

The transports differ in what they make of a mistake: `native` (hyper and tonic) and `grpcio`
(grpc-core). The table below says for each mistake what either answers: a gRPC status, "http" and a
status, "reset" and an HTTP/2 error code, "closed" where the connection goes, or "silence" where the
call stays open until the client leaves or its deadline passes.

- grpcio never ends a unary call whose message did not come; native says INTERNAL.
- native refuses 16 KiB of metadata (HTTP 431) and ends the connection over 64 KiB. grpcio announces
  a limit of 16 KiB, which clients hold, and takes more from who does not.
- grpcio is strict about `te`, `:method`, `:authority`, timeouts and base64; native about names of
  fields and their order. After a wrong `te` grpcio refuses what follows on that connection.
- While a flood is worked through, grpcio drops calls by chance (CANCELLED); native never did.
- Neither looks at the content type.
"""

import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from tests.hostile.requests import good
from tests.integration.inference.conftest import TRANSPORTS
from tests.support.http2 import PREFACE, Headers, Http2, Reply, grpc_headers, message
from tests.support.inference import RunningInference, a_registry, an_inference
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, eventually

from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse

pytestmark = pytest.mark.asyncio(loop_scope="module")
MIB = 1024 * 1024
GOOD = good().SerializeToString()
A_MESSAGE = message(GOOD)
# What a call may hear while a flood is being worked through: RESOURCE_EXHAUSTED, and of grpc-core,
# which drops calls by chance while more than a thousand wait, CANCELLED.
_BUSY = ("1", "8")
# How long a call is given that has to stay without an answer.
SILENCE_SECONDS = 0.5


@dataclass(slots=True)
class Server:
    """A server that is misused, and what it holds."""

    running: RunningInference
    transport: str

    @property
    def address(self) -> str:
        return self.running.address

    def processes(self) -> list[psutil.Process]:
        """The main process and all its children."""
        main = psutil.Process(self.running.process.pid)
        return [main, *main.children(recursive=True)]

    def memory_bytes(self) -> int:
        return sum(each.memory_info().rss for each in self.processes())

    def descriptors(self) -> int:
        return sum(each.num_fds() for each in self.processes())

    def threads(self) -> int:
        return sum(each.num_threads() for each in self.processes())

    def is_about(self, memory: int, descriptors: int, threads: int, memory_mib: int) -> bool:
        """Whether it holds about that much; files of the journal come and go."""
        return (
            self.memory_bytes() - memory < memory_mib * MIB
            and self.descriptors() <= descriptors + 12
            and self.threads() <= threads + 8
        )

    def answers(self) -> None:
        """A call on a connection of its own is answered within two seconds."""
        deadline = time.monotonic() + 2.0
        reply = self._asked()
        while reply.grpc_status in _BUSY and time.monotonic() < deadline:
            reply = self._asked()
        assert reply.grpc_status == "0", reply
        assert len(ModelInferResponse.FromString(reply.message).outputs) == 2

    def _asked(self) -> Reply:
        with Http2(self.address) as client:
            return client.call(GOOD, seconds=2.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def server(
    request: pytest.FixtureRequest, shared_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    """With the settings as they are by default."""
    folder: Path = tmp_path_factory.mktemp("misused")
    async with (
        a_registry() as registry,
        an_inference(
            port=free_port(),
            broker=shared_broker,
            registry=registry.address,
            folder=folder,
            transport=request.param,
        ) as running,
    ):
        yield Server(running, request.param)


# One call each.

Body = bytes | None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A call with something wrong, and what comes of it."""

    name: str
    native: str
    grpcio: str
    # Given the address.
    headers: Callable[[str], Headers] = grpc_headers
    body: Body = A_MESSAGE
    is_ended: bool = True
    # Whether the connection is good for another call.
    is_forgiven: bool = True


def replaced(**fields: str | None) -> Callable[[str], Headers]:
    """Headers of a gRPC call, one of them another, or absent."""

    def build(address: str) -> Headers:
        found = []
        for name, value in grpc_headers(address):
            new = fields.get(name.strip(":").replace("-", "_"), value)
            if new is not None:
                found.append((name, new))
        return found

    return build


def added(*more: tuple[str, str]) -> Callable[[str], Headers]:
    """Headers of a gRPC call, and more."""
    return lambda address: [*grpc_headers(address), *more]


def in_front(*more: tuple[str, str]) -> Callable[[str], Headers]:
    """More headers in front of those of a gRPC call."""
    return lambda address: [*more, *grpc_headers(address)]


INTERNAL, UNIMPLEMENTED, INVALID, EXHAUSTED = "13", "12", "3", "8"
ANSWERED = "0"
SILENCE, CLOSED = "silence", "closed"
PROTOCOL_ERROR, REFUSED = "reset 1", "reset 2"

MISTAKES = (
    Mistake("headers and nothing else", INTERNAL, SILENCE, body=None),
    Mistake("headers, and the call stays open", SILENCE, SILENCE, body=None, is_ended=False),
    Mistake(
        "half a message, and the call stays open",
        SILENCE,
        SILENCE,
        body=message(GOOD)[:40],
        is_ended=False,
    ),
    Mistake("half a message, and the end", INTERNAL, SILENCE, body=message(GOOD)[:40]),
    Mistake("no message", INTERNAL, SILENCE, body=b""),
    Mistake("a message of no bytes", "5", "5", body=message(b"")),
    Mistake("half a length", INTERNAL, SILENCE, body=b"\0\0\0"),
    Mistake(
        "a length beyond the message", INTERNAL, SILENCE, body=message(GOOD, length=len(GOOD) + 10)
    ),
    Mistake("a length of 4 GiB", INTERNAL, EXHAUSTED, body=message(GOOD, length=2**32 - 1)),
    Mistake("a message twice in a unary call", ANSWERED, ANSWERED, body=message(GOOD) * 2),
    Mistake(
        "compressed, it says, and does not say how", INTERNAL, INTERNAL, body=message(GOOD, flag=1)
    ),
    Mistake(
        "compressed in a way that nobody knows",
        UNIMPLEMENTED,
        INTERNAL,
        added(("grpc-encoding", "zstd9")),
        message(GOOD, flag=1),
    ),
    Mistake(
        "gzip that is none",
        INTERNAL,
        INTERNAL,
        added(("grpc-encoding", "gzip")),
        message(b"nonsense", flag=1),
    ),
    Mistake(
        "a path that nobody serves", UNIMPLEMENTED, UNIMPLEMENTED, replaced(path="/nobody/Knows")
    ),
    Mistake(
        "a path of 6,000 characters", UNIMPLEMENTED, UNIMPLEMENTED, replaced(path="/" + "x" * 6000)
    ),
    Mistake("a path without a slash", PROTOCOL_ERROR, UNIMPLEMENTED, replaced(path="inference")),
    Mistake("no path", PROTOCOL_ERROR, REFUSED, replaced(path=None)),
    Mistake("no method", PROTOCOL_ERROR, REFUSED, replaced(method=None)),
    Mistake("GET", ANSWERED, REFUSED, replaced(method="GET")),
    Mistake("JSON, it says", ANSWERED, ANSWERED, replaced(content_type="application/json")),
    Mistake("no content type", ANSWERED, ANSWERED, replaced(content_type=None)),
    Mistake("no te", ANSWERED, REFUSED, replaced(te=None)),
    Mistake("another te", PROTOCOL_ERROR, INTERNAL, replaced(te="gzip"), is_forgiven=False),
    Mistake("no authority", ANSWERED, REFUSED, replaced(authority=None)),
    Mistake("a field name in capitals", CLOSED, INTERNAL, added(("X-Upper", "1"))),
    Mistake("a field of HTTP/1", PROTOCOL_ERROR, ANSWERED, added(("connection", "keep-alive"))),
    Mistake("a pseudo field that is none", CLOSED, INTERNAL, in_front((":foo", "1"))),
    Mistake("a pseudo field twice", PROTOCOL_ERROR, ANSWERED, in_front((":method", "POST"))),
    Mistake("a line break in a value", CLOSED, ANSWERED, added(("x-a", "a\nb"))),
    Mistake("binary metadata that is no base64", ANSWERED, INTERNAL, added(("x-bin", "!!!"))),
    Mistake("a timeout that is none", ANSWERED, INTERNAL, added(("grpc-timeout", "soon"))),
    Mistake("a timeout below zero", ANSWERED, INTERNAL, added(("grpc-timeout", "-5S"))),
    Mistake(
        "a timeout of eleven thousand years",
        ANSWERED,
        ANSWERED,
        added(("grpc-timeout", "99999999H")),
    ),
    Mistake("a timeout that has passed", "4", "4", added(("grpc-timeout", "0n"))),
    Mistake(
        "a length of the content that is not so",
        PROTOCOL_ERROR,
        ANSWERED,
        added(("content-length", "5")),
    ),
    Mistake("200 KiB of metadata", CLOSED, ANSWERED, added(("x-a", "a" * 204_800))),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each.name)
async def test_a_mistake_gets_its_answer_and_the_next_call_its_own(
    server: Server, mistake: Mistake
) -> None:
    expected = mistake.native if server.transport == "native" else mistake.grpcio
    with Http2(server.address) as client:
        seconds = SILENCE_SECONDS if expected == SILENCE else 10.0
        assert _outcome(client, _make(client, mistake, seconds)) == expected
        server.answers()
        if mistake.is_forgiven and expected not in (CLOSED, SILENCE):
            assert client.call(GOOD).grpc_status == ANSWERED
    server.answers()


def _make(client: Http2, mistake: Mistake, seconds: float) -> Reply:
    is_alone = mistake.body is None and mistake.is_ended
    stream = client.begin(mistake.headers(client.address), end=is_alone)
    if mistake.body is not None:
        client.data(stream, mistake.body, end=mistake.is_ended)
    return client.wait(stream, seconds)


def _outcome(client: Http2, reply: Reply) -> str:
    if "grpc-status" in reply.headers:
        return reply.headers["grpc-status"]
    if reply.end.startswith("reset"):
        return reply.end
    if client.is_closed:
        return CLOSED
    return reply.grpc_status if ":status" in reply.headers else SILENCE


# Whole connections.


def _greeted(client: Http2, *frames: bytes) -> None:
    client.send(PREFACE + SettingsFrame(0).serialize() + b"".join(frames))


def _headers(client: Http2, stream: int, *flags: str) -> bytes:
    block = client.h2.encoder.encode(list(grpc_headers(client.address)))
    return HeadersFrame(stream, block, flags=["END_HEADERS", *flags]).serialize()


def _data(stream: int, data: bytes, *flags: str) -> bytes:
    return DataFrame(stream, data, flags=list(flags)).serialize()


def _longer_than_allowed(_: Http2) -> bytes:
    return b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(100_000)


def _hpack(block: bytes) -> bytes:
    return HeadersFrame(1, block, flags=["END_HEADERS"]).serialize()


def _on_a_closed_stream(client: Http2) -> bytes:
    ended = _headers(client, 1) + _data(1, message(GOOD), "END_STREAM")
    return ended + _data(1, message(GOOD)) * 3


BAD_FRAMES: dict[str, Callable[[Http2], bytes]] = {
    "a frame longer than allowed": _longer_than_allowed,
    "frames of unknown kinds": lambda _: b"".join(
        b"\x00\x00\x04" + bytes([kind, 255]) + b"\x00\x00\x00\x01abcd" for kind in range(10, 250)
    ),
    "data on stream 0": lambda _: b"\x00\x00\x04\x00\x00\x00\x00\x00\x00abcd",
    "data on a stream that was never opened": lambda _: _data(1, b"abcd"),
    "data after the end": _on_a_closed_stream,
    "headers on an even stream": lambda client: _headers(client, 2),
    "streams that count backwards": lambda client: (
        _headers(client, 9) + _headers(client, 7) + _headers(client, 5)
    ),
    "headers twice": lambda client: _headers(client, 1) * 2,
    "a stream that depends on itself": lambda _: PriorityFrame(1, depends_on=1).serialize(),
    "padding beyond the frame": lambda _: b"\x00\x00\x04\x00\x08\x00\x00\x00\x01\xffabc",
    "settings on a stream": lambda _: b"\x00\x00\x00\x04\x00\x00\x00\x00\x01",
    "settings of five bytes": lambda _: b"\x00\x00\x05\x04\x00\x00\x00\x00\x00abcde",
    "settings out of bounds": lambda _: SettingsFrame(
        0, {SettingsFrame.INITIAL_WINDOW_SIZE: 2**32 - 1, SettingsFrame.MAX_FRAME_SIZE: 1}
    ).serialize(),
    "a ping of five bytes": lambda _: b"\x00\x00\x05\x06\x00\x00\x00\x00\x00abcde",
    "a push from the client": lambda _: PushPromiseFrame(1, promised_stream_id=2).serialize(),
    "a reset of a stream that was never opened": lambda _: RstStreamFrame(1, 8).serialize(),
    "no window": lambda _: b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00",
    "a window beyond 2^31": lambda _: WindowUpdateFrame(0, 2**31 - 1).serialize() * 3,
    "a goodbye, and then a call": lambda client: (
        GoAwayFrame(0).serialize() + _headers(client, 1) + _data(1, message(GOOD), "END_STREAM")
    ),
    "continuation of nothing": lambda _: ContinuationFrame(1, b"abc").serialize(),
    "a ping between headers and their continuation": lambda client: (
        HeadersFrame(1, b"\x82").serialize() + PingFrame(0, b"12345678").serialize()
    ),
    "compressed headers of noise": lambda _: _hpack(b"\xff\x80\x80\x80\x80\x80\x80\x80\x80\x7f"),
    "a reference into an empty table": lambda _: _hpack(b"\xbe"),
    "a table of 4 GiB": lambda _: _hpack(b"\x3f\xe1\xff\xff\xff\x0f"),
    "a name longer than the frame": lambda _: _hpack(b"\x40\x7f\xff\xff\xff\x07abc"),
    "Huffman codes that end nowhere": lambda _: _hpack(b"\x40\x84\xff\xff\xff\xff\x01a"),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_ends_at_most_its_connection(server: Server, name: str) -> None:
    with Http2(server.address, is_greeting=False) as client:
        _greeted(client, BAD_FRAMES[name](client))
        while client.receive(0.2):
            pass
    server.answers()


NO_HTTP2 = {
    "HTTP/1.1": b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.1 that would like to upgrade": (
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n"
    ),
    "TLS": bytes.fromhex("16030100c5010000c10303") + bytes(range(190)),
    "noise": bytes(range(256)) * 16,
    "zeros": bytes(100_000),
    "a preface with a wrong end": PREFACE[:-2] + b"XX" + bytes(100),
    "a preface and then noise": PREFACE + b"\xff" * 4096,
    "half a preface": PREFACE[:10],
    "nothing": b"",
}


@pytest.mark.parametrize("name", NO_HTTP2)
async def test_what_is_no_http2_ends_at_most_its_connection(server: Server, name: str) -> None:
    with Http2(server.address, is_greeting=False) as client:
        client.send(NO_HTTP2[name])
        server.answers()
        client.socket.settimeout(5)
        with suppress(OSError):
            client.socket.shutdown(socket.SHUT_WR)
            while client.socket.recv(65536):
                pass  # until the server hangs up too
    server.answers()


# Many of them.


@contextmanager
def nothing_stays(server: Server, *, memory_mib: int = 48) -> Iterator[None]:
    """Memory, descriptors and threads come back to about where they were."""
    server.answers()
    memory, descriptors, threads = server.memory_bytes(), server.descriptors(), server.threads()
    yield
    server.answers()
    # It may take a moment until the server has seen that its clients have gone.
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not server.is_about(memory, descriptors, threads, memory_mib):
        if time.monotonic() > deadline:
            now = server.memory_bytes(), server.descriptors(), server.threads()
            raise AssertionError(f"from {(memory, descriptors, threads)} to {now}")
        time.sleep(0.05)


async def _until_let_go(server: Server, descriptors: int) -> None:
    await eventually(lambda: server.descriptors() <= descriptors + 12, what="connections closed")


def _cancelled(server: Server, calls: int, cancel: Callable[[Http2], None]) -> None:
    """So many cancelled calls, on a new connection whenever the server ends the last one."""
    done = connections = 0
    while done < calls:
        connections += 1
        assert connections < calls, "every call costs a connection"
        with Http2(server.address) as client:
            while done < calls and not client.is_closed:
                try:
                    cancel(client)
                except Exception:
                    break  # the connection is over, in the middle of a call
                done += 1
                if done % 64 == 0:
                    client.receive(0.001)


def _cancel_under_way(client: Http2) -> None:
    stream = client.begin(grpc_headers(client.address))
    client.data(stream, message(GOOD), end=True)
    client.reset(stream)


def _cancel_at_once(client: Http2) -> None:
    client.reset(client.begin(grpc_headers(client.address)))


async def test_10000_cancelled_calls_leave_nothing_behind(server: Server) -> None:
    _cancelled(server, 1000, _cancel_under_way)
    with nothing_stays(server):
        _cancelled(server, 10_000, _cancel_under_way)


async def test_calls_cancelled_as_soon_as_they_are_made_leave_nothing_behind(
    server: Server,
) -> None:
    with nothing_stays(server):
        _cancelled(server, 2000, _cancel_at_once)


async def test_500_idle_connections_hold_up_nobody(server: Server) -> None:
    server.answers()
    descriptors = server.descriptors()
    with nothing_stays(server):
        clients = [Http2(server.address) for _ in range(500)]
        server.answers()
        for each in clients:
            each.socket.close()
        await _until_let_go(server, descriptors)


async def test_calls_that_trickle_in_hold_up_nobody(server: Server) -> None:
    server.answers()
    descriptors = server.descriptors()
    with nothing_stays(server):
        clients = [Http2(server.address, is_greeting=False) for _ in range(60)]
        whole = [
            PREFACE
            + SettingsFrame(0).serialize()
            + _headers(each, 1)
            + _data(1, message(GOOD), "END_STREAM")
            for each in clients
        ]
        for at in range(0, len(whole[0]) - 1, 16):
            for each, data in zip(clients, whole, strict=True):
                each.send(data[at : at + 16][: len(data) - 1 - at])
            if at % 160 == 0:
                server.answers()
        for each in clients:
            each.socket.close()
        await _until_let_go(server, descriptors)


@pytest.mark.parametrize("at", (3, 30, 100, 150, 250), ids=lambda at: f"after {at} bytes")
async def test_connections_cut_in_mid_message_leave_nothing_behind(server: Server, at: int) -> None:
    server.answers()
    descriptors = server.descriptors()
    with nothing_stays(server):
        for number in range(100):
            with Http2(server.address, is_greeting=False) as client:
                whole = _headers(client, 1) + _data(1, message(GOOD), "END_STREAM")
                _greeted(client, whole[:at])
                if number % 2:  # a reset instead of an end
                    client.socket.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
                    )
        await _until_let_go(server, descriptors)


async def test_a_client_that_leaves_no_room_for_answers_holds_up_nobody(server: Server) -> None:
    with nothing_stays(server), Http2(server.address, window=0) as client:
        for _ in range(100):
            stream = client.begin(grpc_headers(client.address))
            client.data(stream, message(GOOD), end=True)
        server.answers()
        reply = client.wait(stream, SILENCE_SECONDS)
        assert reply.data == b""


async def test_a_client_that_never_reads_its_answers_holds_up_nobody(server: Server) -> None:
    large = message(good(rows=5000).SerializeToString())
    server.answers()
    with nothing_stays(server, memory_mib=96), Http2(server.address) as client:
        client.is_reading = False
        for _ in range(60):
            client.data(client.begin(grpc_headers(client.address)), large, end=True)
        server.answers()


async def test_a_window_opened_byte_by_byte_gets_a_whole_answer(server: Server) -> None:
    with Http2(server.address, window=1) as client:
        reply = client.call(GOOD)
        assert reply.grpc_status == ANSWERED
        assert len(ModelInferResponse.FromString(reply.message).outputs) == 2


FLOODS: dict[str, tuple[bytes, int]] = {
    "pings": (PingFrame(0, b"12345678").serialize(), 10_000),
    "answers to pings that were none": (
        PingFrame(0, b"12345678", flags=["ACK"]).serialize(),
        10_000,
    ),
    "settings": (SettingsFrame(0, {SettingsFrame.HEADER_TABLE_SIZE: 4096}).serialize(), 10_000),
    "priorities": (PriorityFrame(1, depends_on=3).serialize(), 20_000),
    "windows": (WindowUpdateFrame(0, 1).serialize(), 20_000),
    "frames of an unknown kind": (b"\x00\x00\x04\xee\x00\x00\x00\x00\x00abcd", 20_000),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_frames_ends_at_most_its_connection(server: Server, name: str) -> None:
    frame, count = FLOODS[name]
    with nothing_stays(server), Http2(server.address) as client:
        for _ in range(count // 1000):
            client.send(frame * 1000)
            client.receive(0.001)


async def test_headers_without_end_cost_no_memory(server: Server) -> None:
    with nothing_stays(server), Http2(server.address) as client:
        client.send(HeadersFrame(1, b"\x00\x01a\x01b").serialize())
        piece = ContinuationFrame(1, b"\x00\x01a\x7f\x81\x7f" + bytes(256) * 60).serialize()
        for _ in range(2000):
            client.send(piece)
            if client.is_closed:
                break


async def test_an_open_call_of_empty_data_costs_no_memory(server: Server) -> None:
    with nothing_stays(server), Http2(server.address) as client:
        stream = client.begin(grpc_headers(client.address))
        for _ in range(20):
            client.send(_data(stream, b"") * 1000)


async def test_lengths_of_4_gib_that_never_come_cost_no_memory(server: Server) -> None:
    before = {each.pid for each in server.processes()}
    with nothing_stays(server), ExitStack() as stack:
        for _ in range(50):
            client = stack.enter_context(Http2(server.address))
            stream = client.begin(grpc_headers(client.address))
            client.data(stream, message(GOOD, length=2**32 - 1))
        server.answers()
    assert {each.pid for each in server.processes()} == before


async def test_trailers_of_the_client_are_read_over(server: Server) -> None:
    with Http2(server.address) as client:
        stream = client.begin(grpc_headers(client.address))
        client.data(stream, message(GOOD))
        client.h2.send_headers(stream, [("x-trailer", "1")], end_stream=True)
        client.flush()
        assert client.wait(stream).grpc_status == ANSWERED


async def test_more_calls_at_once_than_allowed_are_answered_or_refused_one_by_one(
    server: Server,
) -> None:
    with Http2(server.address) as client:
        client.receive(1.0)
        frames = b"".join(
            _headers(client, stream) + _data(stream, message(GOOD), "END_STREAM")
            for stream in range(1, 1001, 2)
        )
        client.send(frames)
    server.answers()


async def test_a_thousand_connections_that_come_and_go_leave_nothing_behind(
    server: Server,
) -> None:
    descriptors = server.descriptors()
    call = partial(server.answers)
    with nothing_stays(server):
        for number in range(1000):
            with Http2(server.address, is_greeting=number % 3 > 0) as client:
                client.send(os.urandom(32) if number % 3 == 1 else b"")
            if number % 100 == 0:
                call()
        await _until_let_go(server, descriptors)
