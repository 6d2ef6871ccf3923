"""A thread of its own, of lower priority, for work that takes long beside the live traffic."""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Self, TypeVar, TypeVarTuple

from homeostat_monitor.app.portions import Portion

# Rows played between two looks at whether anybody still waits.
_STEP_ROWS = 4_000
_NICE = 10

Answer = TypeVar("Answer")
Given = TypeVarTuple("Given")


class Beside:
    """Whoever leaves the block ends the work within some thousand rows, and waits for nothing."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPoolExecutor(1, name, initializer=_be_nice)
        self._is_over = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, work: Callable[[*Given], Answer], *given: *Given) -> Answer:
        """What the work gives."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, *given)

    async def play(self, work: Callable[[Portion], None], portion: Portion) -> None:
        """A few of the portion's rows after the other."""
        await self.run(self._play, work, portion)

    def _play(self, work: Callable[[Portion], None], portion: Portion) -> None:
        for begin in range(0, len(portion), _STEP_ROWS):
            if self._is_over.is_set():
                return
            work(portion.only(slice(begin, begin + _STEP_ROWS)))


def _be_nice() -> None:
    """On Linux a thread has a priority of its own."""
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
