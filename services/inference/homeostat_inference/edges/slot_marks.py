"""Callers' promises that the worker of a slot is asked to keep in its journal."""

import asyncio
from collections.abc import Callable

from homeostat_inference.edges.control import AskMark, Marked


class SlotMarks:
    """Asks whoever is the slot's worker, and the next one if that one ends before it answers."""

    def __init__(self, ask: Callable[[AskMark], None]) -> None:
        self._ask = ask
        self._waiting: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        # Somebody is there who can be asked.
        self.may_ask = asyncio.Event()

    async def mark(self, mark_us: int) -> str:
        """Why the promise was not kept, or nothing. While there is no worker it waits."""
        while True:
            await self.may_ask.wait()
            self._number += 1
            number = self._number
            waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._waiting[number] = waiting
            self._ask(AskMark(number, mark_us))
            try:
                return await waiting
            except ConnectionError:
                # Its end was told of: the next one is waited for.
                continue
            finally:
                self._waiting.pop(number, None)

    def heard(self, message: Marked) -> None:
        """The worker's answer."""
        waiting = self._waiting.pop(message.number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message.error)

    def lost(self) -> None:
        """The worker ended; nobody can be asked until ``may_ask`` is set."""
        self.may_ask.clear()
        for each in self._waiting.values():
            if not each.done():
                each.set_exception(ConnectionError("the worker ended"))
        self._waiting.clear()
