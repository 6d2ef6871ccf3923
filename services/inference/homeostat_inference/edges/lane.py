"""A way to the engine for calls that wait on the event loop: HTTP, streams, grpc.aio."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence

from homeostat_inference.app.ports import Call
from homeostat_inference.domain.errors import DeadlineExceeded
from homeostat_kit.logs import get_logger

# Calls taken at once: as many as one turn of the loop can answer in a few milliseconds.
_BATCH_CALLS = 256
_JOIN_SECONDS = 2.0
log = get_logger("homeostat_inference.lane")

Handle = Callable[[Sequence[Call]], None]


class AwaitedCall:
    """A call whose asker waits on the event loop."""

    __slots__ = ("_answer", "_loop", "deadline_ns", "payload", "received_ns")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        answer: "asyncio.Future[bytes]",
        payload: bytes,
        left_seconds: float | None,
    ) -> None:
        self._loop = loop
        self._answer = answer
        self.payload = payload
        self.received_ns = now_ns = time.monotonic_ns()
        self.deadline_ns = 0 if left_seconds is None else now_ns + int(left_seconds * 1e9)

    def respond(self, payload: bytes) -> None:
        """Wakes the asker with the serialized response."""
        self._wake(lambda: self._answer.set_result(payload))

    def fail(self, error: Exception) -> None:
        """Wakes the asker with the error."""
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


class Lane:
    """A thread that hands whatever calls wait to the engine, all at once: a run of a model, and
    the journal's fdatasync, must not hold up the event loop."""

    def __init__(self, handle: Handle, name: str) -> None:
        """``name``: of the thread."""
        self._handle = handle
        self._waiting: queue.SimpleQueue[AwaitedCall | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def ask(self, payload: bytes, timeout_seconds: float) -> "asyncio.Future[bytes]":
        """The serialized response to a serialized request, or the error; DeadlineExceeded if
        neither comes in time. Whoever stops waiting cancels it: the call is answered to nobody."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._waiting.put(AwaitedCall(loop, answer, payload, timeout_seconds))
        expiry = loop.call_later(timeout_seconds, _expire, answer, timeout_seconds)
        answer.add_done_callback(lambda _: expiry.cancel())
        return answer

    async def close(self) -> None:
        """Hands over what waits, then ends the thread."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join, _JOIN_SECONDS)

    def _run(self) -> None:
        is_open = True
        while is_open and (first := self._waiting.get()) is not None:
            calls = [first]
            while len(calls) < _BATCH_CALLS and not self._waiting.empty():
                call = self._waiting.get()
                if call is None:
                    is_open = False
                    break
                calls.append(call)
            guarded(self._handle, calls)


def guarded(handle: Handle, calls: Sequence[Call]) -> None:
    """An exception that escaped would end the loop that calls this, and with it the service."""
    try:
        handle(calls)
    except Exception as error:
        log.exception("receiving_failed", calls=len(calls))
        for call in calls:
            call.fail(error)


def _expire(answer: "asyncio.Future[bytes]", seconds: float) -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded(f"there was no answer within {seconds:g} s"))
