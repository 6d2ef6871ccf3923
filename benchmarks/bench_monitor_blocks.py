"""How many predictions per second the monitor takes in on one core.

Two figures: from a record's bytes to the sums of its windows (parse, check, decode, sum), and the
same with PostgreSQL: identities, sums, marks and offsets in one transaction per poll.
Prints JSON. `make bench-blocks`.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from homeostat.columns import pack
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, TASK_BINARY
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.registry.v1.registry_pb2 import TensorSpec
from homeostat.schema import fingerprint
from homeostat.topics import PREDICTIONS
from homeostat_kit import postgres
from homeostat_kit.kafka import Batch, Received
from homeostat_kit.telemetry import setup
from homeostat_local.database import create_service_database, start_database
from homeostat_monitor.app.taking import TakenRows, take_predictions
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows
from homeostat_monitor.intake.blocks import Schema, check, schema_of, taken_rows
from homeostat_monitor.intake.bus import Listener
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.ports import KnownVersion, Standing
from homeostat_monitor.versions import Watched

MODEL = "bench"
SUBJECT = Subject(MODEL, 1)
HOUR_US = 3_600_000_000
NUMBERS, CATEGORIES = 10, 4
SPECS = [
    TensorSpec(name=f"n{i}", datatype="FP32", shape=[-1, 1], is_nullable=True)
    for i in range(NUMBERS)
] + [
    TensorSpec(name=f"c{i}", datatype="BYTES", shape=[-1, 1], is_nullable=True)
    for i in range(CATEGORIES)
]
SCHEMA: Schema = schema_of(
    fingerprint(SPECS), [(each.name, each.datatype, list(each.shape)) for each in SPECS]
)


def a_block(rng: np.random.Generator, rows: int, start_us: int) -> PredictionBlock:
    """Ten numbers, two of them with nulls, and texts of 3, 16, 40 and 100 kinds."""
    columns = []
    for i in range(NUMBERS):
        values = rng.normal(size=rows).astype(np.float32)
        if i < 2:
            values[rng.random(rows) < 0.05] = np.nan
        columns.append(pack(f"n{i}", values, ~np.isnan(values)))
    for i, kinds in enumerate((3, 16, 40, 100)):
        texts = np.array([f"value {k}" for k in range(kinds)], dtype=object)
        columns.append(pack(f"c{i}", texts[rng.integers(0, kinds, rows)]))
    times = start_us + np.sort(rng.integers(0, HOUR_US, rows))
    return PredictionBlock(
        model_name=MODEL,
        version=1,
        arm=ARM_CHAMPION,
        task=TASK_BINARY,
        schema_fingerprint=SCHEMA.fingerprint,
        block_id=rng.bytes(16),
        row_count=rows,
        inputs=columns,
        event_times_us=times.astype("<i8").tobytes(),
        scores=rng.random(rows).tobytes(),
        decisions=np.zeros(rows).tobytes(),
        latencies_seconds=np.zeros(rows, "<f4").tobytes(),
    )


def a_profile(rng: np.random.Generator) -> VersionProfile:
    """Calibrated on 20,000 rows of the same kind."""
    blocks = [(0, a_block(rng, 200, i * HOUR_US)) for i in range(100)]
    # Any profile makes `taken_rows` decode; its bins are not used there.
    anyone: Any = SimpleNamespace(expressions={})
    taken = taken_rows(SUBJECT, anyone, SCHEMA, blocks)
    names = [each.name for each in SCHEMA.inputs]
    times = taken.event_times_us
    reference = ReferenceRows(
        times,
        dict(zip(names, taken.rows.columns, strict=True)),
        taken.rows.scores,
        np.ones(len(times), dtype=bool),
        Holdout(rng.random(1000), times[:1000]),
    )
    return profile_of(reference, length_us=HOUR_US)


class _Nowhere:
    """Takes the use case's effect and keeps nothing."""

    def __init__(self) -> None:
        self.rows = 0

    async def share_models(self, names: Any) -> None: ...
    async def tally_many(self, tallies: Any) -> None: ...
    async def add_block_segments(self, segments: Any, until: Any) -> None: ...
    async def current_us(self, topic: str) -> int | None:
        return None

    async def hear(self, event_ids: Sequence[bytes], forget_after_us: Any) -> list[bytes]:
        return list(event_ids)

    async def standings(self, subjects: Any) -> Any:
        return {each: Standing(each) for each in subjects}

    async def add_sums(self, sums: Any) -> None:
        self.rows += sum(int(each.sums[0]) for each in sums.values())


