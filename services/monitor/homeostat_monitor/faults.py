"""Models whose judging fails by themselves: set aside for a while, so that the others go on."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg

from homeostat_kit import logs
from homeostat_kit.postgres import Pool, queries
from homeostat_monitor.metrics import Metrics

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0

# What a model's own data or state may lead the database to; its other errors are everybody's.
_OF_ONE_MODEL = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError)

_SQL = queries("homeostat_monitor", "tending.sql")
_log = logs.get_logger("homeostat_monitor.judging")

Tell = Callable[[bool], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a model is not judged."""

    error: str
    since_us: int
    times: int


def is_of_one_model(error: BaseException) -> bool:
    """Whether the others may be judged nevertheless: a bug that one model's data met."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, _OF_ONE_MODEL)
    return isinstance(error, Exception) and not isinstance(error, MemoryError)


async def fault_of(pool: Pool, model_name: str) -> Fault | None:
    """As all instances know it; None where the model's judging does not fail."""
    row = await pool.fetchrow(_SQL["fault_of"], model_name)
    return None if row is None else Fault(row["error"], row["since_us"], row["times"])


class Pauses:
    """How long each model waits: twice as long each time, until it goes well."""

    def __init__(self, first_seconds: float, longest_seconds: float) -> None:
        self._first, self._longest = first_seconds, longest_seconds
        # Until when (monotonic), and how long next.
        self._by_name: dict[str, tuple[float, float]] = {}

    def is_paused(self, model_name: str, now: float) -> bool:
        """Whether it is not to be tried yet; ``now`` is monotonic."""
        return self._by_name.get(model_name, (0.0, 0.0))[0] > now

    def begin(self, model_name: str) -> float:
        """It waits from now on, for so many seconds."""
        _, pause = self._by_name.get(model_name, (0.0, self._first))
        self._by_name[model_name] = (time.monotonic() + pause, min(2 * pause, self._longest))
        return pause

    def end(self, model_name: str) -> None:
        """It went well."""
        self._by_name.pop(model_name, None)


class Faults:
    """What fails, in the database for everybody; when this process tries it again, in memory."""

    def __init__(self, pool: Pool, metrics: Metrics) -> None:
        self._pool = pool
        self._metrics = metrics
        self._pauses = Pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
        # Those that any instance knows of, as they were seen last.
        self._names: set[str] = set()
        self._tell: Tell | None = None

    async def tells(self, tell: Tell) -> None:
        """Who is to hear whether every model is judged, now and whenever that changes."""
        self._tell = tell
        await self._say()

    def is_paused(self, model_name: str, now: float) -> bool:
        """Whether it is not to be tried yet; ``now`` is monotonic."""
        return self._pauses.is_paused(model_name, now)

    async def note(self, model_name: str, error: BaseException) -> None:
        """Its judging failed: 1 s of pause, then twice as long each time, at most 60 s."""
        pause = self._pauses.begin(model_name)
        kind = type(error).__name__
        self._metrics.faults.add(1, {"model": model_name, "error": kind})
        _log.error(
            "judging_failed",
            model_name=model_name,
            error_class=kind,
            error=repr(error),
            pause_seconds=pause,
            exc_info=error,
        )
        await self._pool.execute(_SQL["note_fault"], model_name, kind)
        self._names.add(model_name)
        await self._say()

    async def over(self, model_name: str) -> None:
        """It was judged."""
        self._pauses.end(model_name)
        if model_name in self._names:
            await self._pool.execute(_SQL["end_fault"], model_name)
            self._names.discard(model_name)
            _log.info("judging_recovered", model_name=model_name)
            await self._say()

    async def refresh(self, windows_us: int, losses_us: int) -> None:
        """What other instances noted and mended; ``windows_us`` and ``losses_us`` are reached."""
        await self._pool.execute(_SQL["end_faults_not_due"], windows_us, losses_us)
        self._names = {row["model_name"] for row in await self._pool.fetch(_SQL["faults"])}
        await self._say()

    async def _say(self) -> None:
        if self._tell is not None:
            await self._tell(not self._names)
