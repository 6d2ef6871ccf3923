"""Two ways in for ModelInfer, one behind the other name in the settings.

``native``: the HTTP/2 work is done in Rust; a thread takes whatever calls wait, all at once, and
every other method goes to a grpc.aio server on a Unix socket. ``grpcio``: grpc.aio does it all, and
a thread takes whatever calls its handlers have put down.
"""

import asyncio
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from homeostat_inference.app.ports import Call
from homeostat_inference.edges.errors import status_of
from homeostat_kit.auth import Forbidden, Guard, Unauthenticated
from homeostat_kit.logs import get_logger

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
# Calls taken at once: as many as one turn of the loop can answer in a few milliseconds.
BATCH_CALLS = 256
_WAIT_MS = 200
log = get_logger("homeostat_inference.transports")

Handle = Callable[[Sequence[Call]], None]
Infer = Callable[[bytes, Any], Any]


class Fallback(Protocol):
    """A started grpc.aio server."""

    @property
    def port(self) -> int:
        """The bound port."""

    async def stop(self, grace: float | None = 3.0) -> None:
        """Ends it."""


# Starts the grpc.aio server on an address; with a handler for ModelInfer, or without.
StartFallback = Callable[[str, Infer | None], Any]


class Transport(Protocol):
    """A started way in."""

    @property
    def port(self) -> int:
        """The bound port."""

    async def stop(self) -> None:
        """Takes no more calls; those that were taken should have been answered before."""


async def open_transport(
    kind: Literal["native", "grpcio"],
    address: str,
    handle: Handle,
    fallback: StartFallback,
    *,
    guard: Guard | None = None,
    is_shared: bool = False,
) -> Transport:
    """Starts serving on ``address``; OSError if it is taken. ``guard``: who may call ModelInfer;
    what goes to the ``fallback`` it guards itself. ``is_shared``: other processes listen there too
    (the ``fallback`` knows that by itself)."""
    if kind == "native":
        return await NativeTransport.start(
            address, handle, fallback, guard=guard, is_shared=is_shared
        )
    return await GrpcioTransport.start(address, handle, fallback)


class NativeCall:
    """A call that the native front holds."""

    __slots__ = ("_call_id", "_front", "authorization", "deadline_ns", "payload", "received_ns")

    def __init__(
        self,
        front: Any,
        call_id: int,
        payload: bytes,
        received_ns: int,
        authorization: str | bytes | None = None,
    ) -> None:
        self._front = front
        # The header of this name, where tokens are asked for.
        self.authorization = authorization
        self._call_id = call_id
        self.payload = payload
        self.received_ns = received_ns
        self.deadline_ns = 0

    def respond(self, payload: bytes) -> None:
        """Sends the response; a client that has gone away is no error."""
        self._front.respond(self._call_id, payload)

    def fail(self, error: Exception) -> None:
        """Sends the status."""
        code, text = status_of(error)
        self._front.fail(self._call_id, code.value[0], text)


