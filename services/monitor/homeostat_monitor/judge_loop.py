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
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.store import Reader, StoreTransaction
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
        self._told = told
        self._spans = spans
        self._metrics = metrics
        self._traces = traces
        self._in_hand = InHand()
        self._woken = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        # Models that somebody else in this process has in hand.
        self._reserved: set[str] = set()
        # Models whose judging waits for the world: until when (monotonic), and how long next.
        self._pauses: dict[str, tuple[float, float]] = {}

    def wake(self) -> None:
        """A watermark has moved."""
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
            self._woken.set()

    async def renewed(self, model_name: str) -> Lease | None:
        """The model's lease for a while longer; None where another process has it."""
        return next(iter(await self._leases.take([f"{_LEASE}{model_name}"])), None)

    async def _begin_due(self) -> None:
        """Starts as many as there is room for."""
        room = _AT_ONCE - len(self._running)
        if room <= 0:
            return
        now = time.monotonic()
        due = [
            name
            for name in await self._reader.due_models(most=_MOST_DUE)
            if name not in self._running
            and name not in self._reserved
            and self._pauses.get(name, (0.0, 0.0))[0] <= now
        ]
        # Somebody else may hold some of them: ask for more than there is room for.
        wanted = due if len(due) <= room else random.sample(due, min(len(due), 4 * room))
        leases = await self._leases.take([f"{_LEASE}{name}" for name in wanted])
        for lease in leases[:room]:
            name = lease.name.removeprefix(_LEASE)
            if name in self._reserved:
                continue
            task = asyncio.create_task(self._judge_due(name, lease), name=f"judge-{name}")
            self._running[name] = task
            task.add_done_callback(lambda _: self._woken.set())

    def _raise_failed(self) -> None:
        """A bug in judging takes the process down with its cause."""
        for name, each in list(self._running.items()):
            if each.done():
                del self._running[name]
                if not each.cancelled():
                    each.result()

    async def _judge_due(self, model_name: str, lease: Lease) -> None:
        try:
            while (await self._judge(model_name, lease)).is_full:
                pass
            self._pauses.pop(model_name, None)
        except LeaseLost as error:
            self._leases.forget(lease)
            _log.warning("lease_lost", model_name=model_name, error=str(error))
        except _AWAY as error:
            _, pause = self._pauses.get(model_name, (0.0, _FIRST_PAUSE_SECONDS))
            self._pauses[model_name] = (
                time.monotonic() + pause,
                min(2 * pause, _LONGEST_PAUSE_SECONDS),
            )
            _log.warning("judging_waits", model_name=model_name, error=repr(error))

    async def _judge(self, model_name: str, lease: Lease) -> Judged:
        begun = time.perf_counter()
        subjects = await self._reader.watched(model_name)
        known = {each: (await self._versions.get(each)).known for each in subjects}

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
                # Announced while we asked: ask again.
                return Judged(is_full=True)
            self._in_hand.put(judged.keepers)
            span.set_attribute("homeostat.alerts", [each.alert_id for each in judged.alerts])
        self._note(model_name, judged, time.perf_counter() - begun)
        return judged

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


async def _end(owners: list[asyncio.Task[None]]) -> None:
    """Lets them finish what is in hand."""
    if not owners:
        return
    _, late = await asyncio.wait(owners, timeout=_FINISH_SECONDS)
    for each in late:
        each.cancel()
    await asyncio.gather(*owners, return_exceptions=True)
