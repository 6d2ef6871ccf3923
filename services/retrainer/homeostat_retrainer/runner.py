"""Does the runs that are due, one at a time and in the order in which they became due."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from opentelemetry.trace import Link, Tracer

from homeostat_kit import logs, memory, telemetry
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.lease import Lease, LeaseLost, held_lease
from homeostat_kit.postgres import Pool, is_away
from homeostat_retrainer.app.remedy import Tools, before_failing, remedy
from homeostat_retrainer.domain.errors import PeerAway
from homeostat_retrainer.domain.runs import Ended, Outcome, Run
from homeostat_retrainer.metrics import Metrics
from homeostat_retrainer.store import PostgresRuns

# Whoever commits a run wakes us; this is for what another process committed.
_IDLE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0

_log = logs.get_logger("homeostat_retrainer.runner")


class Runner:
    """One effect per run: under a lease whose token the registry checks, and resumed by run id."""

    def __init__(
        self,
        pool: Pool,
        runs: PostgresRuns,
        tools: Tools,
        metrics: Metrics,
        tracer: Tracer,
        told: Callable[[], None],
        rest: Callable[[], Awaitable[None]],
        *,
        instance_id: str,
        lease_seconds: float,
        peer_away_seconds: float,
    ) -> None:
        self._pool = pool
        self._runs = runs
        self._tools = tools
        self._metrics = metrics
        self._tracer = tracer
        # Called after each commit that put an event into the outbox.
        self._told = told
        # Called while there is nothing to do.
        self._rest = rest
        self._instance_id = instance_id
        self._lease_seconds = lease_seconds
        self._peer_away_seconds = peer_away_seconds
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is a run to do."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Works until ``stop``; a run that is cut off is taken up again by whoever comes next."""
        while not stop.is_set():
            taking = asyncio.create_task(self._hold(stop))
            await self._unless_stopped(taking, stop)

    async def _unless_stopped(self, work: "asyncio.Task[None]", stop: asyncio.Event) -> None:
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not work.done():
            work.cancel()
        with suppress(asyncio.CancelledError):
            await work

    async def _hold(self, stop: asyncio.Event) -> None:
        try:
            await self._work(stop)
        except LeaseLost as error:
            _log.warning("lease_lost", error=str(error))
        except Exception as error:
            if not is_away(error):
                raise
            # The run stays where it is, and is taken up once the database is there.
            _log.warning("runs_wait_for_database", error=type(error).__name__)
            await first_of(stop, timeout=_IDLE_SECONDS)

    async def _work(self, stop: asyncio.Event) -> None:
        async with held_lease(self._pool, "runs", self._instance_id, self._lease_seconds) as lease:
            while not stop.is_set() and not lease.lost.is_set():
                self._woken.clear()
                run = await self._runs.next()
                if run is None:
                    await self._rest()
                    await first_of(stop, self._woken, lease.lost, timeout=_IDLE_SECONDS)
                else:
                    await self._do(run, lease)
                    memory.give_back()

    async def _do(self, run: Run, lease: Lease) -> None:
        cause = telemetry.span_context(run.traceparent)
        with self._tracer.start_as_current_span(
            "retraining run",
            links=[Link(cause)] if cause is not None else [],
            attributes={
                "homeostat.model": run.model_name,
                "homeostat.run_id": run.run_id,
                "homeostat.alert_id": run.alert_id,
            },
        ):
            parent = telemetry.traceparent() or run.traceparent
            await self._runs.start(run, lease, parent)
            self._told()
            started = time.perf_counter()
            _log.info(
                "run_started", run_id=run.run_id, model_name=run.model_name, trigger=run.trigger
            )
            ended = await before_failing(run, await self._remedied(run, lease), self._tools)
            if lease.lost.is_set():
                # Whoever holds it now does the run again, and finds what we registered.
                return
            seconds = time.perf_counter() - started
            await self._runs.end(run, ended, seconds, lease, parent)
            self._told()
            self._metrics.ended(run, ended, seconds)
            _log.info(
                "run_ended",
                run_id=run.run_id,
                model_name=run.model_name,
                outcome=ended.outcome,
                version=ended.candidate_version,
                reasons=list(ended.reasons),
                seconds=round(seconds, 3),
            )

    async def _remedied(self, run: Run, lease: Lease) -> Ended:
        pause, deadline = _FIRST_PAUSE_SECONDS, time.monotonic() + self._peer_away_seconds
        while True:
            try:
                return await remedy(run, self._tools, lease.token)
            except PeerAway as error:
                self._metrics.peer_away()
                if time.monotonic() > deadline or lease.lost.is_set():
                    return Ended(Outcome.FAILED, [str(error)])
                _log.warning("peer_away", run_id=run.run_id, error=str(error))
                await first_of(lease.lost, timeout=pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            except Exception as error:
                # A bug must not hold up every later run; it is logged with its trace.
                _log.exception("run_failed", run_id=run.run_id)
                return Ended(Outcome.FAILED, [f"unexpected: {type(error).__name__}"])
