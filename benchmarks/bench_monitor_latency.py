"""From the watermark that closes a window to the alert on the topic, under load.

Alone: a broker, a database and a monitor process run as in the local stack; predictions come in
blocks of many rows, spread over many models, in real time. One model after the other moves one
feature by two deviations. Latency: from when the last partition's mark was sent that an alert names
to when that alert was read from its topic.

`--whole` (the default) starts everything that `homeostat up` starts, and sends rows by gRPC through
inference; `--monitor-alone` runs broker, database and monitor, with a stand-in for the registry.
"""

import argparse
import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import psutil
import pyarrow as pa
from benchmarks.latency import whole
from tests.support.monitor import (
    INPUTS,
    RunningMonitor,
    StandInRegistry,
    a_monitor,
    a_registry,
    days,
)
from tests.support.waiting import eventually

from homeostat import reference
from homeostat.columns import pack
from homeostat.events.v1.alert_pb2 import ALERT_STATE_OPENED, Alert
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, TASK_BINARY, Watermark
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.schema import fingerprint
from homeostat.topics import ALERTS, JOINED, PREDICTIONS, TOPICS
from homeostat_kit.kafka import Batch, Bus, Outgoing, consume
from homeostat_kit.kafka.consumer import from_the_start
from homeostat_local.broker import start_broker
from homeostat_local.database import create_service_database, start_database

_CARRIERS = np.array(["AA", "BB", "CC", "DD"], dtype=object)
_REFERENCE_ROWS = 6000
_MARK_SECONDS = 0.25
_SHIFT = 2.0
_MODELS_ALONE = 100
_WARM_UP_SECONDS = 5.0
_KNOWN_SECONDS = 120.0
_LEAVE_SECONDS = 5.0


@dataclass(slots=True)
class Load:
    """What is sent, and when."""

    models: int
    rows_per_second: int
    rng: np.random.Generator
    # By watermark: when it was on all partitions.
    marked: dict[int, float] = field(default_factory=dict)
    # Models whose feature has moved.
    moved: set[int] = field(default_factory=set)
    sent: int = 0

    @property
    def rows(self) -> int:
        """Of a block; every model sends one in a second."""
        return self.rows_per_second // self.models

    def block(self, number: int) -> Outgoing:
        """The next block of a model: the rows of the last second."""
        rows, rng = self.rows, self.rng
        now = time.time_ns() // 1000
        times = np.sort(now - rng.integers(0, 100_000, rows))
        block_id = uuid.uuid4().bytes
        columns = features(rows, rng, _SHIFT if number in self.moved else 0.0)
        message = PredictionBlock(
            model_name=f"model-{number:03d}",
            version=1,
            arm=ARM_CHAMPION,
            task=TASK_BINARY,
            schema_fingerprint=fingerprint(INPUTS),
            block_id=block_id,
            row_count=rows,
            inputs=[pack(name, values, None) for name, values in columns.items()],
            event_times_us=times.astype("<i8").tobytes(),
            scores=rng.random(rows).tobytes(),
            decisions=np.zeros(rows).tobytes(),
        )
        self.sent += rows
        return Outgoing(PREDICTIONS.name, block_id, message.SerializeToString(), {})


def features(rows: int, rng: np.random.Generator, shift: float) -> dict[str, np.ndarray]:
    """Independent rows of four features."""
    return {
        "speed": (rng.normal(size=rows) + shift).astype(np.float32),
        "weight": rng.gamma(2.0, size=rows).astype(np.float32),
        "carrier": _CARRIERS[rng.integers(0, 4, rows)],
        "stops": rng.integers(0, 3, rows),
    }


def profile(rows_per_second: int, rng: np.random.Generator) -> bytes:
    """A reference of independent rows at the rate of the live ones."""
    rows = _REFERENCE_ROWS
    begun = time.time_ns() // 1000 - 7 * 86_400_000_000
    times = begun + np.arange(rows) * 1_000_000 // rows_per_second
    losses = (rng.random(rows) < 0.2).astype(float)
    said = reference.Verdicts(
        rng.random(rows), np.zeros(rows), losses, losses, np.arange(rows) >= rows * 0.7
    )
    columns = {name: pa.array(values) for name, values in features(rows, rng, 0.0).items()}
    return reference.build(pa.table(columns), times, times + 1_000_000, said)


async def send(load: Load, bus: Bus, stop: asyncio.Event) -> None:
    """Blocks evenly over each second, and a mark on every partition four times in one."""
    begun, blocks, marks = time.perf_counter(), 0, 0
    while not stop.is_set():
        elapsed = time.perf_counter() - begun
        due = int(elapsed * load.models) - blocks
        if due > 0:
            numbers = [(blocks + each) % load.models for each in range(due)]
            await bus.produce_many([load.block(each) for each in numbers])
            blocks += due
        if elapsed >= marks * _MARK_SECONDS:
            marks += 1
            await send_mark(load, bus)
        await asyncio.sleep(0.005)


