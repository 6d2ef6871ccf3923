"""An HTTP server with limits: what a body may weigh, how long a client may take, how many may come.

aiohttp does the protocol; nothing of it is imported before a server is opened.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from homeostat_inference.domain.errors import Overloaded, TooLarge
from homeostat_kit.grpc_server import Security
from homeostat_kit.logs import get_logger
from homeostat_kit.tls import ssl_context

if TYPE_CHECKING:
    from aiohttp.web_request import BaseRequest
    from aiohttp.web_response import Response

# For a whole body to come in, and for a whole answer to be taken.
_BODY_SECONDS = 30.0
_TAKE_SECONDS = 30.0
# For the first head of a connection, and between two requests; longer than most clients keep one.
_IDLE_SECONDS = 75.0
_HANDSHAKE_SECONDS = 10.0
_LINGER_SECONDS = 2.0
_LEAVE_SECONDS = 1.0
_MAX_CONNECTIONS = 2000
_LOOK_SECONDS = 1.0
# Below this compression costs more than it saves.
_WORTH_COMPRESSING_BYTES = 1024
_LONG_BYTES = 64 * 1024
_LONG_AT_ONCE = 2
_WINDOW_BITS = {"gzip": 31, "deflate": 15}
JSON = "application/json"
Made = TypeVar("Made")
log = get_logger("homeostat_inference.http")


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request."""

    method: str
    # As sent, quoted, without the query.
    path: str
    headers: Mapping[str, str]
    # Uncompressed; nothing as long as only the head has come.
    body: bytes = b""


class Timeout(Exception):
    """The client sent its body too slowly."""


class Unreadable(Exception):
    """The body is not what its headers say."""


Require = Callable[[Asked], None]
Respond = Callable[[Asked], Awaitable[Answer]]
Refuse = Callable[[Exception], Answer]


class HttpServer:
    """A started server."""

    def __init__(
        self,
        require: Require,
        respond: Respond,
        refuse: Refuse,
        bench: "Bench",
        *,
        max_body_bytes: int,
        held_bytes: int,
    ) -> None:
        """``require`` raises what is wrong with a head, before any of its body is taken.
        ``refuse`` makes an answer of any error. ``held_bytes``: what bodies that are being read
        or answered may take together, uncompressed; beyond it requests are refused as Overloaded.
        ``bench`` is closed with the server."""
        self._bench = bench
        self._require = require
        self._respond = respond
        self._refuse = refuse
        self._max_body_bytes = max_body_bytes
        self._free_bytes = held_bytes
        self._server: asyncio.Server
        self._manager: Any
        self._looking: asyncio.Task[None] | None = None

    async def start(self, address: str, security: Security, *, reuse_port: bool = False) -> None:
        """Listens on "host:port"; OSError if it is taken. ``reuse_port``: others that ask for it
        too may listen there, and share what comes."""
        from aiohttp.web_server import Server  # noqa: PLC0415 - 6 MB that not everybody needs

        class Bounded(Server):
            """Closes connections beyond a number: each costs memory."""

            def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
                super().connection_made(handler, transport)
                if len(self.connections) > _MAX_CONNECTIONS:
                    transport.abort()

        security.warn(address)
        context = None
        if security.tls is not None:
            context, look = ssl_context(security.tls)
            self._looking = asyncio.create_task(_look_forever(look))
        self._manager = Bounded(
            self._handle,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=_LINGER_SECONDS,
            access_log=None,
        )
        host, _, port = address.rpartition(":")
        self._server = await asyncio.get_running_loop().create_server(
            self._manager,
            host.strip("[]") or None,
            int(port),
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if context else None,
            reuse_port=reuse_port or None,
        )

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections_count(self) -> int:
        """How many are open."""
        return len(self._manager.connections)

    async def stop(self) -> None:
        """Takes no more requests, and gives those under way a second."""
        if self._looking is not None:
            self._looking.cancel()
        self._server.close()
        await self._manager.shutdown(_LEAVE_SECONDS)
        self._bench.close()

    async def _handle(self, request: "BaseRequest") -> "Response":
        answer = await self._answer(request)
        response = await _written(answer, request.headers, self._bench)
        if not request.content.is_eof():
            # What is left of the body would be taken for the next request.
            response.force_close()
        try:
            async with asyncio.timeout(_TAKE_SECONDS):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            # Whoever does not take the answer would hold its memory for good.
            if request.transport is not None:
                request.transport.abort()
        except ConnectionError:
            # The client has gone: nobody misses the answer.
            pass
        return response

    async def _answer(self, request: "BaseRequest") -> Answer:
        held = _Held()
        try:
            head = Asked(request.method, request.rel_url.raw_path, request.headers)
            self._require(head)
            body = await self._read(request, held) if request.can_read_body else b""
            return await self._respond(replace(head, body=body))
        except Exception as error:
            return self._refuse(error)
        finally:
            self._free_bytes += held.size_bytes

    async def _read(self, request: "BaseRequest", held: "_Held") -> bytes:
        told = request.content_length or 0
        if told > self._max_body_bytes:
            raise self._too_large()
        if told > self._free_bytes:
            raise _no_room()
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                return await self._body(request, held)
        except TimeoutError:
            raise Timeout(f"expected the whole body within {_BODY_SECONDS:g} s") from None

    async def _body(self, request: "BaseRequest", held: "_Held") -> bytes:
        """What has come counts, not what was announced: who announces much and sends nothing
        keeps nobody out."""
        from aiohttp.web_protocol import RequestPayloadError  # noqa: PLC0415

        parts: list[bytes] = []
        try:
            async for part in request.content.iter_any():
                if held.size_bytes + len(part) > self._max_body_bytes:
                    raise self._too_large()
                if len(part) > self._free_bytes:
                    raise _no_room()
                held.size_bytes += len(part)
                self._free_bytes -= len(part)
                parts.append(part)
        except RequestPayloadError as error:
            raise Unreadable(f"the body can't be read: {str(error)[:200]}") from None
        except OSError:
            raise Unreadable("the client went away before its body had come") from None
        return b"".join(parts)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"expected a body of at most {self._max_body_bytes} bytes")


