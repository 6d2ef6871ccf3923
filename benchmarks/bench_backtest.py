"""A backtest of many rows: how long, how much memory, and how long an event loop beside it waits.

    python benchmarks/bench_backtest.py --rows 1000000

Rows are independent, of 12 numbers and 4 texts, over 90 days, each with its truth within a day.
They are written as the ledger writes its portions, and played under two policies side by side.
"""

import argparse
import asyncio
import io
import json
import resource
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from homeostat import reference
from homeostat.schema import fingerprint
from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.app.backtesting import Backtest
from homeostat_monitor.app.replaying import Marks
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.intake.blocks import schema_of
from homeostat_monitor.past.beside import Beside
from homeostat_monitor.past.ledger import portion_of
from homeostat_monitor.ports import KnownVersion
from homeostat_monitor.references import reference_rows

DAY_US = 86_400_000_000
BEGIN_US = 1_600_000_000_000_000 // DAY_US * DAY_US
NUMBERS, TEXTS = 12, 4
WORDS = np.array([f"word-{number}" for number in range(20)])


def features(rng: np.random.Generator, rows: int) -> dict[str, pa.Array]:
    numbers = {f"x{n}": pa.array(rng.normal(size=rows).astype(np.float32)) for n in range(NUMBERS)}
    texts = {
        f"t{n}": pa.DictionaryArray.from_arrays(
            pa.array(rng.integers(0, len(WORDS), rows).astype(np.int32)), pa.array(WORDS)
        )
        for n in range(TEXTS)
    }
    return {**numbers, **texts}


def past(rows: int, days: float, size: int) -> Iterator[bytes]:
    """Portions as the ledger sends them."""
    rng = np.random.default_rng(3)
    step = int(days * DAY_US / rows)
    for begin in range(0, rows, size):
        count = min(size, rows - begin)
        times = BEGIN_US + (begin + np.arange(count)) * step
        scores = rng.random(count)
        truths = (rng.random(count) < 0.2).astype(float)
        numbers = np.arange(begin, begin + count)
        ids = b"".join(
            int(each // 100).to_bytes(16, "big") + int(each % 100).to_bytes(4, "little")
            for each in numbers
        )
        said = {
            "event_time_us": pa.array(times),
            "version": pa.array(np.ones(count, dtype=np.int32)),
            "score": pa.array(scores),
            "decision": pa.array(np.zeros(count)),
            "truth": pa.array(truths),
            "loss": pa.array(truths),
            "known_at_us": pa.array(times + rng.integers(1, DAY_US, count)),
            "prediction_id": pa.Array.from_buffers(pa.binary(20), count, [None, pa.py_buffer(ids)]),
        }
        table = pa.table(
            {**features(rng, count), **{f"homeostat.{name}": each for name, each in said.items()}}
        )
        sink = io.BytesIO()
        pq.write_table(table, sink, compression="zstd")
        yield sink.getvalue()


def known(policy: Policy) -> KnownVersion:
    rng = np.random.default_rng(1)
    rows = 20_000
    texts = {
        name: each.cast(pa.string()) if pa.types.is_dictionary(each.type) else each
        for name, each in features(rng, rows).items()
    }
    times = BEGIN_US - 20 * DAY_US + np.arange(rows) * (20 * DAY_US // rows)
    losses = (rng.random(rows) < 0.2).astype(float)
    verdicts = reference.Verdicts(
        rng.random(rows), np.zeros(rows), losses, losses, np.arange(rows) >= 0.7 * rows
    )
    profile = reference.build(pa.table(texts), times, times + DAY_US // 2, verdicts)
    inputs = [(f"x{n}", "FP32", [-1, 1]) for n in range(NUMBERS)]
    inputs += [(f"t{n}", "BYTES", [-1, 1]) for n in range(TEXTS)]
    schema = schema_of(fingerprint([]), inputs)
    found = profile_of(reference_rows(profile, schema), policy=policy)
    return KnownVersion(Subject("bench", 1), Task.BINARY, found, policy=policy)


async def longest_wait(stop: asyncio.Event) -> float:
    """Of an event loop that only wants to wake every 5 ms; seconds."""
    longest = 0.0
    while not stop.is_set():
        begun = time.perf_counter()
        await asyncio.sleep(0.005)
        longest = max(longest, time.perf_counter() - begun - 0.005)
    return longest


async def run(rows: int, days: float, policies: list[Policy]) -> dict[str, float]:
    nothing = np.empty(0, dtype=np.int64)
    backtest = Backtest.begun(
        "bench", Marks({PREDICTIONS.name: nothing}), [], is_same=len(policies) == 1
    )
    for place, policy in enumerate(policies):
        version = known(policy)
        backtest.know(place, version.subject, version, version)
    at_rest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stop = asyncio.Event()
    watch = asyncio.create_task(longest_wait(stop))
    spent, busy = 0.0, 0.0
    with Beside("bench") as beside:
        for each in past(rows, days, 20_000):
            begun, began_busy = time.perf_counter(), time.process_time()
            portion = await beside.run(portion_of, each)
            await beside.play(backtest.play, portion)
            spent += time.perf_counter() - begun
            busy += time.process_time() - began_busy
        begun, began_busy = time.perf_counter(), time.process_time()
        end = BEGIN_US + int((days + 1) * DAY_US)
        result = await beside.run(backtest.finish, {PREDICTIONS.name: end, JOINED.name: end})
        spent += time.perf_counter() - begun
        busy += time.process_time() - began_busy
    stop.set()
    return {
        "rows": result.rows,
        "truths": result.truths,
        "policies": len(policies),
        "seconds": round(spent, 1),
        "cpu_seconds": round(busy, 1),
        "rows_per_cpu_second": round(rows / busy),
        "added_megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_rest) // 1024,
        "longest_wait_of_the_loop_seconds": round(await watch, 3),
        "windows_seconds": backtest.proposed.known[Subject("bench", 1)].profile.length_us / 1e6,
        "alerts": len(result.alerts),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--days", type=float, default=90.0)
    given = parser.parse_args()
    policies = [Policy("bench", false_alarms_per_month=2.0), Policy("bench")]
    print(json.dumps(asyncio.run(run(given.rows, given.days, policies)), indent=2))


if __name__ == "__main__":
    main()
