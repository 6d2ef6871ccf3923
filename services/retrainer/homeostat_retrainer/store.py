"""Runs and memory in PostgreSQL; what is told goes into the outbox of the same transaction."""

import json
from collections.abc import Sequence
from typing import Any

from homeostat.events.v1.retraining_run_pb2 import RetrainingRun
from homeostat.ids import event_id
from homeostat.topics import RUNS
from homeostat_kit import outbox
from homeostat_kit.lease import Lease
from homeostat_kit.postgres import Connection, Pool, queries, retrying
from homeostat_kit.watermarks import Watermarks
from homeostat_retrainer.domain.errors import UnknownRun
from homeostat_retrainer.domain.memory import Memory, SkippedRun, Wanted
from homeostat_retrainer.domain.policy import Trigger
from homeostat_retrainer.domain.runs import Ended, Outcome, Run
from homeostat_retrainer.messages import due_message, ended_message, started_message

_SQL = queries("homeostat_retrainer")
# A page of runs; older ones are read by id.
_LISTED_RUNS = 1000


async def load(connection: Connection) -> tuple[Memory, Watermarks]:
    """Memory and marks, locked to the end of the transaction."""
    row = await connection.fetchrow(_SQL["lock_memory"])
    if row is None:
        return Memory(), Watermarks()
    return Memory.from_plain(json.loads(row["content"])), Watermarks.from_json(row["marks"])


async def save(connection: Connection, memory: Memory, marks: Watermarks) -> None:
    """Memory and marks as they are now."""
    await connection.execute(_SQL["save_memory"], json.dumps(memory.to_plain()), marks.to_json())


async def want(connection: Connection, wanted: Sequence[Wanted]) -> int:
    """Notes runs as due, and tells of those that are skipped. How many are new."""
    new = 0
    for each in wanted:
        if isinstance(each, SkippedRun):
            new += await _skip(connection, each)
        else:
            new += await _add(connection, each, "due", None)
    return new


async def _skip(connection: Connection, skipped: SkippedRun) -> bool:
    message = ended_message(skipped.run, Ended(Outcome.SKIPPED, [skipped.reason]), 0.0)
    is_new = await _add(connection, skipped.run, "ended", message)
    if is_new:
        await _tell(connection, skipped.run, message, skipped.run.traceparent)
    return is_new


async def _add(connection: Connection, run: Run, state: str, message: RetrainingRun | None) -> bool:
    added = await connection.fetchval(
        _SQL["add_run"],
        run.run_id,
        run.model_name,
        run.trigger.value,
        run.alert_id,
        run.follow_up_number,
        run.watermark_us,
        run.reference_rows,
        run.traceparent,
        state,
        None if message is None else message.SerializeToString(),
    )
    return bool(added)


async def _tell(
    connection: Connection, run: Run, message: RetrainingRun, traceparent: str | None
) -> None:
    await outbox.put(
        connection,
        topic=RUNS,
        key=run.model_name.encode(),
        message=message,
        event_id=event_id("run-event", run.run_id, message.state),
        occurred_at_us=run.watermark_us,
        traceparent=traceparent,
    )


class PostgresRuns:
    """The runs of one database."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def next(self) -> Run | None:
        """The oldest run that has not ended."""
        row = await retrying(self._pool, lambda connection: connection.fetchrow(_SQL["next_run"]))
        return None if row is None else _run(row)

    async def start(self, run: Run, lease: Lease, traceparent: str | None) -> None:
        """Tells that it begins; a run that is resumed has begun already. LeaseLost."""
        await self._move(run, "started", started_message(run), lease, traceparent)

    async def end(
        self,
        run: Run,
        ended: Ended,
        wall_seconds: float,
        lease: Lease,
        traceparent: str | None,
    ) -> None:
        """Tells how it ended, once. LeaseLost."""
        message = ended_message(run, ended, wall_seconds)
        await self._move(run, "ended", message, lease, traceparent)

    async def _move(
        self, run: Run, state: str, message: RetrainingRun, lease: Lease, traceparent: str | None
    ) -> None:
        """Only whoever holds the lease writes: another one may be doing the run by now."""

        async def work(connection: Connection) -> None:
            await lease.check(connection)
            moved = await connection.fetchval(
                _SQL["move_run"], run.run_id, state, message.SerializeToString()
            )
            if moved:
                await _tell(connection, run, message, traceparent)

        await retrying(self._pool, work)

    async def count_open_work(self) -> int:
        """Runs due or under way, and alerts that wait."""
        return int(await self._pool.fetchval(_SQL["count_open_work"]))

    async def watermark_us(self) -> int | None:
        """Up to which known-at time truths have been counted."""
        watermark: int | None = await self._pool.fetchval(_SQL["read_watermark"])
        return watermark

    async def list(self, model_name: str) -> list[RetrainingRun]:
        """The newest thousand runs, newest first; of all models where the name is empty."""
        rows = await self._pool.fetch(_SQL["list_runs"], model_name, _LISTED_RUNS)
        return [_message(row) for row in rows]

    async def get(self, run_id: str) -> RetrainingRun:
        """What was last told of it; UnknownRun."""
        row = await self._pool.fetchrow(_SQL["get_run"], run_id)
        if row is None:
            raise UnknownRun(f"there is no run {run_id!r}; ListRuns names those that there are")
        return _message(row)


def _run(row: Any) -> Run:
    return Run(
        row["run_id"],
        row["model_name"],
        Trigger(row["trigger"]),
        row["watermark_us"],
        row["reference_rows"],
        row["alert_id"],
        row["follow_up_number"],
        row["traceparent"],
    )


def _message(row: Any) -> RetrainingRun:
    if row["message"] is not None:
        return RetrainingRun.FromString(row["message"])
    waiting = Run(
        row["run_id"],
        row["model_name"],
        Trigger(row["trigger"]),
        row["watermark_us"],
        0,
        row["alert_id"],
        row["follow_up_number"],
    )
    return due_message(waiting)
