"""What producing, consuming and relaying blocks costs: `python benchmarks/bench_bus.py`.

Blocks of 200 predictions with 12 float columns through the embedded broker; events of 200 bytes
through the outbox of an embedded PostgreSQL. CPU is this process's own.
"""

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop

from homeostat.cloudevents import headers
from homeostat.events.v1.column_pb2 import Column
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.topics import ALERTS, PREDICTIONS
from homeostat_kit.kafka import Batch, Bus, Outgoing, consume, from_the_start
from homeostat_kit.outbox import Event, OutboxRelay, put_many
from homeostat_kit.postgres import migrate, open_pool
from homeostat_local.broker import start_broker
from homeostat_local.database import start_database

BLOCKS = 20_000
ROWS = 200
EVENTS = 20_000
AT_ONCE = 500


def a_block() -> bytes:
    rng = np.random.default_rng(0)
    columns = [
        Column(name=f"c{number}", datatype="FP32", width=1, values=rng.random(ROWS, "f4").tobytes())
        for number in range(12)
    ]
    return PredictionBlock(model_name="m", row_count=ROWS, inputs=columns).SerializeToString()


def say(what: str, count: int, cpu: float, wall: float) -> None:
    print(f"{what}: {count / cpu:,.0f} per s of CPU, {count / wall:,.0f} per s of wall time")


async def produce(bus: Bus, block: bytes) -> None:
    told = headers(PREDICTIONS, event_id="e", source="homeostat/bench", occurred_at_us=1)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(0, BLOCKS, AT_ONCE):
        await bus.produce_many(
            [Outgoing(PREDICTIONS.name, os.urandom(16), block, told) for _ in range(AT_ONCE)]
        )
    say("blocks produced", BLOCKS, time.process_time() - cpu, time.perf_counter() - wall)


async def read_all(bus: Bus) -> None:
    stop, seen = asyncio.Event(), 0

    async def handle(batch: Batch) -> None:
        nonlocal seen
        seen += len(batch.records)
        if seen >= BLOCKS:
            stop.set()

    cpu, wall = time.process_time(), time.perf_counter()
    await consume(bus, [PREDICTIONS], offsets=from_the_start, handle=handle, stop=stop)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    say("blocks consumed", BLOCKS, cpu, wall)
    print(f"  that is {BLOCKS * ROWS / cpu:,.0f} predictions per s of CPU")


async def one_way(bus: Bus, block: bytes) -> None:
    stop, came, begin = asyncio.Event(), asyncio.Event(), bus.produced_positions()

    async def from_here(epoch: str) -> dict[tuple[str, int], int]:
        return begin

    async def handle(batch: Batch) -> None:
        came.set()

    reading = asyncio.create_task(
        consume(bus, [PREDICTIONS], offsets=from_here, handle=handle, stop=stop)
    )
    took: list[float] = []
    for _ in range(60):
        came.clear()
        began = time.perf_counter()
        await bus.produce(PREDICTIONS, os.urandom(16), block)
        await came.wait()
        took.append(1e3 * (time.perf_counter() - began))
    stop.set()
    await reading
    # The first ten wake an idle reader.
    print(f"produce to handler: {statistics.median(took[10:]):.1f} ms median")


async def relay(bus: Bus, url: str) -> None:
    pool = await open_pool(url)
    await migrate(pool, "homeostat_kit")
    message = ALERTS.message(alert_id="a" * 200)
    for first in range(0, EVENTS, AT_ONCE):
        async with pool.acquire() as connection, connection.transaction():
            numbers = range(first, first + AT_ONCE)
            await put_many(connection, [Event(ALERTS, b"m", message, f"e{n}", 1) for n in numbers])
    stop, relaying = asyncio.Event(), OutboxRelay(pool, bus, "homeostat/bench")
    cpu, wall = time.process_time(), time.perf_counter()
    task = asyncio.create_task(relaying.run(stop))
    while await relaying.unsent_count():  # noqa: ASYNC110 - nobody is told of the last one
        await asyncio.sleep(0.02)
    say("outbox events relayed", EVENTS, time.process_time() - cpu, time.perf_counter() - wall)
    stop.set()
    await task
    await pool.close()


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        broker, database = start_broker(Path(folder)), start_database(Path(folder))
        try:
            async with Bus(broker.address, client_id="bench") as bus:
                await bus.ensure_topics([PREDICTIONS, ALERTS])
                block = a_block()
                await produce(bus, block)
                await read_all(bus)
                await one_way(bus, block)
                await relay(bus, database.admin_url)
        finally:
            broker.stop()
            database.stop()


if __name__ == "__main__":
    uvloop.run(main())