async def bench_sums(profile: VersionProfile, polls: list[list[bytes]]) -> float:
    """Rows per second of CPU from bytes to sums, the use case included."""
    sink = _Nowhere()
    begun = time.process_time()
    for poll in polls:
        blocks = []
        for number, value in enumerate(poll):
            block = PredictionBlock()
            block.ParseFromString(value)
            check(block, SCHEMA)
            blocks.append((number % 4, block))
        taken: TakenRows = taken_rows(SUBJECT, profile, SCHEMA, blocks)
        await take_predictions([taken], tx=sink)  # type: ignore[arg-type]
    return sink.rows / (time.process_time() - begun)


class _OneVersion:
    """Stands for the versions of a registry."""

    def __init__(self, profile: VersionProfile) -> None:
        self._watched = Watched(KnownVersion(SUBJECT, True, profile), SCHEMA)

    async def get(self, subject: Subject) -> Watched:
        return self._watched


async def bench_listener(
    profile: VersionProfile, polls: list[list[bytes]], folder: Path
) -> tuple[float, float]:
    """Rows per second of our CPU and of wall time, with PostgreSQL."""
    database = start_database(folder)
    try:
        url = create_service_database(database.admin_url, "monitor", "monitor")
        pool = await postgres.open_pool(url)
        await postgres.migrate(pool, "homeostat_monitor")
        await pool.execute("INSERT INTO model (model_name) VALUES ($1)", MODEL)
        traces = setup("bench", None)
        listener = Listener(
            pool,
            None,  # type: ignore[arg-type]
            _OneVersion(profile),  # type: ignore[arg-type]
            told=lambda: None,
            marked=lambda: None,
            runs_until_accepted=4,
            metrics=Metrics(traces.meter),
            traces=traces,
        )
        rows = 0
        offsets = dict.fromkeys(range(4), 0)
        wall, cpu = time.perf_counter(), time.process_time()
        for poll in polls:
            records = []
            before = dict(offsets)
            for number, value in enumerate(poll):
                block = PredictionBlock()
                block.ParseFromString(value)
                rows += block.row_count
                place = number % 4
                record = Received(PREDICTIONS.name, place, offsets[place], b"", value, {})
                records.append((record, block))
                offsets[place] += 1
            await listener.on_predictions(
                Batch(
                    "bench",
                    records,
                    [],
                    {(PREDICTIONS.name, place): at for place, at in before.items()},
                    {(PREDICTIONS.name, place): at for place, at in offsets.items()},
                )
            )
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        await pool.close()
        return rows / cpu, rows / wall
    finally:
        database.process.kill()
        database.process.wait()


def main() -> None:
    """Runs both and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200, help="rows per block")
    parser.add_argument("--blocks", type=int, default=500, help="blocks per poll")
    parser.add_argument("--polls", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    rng = np.random.default_rng(1)
    profile = a_profile(rng)
    polls = [
        [
            a_block(rng, given.rows, (poll * 3) * HOUR_US).SerializeToString()
            for _ in range(given.blocks)
        ]
        for poll in range(given.polls)
    ]
    sums = [asyncio.run(bench_sums(profile, polls)) for _ in range(given.rounds)]
    listener = []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as folder:
            listener.append(asyncio.run(bench_listener(profile, polls, Path(folder))))
    figures = {
        "benchmark": "monitor_blocks",
        "features": NUMBERS + CATEGORIES,
        "rows_per_block": given.rows,
        "predictions": given.rows * given.blocks * given.polls,
        "block_bytes": len(polls[0][0]),
        "sums_per_cpu_second": round(statistics.median(sums)),
        "listener_per_cpu_second": round(statistics.median(each for each, _ in listener)),
        "listener_per_wall_second": round(statistics.median(each for _, each in listener)),
    }
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
