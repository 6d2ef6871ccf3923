"""Two ways in for ModelInfer, one behind the other name in the settings.

``native``: the HTTP/2 work is done in Rust; a thread takes whatever calls wait, all at once, and
every other method goes to a grpc.aio server on a Unix socket. ``grpcio``: grpc.aio does it all, and
a thread takes whatever calls its handlers have put down.
"""

import asyncio
import os
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from homeostat_inference.edges.errors import status_of, trailing_of
from homeostat_inference.edges.lane import AtOnce, AwaitedCall, Handle, Turns, guarded
from homeostat_kit.auth import Forbidden, Guard, Unauthenticated
from homeostat_kit.logs import get_logger

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
# Calls that a client may have open on one connection; it holds back the others.
MAX_STREAMS = 128
# What the front calls a call; the others say that a caller has gone.
_EVENT_CALL = 0
# Calls taken at once: as many as one turn of the loop can answer in a few milliseconds.
BATCH_CALLS = 256
# Calls taken before the next run: the front is emptied, so that what waits is bounded by admission.
_TURN_CALLS = 4096
_WAIT_MS = 200
# A path of a Unix socket has less than 108 bytes.
_PATH_BYTES = 107
log = get_logger("homeostat_inference.transports")

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
    turns: Turns | None = None,
    folder: Path | None = None,
) -> Transport:
    """Starts serving on ``address``; OSError if it is taken. ``guard``: who may call ModelInfer;
    what goes to the ``fallback`` it guards itself. ``is_shared``: other processes listen there too
    (the ``fallback`` knows that by itself). ``turns``: answers the calls in the place of
    ``handle``. ``folder``: for a socket between the two servers, if there are two."""
    turns = turns or AtOnce(handle)
    if kind == "native":
        return await NativeTransport.start(
            address, turns, fallback, guard=guard, is_shared=is_shared, folder=folder
        )
    return await GrpcioTransport.start(address, turns, fallback)


class NativeCall:
    """A call that the native front holds."""

    __slots__ = ("_call_id", "_front", "authorization", "deadline_ns", "payload", "received_ns")

    def __init__(
        self,
        front: Any,
        call_id: int,
        payload: bytes,
        received_ns: int,
        deadline_ns: int,
        authorization: str | bytes | None,
    ) -> None:
        self._front = front
        # The header of this name, where tokens are asked for.
        self.authorization = authorization
        self._call_id = call_id
        self.payload = payload
        self.received_ns = received_ns
        self.deadline_ns = deadline_ns

    def respond(self, payload: bytes) -> None:
        """Sends the response; a client that has gone away is no error."""
        self._front.respond(self._call_id, payload)

    def fail(self, error: Exception) -> None:
        """Sends the status."""
        code, text = status_of(error)
        self._front.fail(self._call_id, code.value[0], text, trailing_of(error) or None)


def _socket_in(folder: Path | None) -> tuple[Path, Path | None]:
    """Where to listen, and the temporary folder that is needed for it, if one is."""
    if folder is not None:
        path = folder.absolute() / f"rest-{os.getpid()}.sock"
        if len(bytes(path)) <= _PATH_BYTES:
            folder.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            return path, None
    temporary = Path(tempfile.mkdtemp(prefix="homeostat-"))
    return temporary / "rest.sock", temporary


def _remove(socket: Path, temporary: Path | None) -> None:
    socket.unlink(missing_ok=True)
    if temporary is not None:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_sockets(folder: Path) -> None:
    """What processes left there that were killed."""
    for path in folder.glob("rest-*.sock"):
        path.unlink(missing_ok=True)