@dataclass(slots=True)
class _Held:
    """What one request's body takes."""

    size_bytes: int = 0


def _no_room() -> Overloaded:
    return Overloaded("too many bytes of requests are in hand; try later")


async def _look_forever(look: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        try:
            look()
        except Exception:
            # Nobody waits for this task: without it the old certificate stays until it runs out.
            log.exception("certificate_not_looked_at")


async def _written(answer: Answer, asked: Mapping[str, str], bench: "Bench") -> "Response":
    from aiohttp.web_response import Response  # noqa: PLC0415

    headers = {"Server": "homeostat", "Content-Type": answer.content_type, **answer.headers}
    body = answer.body
    encoding = _encoding(asked.get("Accept-Encoding", ""))
    if encoding is not None and len(body) >= _WORTH_COMPRESSING_BYTES:
        body = await bench.do(lambda: _compressed(answer.body, encoding), len(body))
        headers |= {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
    return Response(body=body, status=answer.status, headers=headers)


def _encoding(accepted: str) -> str | None:
    """The first of ours that the client takes."""
    for each in accepted.split(","):
        name, _, quality = each.partition(";")
        if name.strip().lower() in _WINDOW_BITS and quality.replace(" ", "") not in _NEVER:
            return name.strip().lower()
    return None


_NEVER = ("q=0", "q=0.0", "q=0.00", "q=0.000")


def _compressed(body: bytes, encoding: str) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW_BITS[encoding])
    return packer.compress(body) + packer.flush()


class Bench:
    """Where work on long bodies is done: two at a time, since JSON takes up to thirty times its
    length once it is read, and others wait on the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LONG_AT_ONCE, "http")

    async def do(self, work: Callable[[], Made], size_bytes: int) -> Made:
        """Does it here and now if it is short."""
        if size_bytes <= _LONG_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Ends when what is in hand has ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)
