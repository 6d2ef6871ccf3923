"""Work that nobody waits for."""

import asyncio
from collections.abc import Awaitable

from homeostat_kit.logs import get_logger

log = get_logger("homeostat_inference.keeper")


class Beside:
    """Holds it until it has ended, and says so if it fails."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, work: Awaitable[None]) -> None:
        """Goes on at once."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Future[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task_failed", exc_info=task.exception())