class NativeTransport:
    """pygrpc-native in front, grpc.aio behind."""

    def __init__(
        self,
        front: Any,
        server: Fallback,
        socket: tuple[Path, Path | None],
        turns: Turns,
        guard: Guard | None,
    ) -> None:
        self._front = front
        self._server = server
        self._socket = socket
        self._turns = turns
        self._guard = guard
        self._thread = threading.Thread(target=self._loop, name="receive", daemon=True)
        self._thread.start()

    @classmethod
    async def start(
        cls,
        address: str,
        turns: Turns,
        fallback: StartFallback,
        *,
        guard: Guard | None = None,
        is_shared: bool = False,
        folder: Path | None = None,
    ) -> Transport:
        """Starts both servers."""
        from pygrpc_native import NativeGrpcFront  # noqa: PLC0415 - not everybody installs it

        socket, temporary = _socket_in(folder)
        try:
            server = await fallback(f"unix:{socket}", None)
            front = NativeGrpcFront(
                address,
                [(MODEL_INFER, False)],
                # Its own list of tokens can't change while it runs; so it hands over the header.
                client_key_metadata=None if guard is None else "authorization",
                # Beside one thread that answers, a second one for HTTP/2 only makes them change.
                io_threads=1,
                # Deadlines.
                call_details=True,
                # Each may hold a whole message before anybody has asked who sends it.
                max_concurrent_streams=MAX_STREAMS,
                reuse_port=is_shared,
            )
            front.set_fallback(str(socket))
            front.start()
        except Exception as error:
            await asyncio.to_thread(_remove, socket, temporary)
            raise OSError(f"{address} cannot be listened on: {error}") from error
        return cls(front, server, (socket, temporary), turns, guard)

    @property
    def port(self) -> int:
        """The bound port."""
        return int(self._front.bound_port)

    async def stop(self) -> None:
        """Closes the front, which drops calls that were not answered."""
        await self._server.stop(1.0)
        await asyncio.to_thread(self._front.close)
        await asyncio.to_thread(self._thread.join, 2.0)
        await asyncio.to_thread(_remove, *self._socket)

    def _loop(self) -> None:
        receive, turns = self._front.recv_batch_details, self._turns
        while (events := receive(BATCH_CALLS, turns.patience_ms(_WAIT_MS))) is not None:
            taken = 0
            while events:
                guarded(turns.take, self._calls(events))
                taken += len(events)
                if len(events) < BATCH_CALLS or taken >= _TURN_CALLS:
                    break
                events = receive(BATCH_CALLS, 0)
            turns.work()

    def _calls(self, events: Sequence[Any]) -> list[NativeCall]:
        front, now_ns = self._front, time.monotonic_ns()
        calls = []
        for kind, call_id, _, payload, authorization, details in events:
            if kind == _EVENT_CALL:
                left = details[2]
                deadline_ns = 0 if left is None else now_ns + int(left * 1e9)
                calls.append(
                    NativeCall(front, call_id, payload, now_ns, deadline_ns, authorization)
                )
        return calls if self._guard is None else [each for each in calls if self._may(each)]

    def _may(self, call: NativeCall) -> bool:
        try:
            self._guard.check(MODEL_INFER, call.authorization)  # type: ignore[union-attr]
        except (Unauthenticated, Forbidden) as error:
            call.fail(error)
            return False
        except Exception as error:
            log.exception("not_guarded")
            call.fail(error)
            return False
        return True


class GrpcioTransport:
    """grpc.aio alone."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._waiting: queue.SimpleQueue[AwaitedCall | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="receive", daemon=True)
        self._server: Fallback

    @classmethod
    async def start(cls, address: str, turns: Turns, fallback: StartFallback) -> Transport:
        """Starts the server."""
        transport = cls(turns)
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
        self._waiting.put(AwaitedCall(loop, answer, payload, context.time_remaining()))
        try:
            return await answer
        except Exception as error:
            trailing = trailing_of(error)
            if trailing:
                context.set_trailing_metadata(trailing)
            raise

    def _loop(self) -> None:
        turns = self._turns
        while (calls := self._received(turns.patience_ms(_WAIT_MS) / 1000)) is not None:
            guarded(turns.take, calls)
            turns.work()

    def _received(self, seconds: float) -> list[AwaitedCall] | None:
        """Whatever waits, perhaps nothing after so many seconds; None at the end."""
        calls: list[AwaitedCall] = []
        try:
            call = self._waiting.get(timeout=seconds) if seconds else self._waiting.get_nowait()
            while call is not None and len(calls) < _TURN_CALLS:
                calls.append(call)
                call = self._waiting.get_nowait()
        except queue.Empty:
            return calls
        if call is None:
            return None
        self._waiting.put(call)
        return calls