async def send_mark(load: Load, bus: Bus) -> None:
    """Everything before 200 ms ago was sent."""
    at_us = time.time_ns() // 1000 - 200_000
    for topic in (PREDICTIONS, JOINED):
        message = topic.message(watermark=Watermark(source_id="bench", watermark_us=at_us))
        data = message.SerializeToString()
        await bus.produce_many(
            [Outgoing(topic.name, b"", data, {}, each) for each in range(topic.partitions)]
        )
        if topic is PREDICTIONS:
            load.marked[at_us] = time.perf_counter()


@asynccontextmanager
async def read_alerts(bus: Bus) -> AsyncIterator[list[tuple[float, Alert]]]:
    """Alerts as they come, with when."""
    seen: list[tuple[float, Alert]] = []
    stop = asyncio.Event()

    async def handle(batch: Batch) -> None:
        now = time.perf_counter()
        seen.extend((now, message) for _, message in batch.records)

    reading = consume(bus, (ALERTS,), offsets=from_the_start, handle=handle, stop=stop)
    task = asyncio.create_task(reading)
    yield seen
    stop.set()
    await task


async def measure(load: Load, seconds: float, monitor: RunningMonitor, bus: Bus) -> None:
    """Warms up, then moves one model after the other, and prints what was seen."""
    stop = asyncio.Event()
    async with read_alerts(bus) as seen:
        sending = asyncio.create_task(send(load, bus, stop))
        await eventually(
            lambda: len(monitor.logged("version_known")) >= load.models, seconds=_KNOWN_SECONDS
        )
        await asyncio.sleep(_WARM_UP_SECONDS)
        process = psutil.Process(monitor.process.pid)
        sent, begun, used = load.sent, time.perf_counter(), sum(process.cpu_times()[:2])
        for number in range(load.models):
            load.moved.add(number)
            await asyncio.sleep(seconds / load.models)
        elapsed = time.perf_counter() - begun
        used = sum(process.cpu_times()[:2]) - used
        await asyncio.sleep(_LEAVE_SECONDS)
        rate = (load.sent - sent) / (elapsed + _LEAVE_SECONDS)
        memory = process.memory_info().rss / 2**20
        stop.set()
        await sending
    latencies = [
        at - load.marked[alert.watermark_us]
        for at, alert in seen
        if alert.state == ALERT_STATE_OPENED and alert.watermark_us in load.marked
    ]
    hit = {alert.model_name for _, alert in seen}
    print(f"{rate:,.0f} predictions/s over {load.models} models for {elapsed:.0f} s")
    print(f"monitor: {used / elapsed:.2f} cores, {memory:.0f} MB")
    print(f"models moved {len(load.moved)}, told of {len(hit)}, alerts {len(latencies)}")
    if latencies:
        middle, high = np.percentile(latencies, [50, 99])
        print(f"mark to alert: median {middle:.3f} s, p99 {high:.3f} s, max {max(latencies):.3f} s")


async def run(arguments: argparse.Namespace) -> None:
    """Broker, database, registry, monitor, load."""
    rng = np.random.default_rng(arguments.seed)
    load = Load(arguments.models, arguments.rows_per_second, rng)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        (folder / "broker").mkdir()
        broker = start_broker(folder / "broker")
        stack.callback(broker.process.kill)
        database = start_database(folder / "database")
        stack.callback(database.stop)
        url = create_service_database(database.admin_url, "monitor", "bench")
        registry: StandInRegistry = await stack.enter_async_context(
            a_registry(days(1, first_day=70))
        )
        data = profile(load.rows, rng)
        for number in range(load.models):
            registry.add(1, data, model_name=f"model-{number:03d}")
        bus = await stack.enter_async_context(Bus(broker.address, client_id="bench"))
        await bus.ensure_topics(TOPICS)
        monitor = await stack.enter_async_context(
            a_monitor(
                broker=broker.address,
                database=url,
                registry=registry.address,
                folder=folder / "monitor",
            )
        )
        await monitor.until_serving()
        await measure(load, arguments.seconds, monitor, bus)


def run_whole(arguments: argparse.Namespace) -> None:
    """Everything at once; a table, and all figures as JSON where they are wanted."""
    plan = whole.Plan(
        seconds=arguments.seconds,
        rows_per_second=arguments.rows_per_second,
        rows_per_request=arguments.rows_per_request,
        models=arguments.models or whole.MODELS,
        clients=arguments.clients,
        seed=arguments.seed,
    )
    report = asyncio.run(whole.measure(plan)).report()
    print("\n".join(whole.told(report)))
    if arguments.json is not None:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def main() -> None:
    """One run."""
    parser = argparse.ArgumentParser(description=__doc__)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--whole", action="store_true", help="everything runs (default)")
    kind.add_argument("--monitor-alone", action="store_true")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--models", type=int, help="default: 6; alone: 100")
    parser.add_argument("--rows-per-second", type=int, default=20_000)
    parser.add_argument("--rows-per-request", type=int, default=512)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where the figures go, beside the output")
    arguments = parser.parse_args()
    if not arguments.monitor_alone:
        run_whole(arguments)
        return
    arguments.models = arguments.models or _MODELS_ALONE
    asyncio.run(run(arguments))


if __name__ == "__main__":
    main()
