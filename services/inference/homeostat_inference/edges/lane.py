"""A way to the engine for calls that wait on the event loop: HTTP, streams, grpc.aio."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from homeostat_inference.app.ports import Call
from homeostat_inference.domain.errors import DeadlineExceeded
from homeostat_kit.logs import get_logger

# Calls taken at once: as many as one turn of the loop can answer in a few milliseconds.
_BATCH_CALLS = 256
_JOIN_SECONDS = 2.0
# Nothing that was taken waits.
_FOR_EVER_MS = 1 << 40
log = get_logger("homeostat_inference.lane")

Handle = Callable[[Sequence[Call]], None]


class Turns(Protocol):
    """What takes calls in and answers them in its own order; used by one thread."""

    def take(self, calls: Sequence[Call]) -> None:
        """Takes the calls, or fails them."""

    def work(self) -> None:
        """Answers some of them, if it is time."""

    def patience_ms(self, at_most_ms: int) -> int:
        """How long `work` can wait."""


class AtOnce:
    """Every call is answered in the turn in which it came."""

    def __init__(self, handle: Handle) -> None:
        self.take = handle

    def work(self) -> None:
        """Nothing is left."""

    def patience_ms(self, at_most_ms: int) -> int:
        """For as long as may be."""
        return at_most_ms


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

    def __init__(self, turns: Turns, name: str) -> None:
        """``turns``: used by this thread alone, whose ``name`` it is."""
        self._turns = turns
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
        """Hands over what waits, then ends the thread; what was taken is answered before."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join, _JOIN_SECONDS)

    def _run(self) -> None:
        turns = self._turns
        is_open = True
        while is_open or turns.patience_ms(_FOR_EVER_MS) < _FOR_EVER_MS:
            wait_ms = turns.patience_ms(_FOR_EVER_MS)
            calls, is_end = self._received(None if wait_ms == _FOR_EVER_MS else wait_ms / 1000)
            is_open = is_open and not is_end
            guarded(turns.take, calls)
            turns.work()

    def _received(self, seconds: float | None) -> tuple[list[AwaitedCall], bool]:
        """Whatever waits, perhaps nothing after so many seconds; and whether that was the end."""
        calls: list[AwaitedCall] = []
        try:
            call = self._waiting.get(block=seconds != 0, timeout=seconds or None)
            while call is not None:
                calls.append(call)
                if len(calls) == _BATCH_CALLS:
                    return calls, False
                call = self._waiting.get_nowait()
        except queue.Empty:
            return calls, False
        return calls, True


def guarded(handle: Handle, calls: Sequence[Call]) -> None:
    """An exception that escaped would end the loop that calls this, and with it the service."""
    if not calls:
        return
    try:
        handle(calls)
    except Exception as error:
        log.exception("receiving_failed", calls=len(calls))
        for call in calls:
            call.fail(error)


def _expire(answer: "asyncio.Future[bytes]", seconds: float) -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded(f"there was no answer within {seconds:g} s"))
