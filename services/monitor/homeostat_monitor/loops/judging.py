"""Judging in the background: one owner per model, woken when a watermark has moved."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from opentelemetry import trace

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_kit import logs, memory
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.lease import Lease, LeaseLost, Leases
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_kit.telemetry import Telemetry
from homeostat_monitor.app.judging import Judged, VersionNotKnown, judge_model
from homeostat_monitor.app.keeping import InHand
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.faults import Faults, Pauses, Tell, is_of_one_model
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.ports import KnownVersion
from homeostat_monitor.store.transaction import Reader, StoreTransaction
from homeostat_monitor.versions import RegistryAway, Versions

# Who commits wakes; this is for marks that another instance took in.
_IDLE_SECONDS = 0.5
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
# Models judged at the same time: as many as the database's connections allow beside taking in.
_AT_ONCE = 4
_MOST_DUE = 500
_LEASE = "judge:"
_TIDY_SECONDS = 10.0
_FINISH_SECONDS = 4.0

# The world's weather, which passes. Any other error of the database is a bug of ours.
_AWAY = (
    RegistryAway,
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg raises on a connection that was lost in the middle of its protocol.
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    # Serialisation and deadlocks.
    asyncpg.TransactionRollbackError,
    # A full disk, too many connections.
    asyncpg.InsufficientResourcesError,
)

_log = logs.get_logger("homeostat_monitor.judging")


class JudgeLoop:
    """Judges models that have something due, each under its lease, a few at a time.

    A model with nothing due costs nothing: no task, no lease, no transaction.
    """

    def __init__(
        self,
        pool: Pool,
        versions: Versions,
        *,
        instance: str,
        lease_seconds: float,
        told: Callable[[], None],
        spans: Callable[[], list[Any]],
        metrics: Metrics,
        traces: Telemetry,
    ) -> None:
        """``told`` is called when alerts are in the outbox; ``spans`` gives what led to them."""
        self._pool = pool
        self._reader = Reader(pool)
        self._versions = versions
        self._leases = Leases(pool, instance, lease_seconds)
        self._lease_seconds = lease_seconds
        self._told = told
        self._spans = spans
        self._metrics = metrics
        self._traces = traces
        self._faults = Faults(pool, metrics)
        self._in_hand = InHand()
        self._woken = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        # Models that somebody else in this process has in hand.
        self._reserved: set[str] = set()
        # Those that were due when it was asked last, and whether more may be due by now.
        self._due: list[str] = []
        self._may_be_more = True
        # Watched versions, as they were seen last; and until when (monotonic) a model is ours.
        self._watched: dict[str, list[Subject]] = {}
        self._ours_until: dict[str, float] = {}
        # Models whose judging waits for the world.
        self._pauses = Pauses(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)

    async def tells(self, tell: Tell) -> None:
        """``tell`` hears whether every model is judged, now and whenever that changes."""
        await self._faults.tells(tell)

    def wake(self) -> None:
        """A watermark has moved."""
        self._may_be_more = True
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Judges what is due until ``stop``."""
        tidied = time.monotonic()
        try:
            while not stop.is_set():
                self._woken.clear()
                try:
                    await self._begin_due()
                    if time.monotonic() - tidied > _TIDY_SECONDS:
                        tidied = time.monotonic()
                        await self._tidy()
                        # What a burst took; the library would keep it for the next one.
                        await asyncio.to_thread(memory.give_back)
                except _AWAY as error:
                    _log.warning("models_not_read", error=repr(error))
                await first_of(stop, self._woken, timeout=_IDLE_SECONDS)
                # Another instance may have taken marks in.
                self._may_be_more |= not self._woken.is_set()
                self._raise_failed()
        finally:
            await _end(list(self._running.values()))
            await self._leases.release()

    @asynccontextmanager
    async def reserved(self, model_name: str) -> AsyncIterator[bool]:
        """Nobody judges the model within the block, as long as it is renewed; whether that could
        be had. What becomes due meanwhile is judged after it."""
        self._reserved.add(model_name)
        try:
            task = self._running.get(model_name)
            if task is not None:
                await asyncio.wait([task])
            yield await self.renewed(model_name) is not None
        finally:
            self._reserved.discard(model_name)
            self.wake()

    async def renewed(self, model_name: str) -> Lease | None:
        """The model's lease for a while longer; None where another process has it."""
        return next(iter(await self._leases.take([f"{_LEASE}{model_name}"])), None)

    async def _begin_due(self) -> None:
        """Starts as many as there is room for; what is due is asked for once for many."""
        room = _AT_ONCE - len(self._running)
        if room <= 0:
            return
        now = time.monotonic()
        if self._may_be_more or not self._due:
            self._may_be_more = False
            self._due = self._in_turn(await self._reader.due_models(most=_MOST_DUE), now)
        due = [name for name in self._due if self._is_free(name, now)]
        # Somebody else may hold some of them: ask for more than there is room for.
        wanted = due[: 4 * room]
        leases = await self._leases.take([f"{_LEASE}{name}" for name in wanted])
        names = [each.name.removeprefix(_LEASE) for each in leases]
        taken = set(names[:room]) | (set(wanted) - set(names))
        # What is under way may be due again after it.
        self._due = [name for name in self._due if name not in taken]
        for name, lease in zip(names[:room], leases, strict=False):
            if name in self._reserved:
                continue
            self._ours_until[name] = now + self._lease_seconds
            task = asyncio.create_task(self._judge_due(name, lease), name=f"judge-{name}")
            self._running[name] = task
            task.add_done_callback(lambda _: self._woken.set())

    def _in_turn(self, due: list[str], now: float) -> list[str]:
        """Ours first, as long as they have been due; then others, in any order: some are judged by
        another instance, and no two should ask for the same."""
        self._ours_until = {name: until for name, until in self._ours_until.items() if until > now}
        ours = [name for name in due if name in self._ours_until]
        others = [name for name in due if name not in self._ours_until]
        random.shuffle(others)
        return ours + others

    def _is_free(self, name: str, now: float) -> bool:
        is_in_hand = name in self._running or name in self._reserved
        is_paused = self._pauses.is_paused(name, now) or self._faults.is_paused(name, now)
        return not is_in_hand and not is_paused

    def _raise_failed(self) -> None:
        """What is wrong for every model takes the process down with its cause."""
        for name, each in list(self._running.items()):
            if each.done():
                del self._running[name]
                if not each.cancelled():
                    each.result()

    async def _judge_due(self, model_name: str, lease: Lease) -> None:
        try:
            while (await self._judge(model_name, lease)).is_full:
                pass
            self._pauses.end(model_name)
            await self._faults.over(model_name)
        except LeaseLost as error:
            self._leases.forget(lease)
            _log.warning("lease_lost", model_name=model_name, error=str(error))
        except _AWAY as error:
            self._wait(model_name, error)
        except Exception as error:
            if not is_of_one_model(error):
                raise
            await self._set_aside(model_name, lease, error)

    def _wait(self, model_name: str, error: BaseException) -> None:
        self._pauses.begin(model_name)
        _log.warning("judging_waits", model_name=model_name, error=repr(error))

    async def _set_aside(self, model_name: str, lease: Lease, error: Exception) -> None:
        """A bug that one model's data met stops that model alone; another instance may try it."""
        self._ours_until.pop(model_name, None)
        try:
            await self._faults.note(model_name, error)
            await self._leases.give_up(lease)
        except _AWAY as away:
            self._wait(model_name, away)

    async def _judge(self, model_name: str, lease: Lease) -> Judged:
        begun = time.perf_counter()
        known = await self._known(model_name)

        async def work(connection: Connection) -> Judged:
            await lease.check(connection)
            tx = StoreTransaction(connection)
            return await judge_model(model_name, known, tx=tx, in_hand=self._in_hand)

        links = [trace.Link(each) for each in self._spans()]
        with self._traces.tracer.start_as_current_span("monitor.judge", links=links) as span:
            span.set_attribute("homeostat.model", model_name)
            try:
                judged = await retrying(self._pool, work)
            except VersionNotKnown:
                # Announced since we asked: ask again.
                self._watched.pop(model_name, None)
                return Judged(is_full=True)
            self._in_hand.put(judged.keepers)
            span.set_attribute("homeostat.alerts", [each.alert_id for each in judged.alerts])
        self._note(model_name, judged, time.perf_counter() - begun)
        return judged

    async def _known(self, model_name: str) -> dict[Subject, KnownVersion]:
        """Of versions that are watched, and perhaps of some that no longer are. RegistryAway."""
        subjects = self._watched.pop(model_name, None)
        if subjects is None:
            subjects = await self._reader.watched(model_name)
        known = {each: (await self._versions.get(each)).known for each in subjects}
        self._watched[model_name] = subjects
        return known

    def _note(self, model_name: str, judged: Judged, seconds: float) -> None:
        if judged.windows or judged.losses:
            self._metrics.windows.add(judged.windows)
            self._metrics.losses.add(judged.losses)
            self._metrics.judge_seconds.record(seconds)
        for each in judged.alerts:
            kind = {"rule": each.rule, "state": each.state, "severity": each.severity}
            self._metrics.alerts.add(1, kind)
            _log.info(
                "alert",
                model_name=model_name,
                version=each.subject.version,
                alert_id=each.alert_id,
                **kind,
                summary=each.summary,
            )
        if judged.alerts:
            self._told()

    async def _tidy(self) -> None:
        """Forgets judged marks, and events that no broker sends again."""
        reached = [await self._reader.current_us(each.name) for each in (PREDICTIONS, JOINED)]
        present = [each for each in reached if each is not None]

        async def work(connection: Connection) -> None:
            tx = StoreTransaction(connection)
            await tx.drop_marks()
            if present:
                await tx.forget(min(present))

        await retrying(self._pool, work)
        await self._faults.refresh(*await self._reader.reached())


async def _end(owners: list[asyncio.Task[None]]) -> None:
    """Lets them finish what is in hand."""
    if not owners:
        return
    _, late = await asyncio.wait(owners, timeout=_FINISH_SECONDS)
    for each in late:
        each.cancel()
    await asyncio.gather(*owners, return_exceptions=True)
