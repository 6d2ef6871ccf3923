"""An HTTP/2 client that does what it is told, right or wrong: for tests of servers."""

import contextlib
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.settings import SettingCodes
from hyperframe.frame import Frame

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
Headers = Sequence[tuple[str, str]]


def grpc_headers(address: str, path: str = MODEL_INFER, *more: tuple[str, str]) -> Headers:
    """What a gRPC call begins with."""
    return (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", address),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *more,
    )


def message(payload: bytes, *, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message: flag, length, bytes; ``length`` may lie."""
    return struct.pack(">BI", flag, len(payload) if length is None else length) + payload


@dataclass(slots=True)
class Reply:
    """What came back on a stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    # The stream's end: "end", "reset 8", or "closed" with the connection.
    end: str = ""

    @property
    def grpc_status(self) -> str:
        """The gRPC status, or what came in its place."""
        return self.headers.get("grpc-status") or f"http {self.headers.get(':status')}"

    @property
    def message(self) -> bytes:
        """The one message of a unary call."""
        return self.data[5:]


class Http2:
    """One connection. Nothing that is sent is checked."""

    def __init__(
        self,
        address: str,
        *,
        is_greeting: bool = True,
        window: int | None = None,
        timeout: float = 10.0,
    ) -> None:
        """``window``: how many bytes of an answer the server may send ahead."""
        host, _, port = address.rpartition(":")
        self.address = address
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._timeout = timeout
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        self.replies: dict[int, Reply] = {}
        self.is_closed = False
        # Whether bytes that come in are acknowledged with window updates.
        self.is_reading = True
        if is_greeting:
            self.h2.initiate_connection()
            if window is not None:
                self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
            self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Sends what h2 has ready."""
        self.send(self.h2.data_to_send())

    def send(self, data: bytes) -> None:
        """Sends bytes as they are; a peer that hung up is noted, not raised."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionError):
            self.is_closed = True

    def frame(self, frame: Frame) -> None:
        """Sends a frame of any making."""
        self.send(frame.serialize())

    def begin(self, headers: Headers, *, end: bool = False) -> int:
        """Opens a stream; its number."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, list(headers), end_stream=end)
        self.replies[stream] = Reply()
        self.flush()
        return stream

    def data(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Sends data as far as the server's windows let it; end closes our side."""
        view = memoryview(data)
        while view:
            room = min(
                self.h2.local_flow_control_window(stream),
                self.h2.max_outbound_frame_size,
                len(view),
            )
            if room == 0:
                if not self.receive(1.0):
                    return
                continue
            self.h2.send_data(stream, bytes(view[:room]))
            view = view[room:]
            self.flush()
        if end:
            self.h2.end_stream(stream)
            self.flush()

    def reset(self, stream: int, code: int = 8) -> None:
        """Cancels a stream."""
        self.h2.reset_stream(stream, code)
        self.flush()

    def receive(self, seconds: float) -> bool:
        """Takes in what comes next; False if nothing came, or the connection is over."""
        if self.is_closed:
            return False
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            data = b""
        finally:
            with contextlib.suppress(OSError):
                self.socket.settimeout(self._timeout)
        if not data:
            self._close()
            return False
        self._take(data)
        return True

    def wait(self, stream: int, seconds: float = 10.0) -> Reply:
        """The reply, once the stream or the connection has ended; as far as it came, otherwise."""
        deadline = time.monotonic() + seconds
        reply = self.replies[stream]
        while not reply.end and not self.is_closed and time.monotonic() < deadline:
            self.receive(max(0.01, deadline - time.monotonic()))
        return reply

    def wait_closed(self, seconds: float = 10.0) -> bool:
        """Whether the server ends the connection."""
        deadline = time.monotonic() + seconds
        while not self.is_closed and time.monotonic() < deadline:
            self.receive(0.05)
        return self.is_closed

    def call(
        self, payload: bytes, *more: tuple[str, str], path: str = MODEL_INFER, seconds: float = 10.0
    ) -> Reply:
        """A whole unary call."""
        stream = self.begin(grpc_headers(self.address, path, *more))
        self.data(stream, message(payload), end=True)
        return self.wait(stream, seconds)

    def _take(self, data: bytes) -> None:
        try:
            for event in self.h2.receive_data(data):
                self._see(event)
            self.flush()
        except h2.exceptions.ProtocolError:
            self._close()

    def _see(self, event: Any) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._close()
        reply = self.replies.get(getattr(event, "stream_id", None) or 0)
        if reply is None:
            return
        if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            reply.headers |= dict(_text(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            reply.data += event.data
            if self.is_reading:
                self._make_room(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            reply.end = "end"
        elif isinstance(event, h2.events.StreamReset):
            reply.end = f"reset {int(event.error_code)}"

    def _make_room(self, size: int, stream: int) -> None:
        """At once, where h2 would wait until it pays."""
        if size:
            self.h2.increment_flow_control_window(size)
            with contextlib.suppress(h2.exceptions.StreamClosedError):
                self.h2.increment_flow_control_window(size, stream)

    def _close(self) -> None:
        self.is_closed = True
        for each in self.replies.values():
            each.end = each.end or "closed"


def _text(headers: Any) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        yield _str(name), _str(value)


def _str(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
