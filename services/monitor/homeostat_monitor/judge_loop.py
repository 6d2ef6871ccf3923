"""Judging in the background: one owner per model, woken when something came in."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg
from opentelemetry import trace

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_kit import logs, memory
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.lease import Lease, LeaseLost, held_lease
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_kit.telemetry import Telemetry
from homeostat_monitor.app.judging import Judged, VersionNotKnown, judge_model
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.store import Reader, StoreTransaction
from homeostat_monitor.versions import RegistryAway, Versions

# Who commits wakes; this is for marks that another instance took in.
_IDLE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 5.0
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
    """Judges every model that it holds the lease of."""

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
        self._instance = instance
        self._lease_seconds = lease_seconds
        self._told = told
        self._spans = spans
        self._metrics = metrics
        self._traces = traces
        self._woken: dict[str, asyncio.Event] = {}
        self._new = asyncio.Event()

    def wake(self) -> None:
        """Something came in."""
        self._new.set()
        for each in self._woken.values():
            each.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Owns and judges models until ``stop``."""
        owners: list[asyncio.Task[None]] = []
        tidied = time.monotonic()
        try:
            while not stop.is_set():
                self._new.clear()
                _raise_failed(owners)
                try:
                    for name in await self._reader.models():
                        if name not in self._woken:
                            self._woken[name] = asyncio.Event()
                            owner = self._own(name, self._woken[name], stop)
                            owners.append(asyncio.create_task(owner, name=f"judge-{name}"))
                    if time.monotonic() - tidied > _TIDY_SECONDS:
                        tidied = time.monotonic()
                        await self._tidy()
                        # What a burst took; the library would keep it for the next one.
                        await asyncio.to_thread(memory.give_back)
                except _AWAY as error:
                    _log.warning("models_not_read", error=repr(error))
                await first_of(stop, self._new, timeout=_IDLE_SECONDS)
        finally:
            await _end(owners)

    async def _own(self, model_name: str, woken: asyncio.Event, stop: asyncio.Event) -> None:
        pause = 0.1
        while not stop.is_set():
            try:
                async with held_lease(
                    self._pool, f"judge:{model_name}", self._instance, self._lease_seconds
                ) as lease:
                    await self._judge_while(model_name, lease, woken, stop)
                pause = 0.1
            except LeaseLost as error:
                _log.warning("lease_lost", model_name=model_name, error=str(error))
            except _AWAY as error:
                _log.warning("judging_waits", model_name=model_name, error=repr(error))
                await first_of(stop, timeout=pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _judge_while(
        self, model_name: str, lease: Lease, woken: asyncio.Event, stop: asyncio.Event
    ) -> None:
        while not stop.is_set() and not lease.lost.is_set():
            woken.clear()
            judged = await self._judge(model_name, lease)
            if not judged.is_full:
                await first_of(stop, woken, lease.lost, timeout=_IDLE_SECONDS)

    async def _judge(self, model_name: str, lease: Lease) -> Judged:
        begun = time.perf_counter()
        subjects = await self._reader.watched(model_name)
        known = {each: (await self._versions.get(each)).known for each in subjects}

        async def work(connection: Connection) -> Judged:
            await lease.check(connection)
            return await judge_model(model_name, known, tx=StoreTransaction(connection))

        links = [trace.Link(each) for each in self._spans()]
        with self._traces.tracer.start_as_current_span("monitor.judge", links=links) as span:
            span.set_attribute("homeostat.model", model_name)
            try:
                judged = await retrying(self._pool, work)
            except VersionNotKnown:
                # Announced while we asked: ask again.
                return Judged(is_full=True)
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


def _raise_failed(owners: list[asyncio.Task[None]]) -> None:
    """A bug in judging takes the process down with its cause."""
    for each in owners:
        if each.done() and not each.cancelled():
            each.result()


async def _end(owners: list[asyncio.Task[None]]) -> None:
    """Lets them finish what is in hand; one that waits for a lease is told not to."""
    if not owners:
        return
    _, late = await asyncio.wait(owners, timeout=_FINISH_SECONDS)
    for each in late:
        each.cancel()
    await asyncio.gather(*owners, return_exceptions=True)