class NativeTransport:
    """pygrpc-native in front, grpc.aio behind."""

    def __init__(self, front: Any, server: Fallback, folder: str, handle: Handle) -> None:
        self._front = front
        self._server = server
        self._folder = folder
        self._handle = handle
        self._thread = threading.Thread(target=self._loop, name="receive", daemon=True)
        self._thread.start()

    @classmethod
    async def start(
        cls,
        address: str,
        handle: Handle,
        fallback: StartFallback,
        *,
        guard: Guard | None = None,
        is_shared: bool = False,
    ) -> Transport:
        """Starts both servers."""
        from pygrpc_native import NativeGrpcFront  # noqa: PLC0415 - not everybody installs it

        folder = tempfile.mkdtemp(prefix="homeostat-")
        socket = f"{folder}/rest.sock"
        try:
            server = await fallback(f"unix:{socket}", None)
            front = NativeGrpcFront(
                address,
                [(MODEL_INFER, False)],
                # Its own list of tokens can't change while it runs; so it hands over the header.
                client_key_metadata=None if guard is None else "authorization",
                reuse_port=is_shared,
            )
            front.set_fallback(socket)
            front.start()
        except Exception as error:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise OSError(f"{address} cannot be listened on: {error}") from error
        return cls(front, server, folder, handle if guard is None else Checked(guard, handle))

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._front.bound_port)

    async def stop(self) -> None:
        """Closes the front, which drops calls that were not answered."""
        await self._server.stop(1.0)
        await asyncio.to_thread(self._front.close)
        await asyncio.to_thread(self._thread.join, 2.0)
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    def _loop(self) -> None:
        from pygrpc_native import EVENT_CALL  # noqa: PLC0415

        while (events := self._front.recv_batch(BATCH_CALLS, _WAIT_MS)) is not None:
            if not events:
                continue
            now_ns = time.monotonic_ns()
            calls = [
                NativeCall(self._front, call_id, payload, now_ns, authorization)
                for kind, call_id, _, payload, authorization in events
                if kind == EVENT_CALL
            ]
            _guarded(self._handle, calls)


class Checked:
    """Hands on the calls of those who may call, and refuses the others."""

    def __init__(self, guard: Guard, handle: Handle) -> None:
        self._guard = guard
        self._handle = handle

    def __call__(self, calls: Sequence[Any]) -> None:
        self._handle([each for each in calls if self._may(each)])

    def _may(self, call: Any) -> bool:
        try:
            self._guard.check(MODEL_INFER, call.authorization)
        except (Unauthenticated, Forbidden) as error:
            call.fail(error)
            return False
        return True


def _guarded(handle: Handle, calls: Sequence[Call]) -> None:
    """An exception that escaped would end the loop, and with it the service."""
    try:
        handle(calls)
    except Exception as error:
        log.exception("receiving_failed", calls=len(calls))
        for call in calls:
            call.fail(error)


class GrpcioCall:
    """A call whose handler waits on the event loop."""

    __slots__ = ("_answer", "_loop", "deadline_ns", "payload", "received_ns")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, answer: "asyncio.Future[bytes]", payload: bytes
    ) -> None:
        self._loop = loop
        self._answer = answer
        self.payload = payload
        self.received_ns = time.monotonic_ns()
        self.deadline_ns = 0

    def respond(self, payload: bytes) -> None:
        """Wakes the handler with the response."""
        self._wake(lambda: self._answer.set_result(payload))

    def fail(self, error: Exception) -> None:
        """Wakes the handler with the error, which the server maps to a status."""
        self._wake(lambda: self._answer.set_exception(error))

    def _wake(self, finish: Callable[[], None]) -> None:
        def finish_once() -> None:
            if not self._answer.done():
                finish()

        try:
            self._loop.call_soon_threadsafe(finish_once)
        except RuntimeError:
            # The loop has ended, and the client with it.
            log.warning("answer_after_the_end")


class GrpcioTransport:
    """grpc.aio alone."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._waiting: queue.SimpleQueue[GrpcioCall | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="receive", daemon=True)
        self._server: Fallback

    @classmethod
    async def start(cls, address: str, handle: Handle, fallback: StartFallback) -> Transport:
        """Starts the server."""
        transport = cls(handle)
        transport._server = await fallback(address, transport._infer)
        transport._thread.start()
        return transport

    @property
    def port(self) -> int:
        """The bound port."""
        return self._server.port

    async def stop(self) -> None:
        """Gives calls under way a second."""
        await self._server.stop(1.0)
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join, 2.0)

    async def _infer(self, payload: bytes, context: Any) -> bytes:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._waiting.put(GrpcioCall(loop, answer, payload))
        return await answer

    def _loop(self) -> None:
        while (first := self._waiting.get()) is not None:
            calls = [first]
            while len(calls) < BATCH_CALLS:
                try:
                    call = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if call is None:
                    self._waiting.put(None)
                    break
                calls.append(call)
            _guarded(self._handle, calls)
