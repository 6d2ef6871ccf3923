"""How fast the ledger archives and joins: the service itself, a real broker and a real database.

Prints one JSON object. Rows per second are from the first to the last commit as the ledger's own
statistics show them; what is archived and joined was produced to the broker before.
"""

import argparse
import asyncio
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from homeostat.columns import encode_strings
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, TASK_BINARY, Column
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ledger.v1.ledger_pb2 import CutDataSetRequest, GetStatisticsRequest
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.topics import JOINED, OUTCOMES, PREDICTIONS, Topic
from homeostat_kit.kafka import Bus, Outgoing
from homeostat_local.broker import start_broker
from homeostat_local.database import create_service_database, start_database
from homeostat_local.ports import choose_port

START_US = 1_356_998_400_000_000
BLOCK_ROWS = 200
FLOATS, STRINGS, LEVELS = 13, 4, 100


def block_id(number: int) -> bytes:
    return number.to_bytes(8, "big") + (2**63 + number).to_bytes(8, "big")


class Traffic:
    """Blocks of a model like the flights': 13 floats, 4 strings, one context column."""

    def __init__(self, model: str, blocks: int, *, has_keys: bool, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.model, self.has_keys, self.count = model, has_keys, blocks
        self.first = seed * 10_000_000
        self.keys = random.bytes(16 * BLOCK_ROWS * blocks) if has_keys else b""
        codes, dictionary = encode_strings(
            np.array([f"level {each % LEVELS}" for each in range(BLOCK_ROWS)], dtype=object)
        )
        strings = [
            Column(
                name=f"s{at}",
                datatype="BYTES",
                values=random.permutation(codes).tobytes(),
                dictionary=dictionary,
                width=1,
            )
            for at in range(STRINGS + 1)
        ]
        floats = [
            Column(
                name=f"f{at}",
                datatype="FP32",
                values=random.normal(size=BLOCK_ROWS).astype("<f4").tobytes(),
                width=1,
            )
            for at in range(FLOATS)
        ]
        self.inputs, self.contexts = [*floats, *strings[:STRINGS]], strings[STRINGS:]
        self.scores = random.random(BLOCK_ROWS).tobytes()

    def predictions(self, number: int) -> PredictionBlock:
        times = START_US + (np.arange(BLOCK_ROWS) + number * BLOCK_ROWS) * 1000
        width = 16 * BLOCK_ROWS
        return PredictionBlock(
            model_name=self.model,
            version=1,
            arm=ARM_CHAMPION,
            task=TASK_BINARY,
            schema_fingerprint="f" * 64,
            block_id=block_id(self.first + number),
            row_count=BLOCK_ROWS,
            inputs=self.inputs,
            contexts=self.contexts,
            event_times_us=times.astype("<i8").tobytes(),
            client_keys=self.keys[width * number : width * (number + 1)],
            scores=self.scores,
            decisions=np.zeros(BLOCK_ROWS).tobytes(),
            latencies_seconds=np.zeros(BLOCK_ROWS, "<f4").tobytes(),
        )

    def outcomes(self, number: int) -> OutcomeBlock:
        known_at = START_US + (np.arange(BLOCK_ROWS) + number * BLOCK_ROWS) * 1000 + 3_600_000_000
        message = OutcomeBlock(
            model_name=self.model,
            block_id=block_id(2**40 + self.first + number),
            row_count=BLOCK_ROWS,
            truths=(np.arange(BLOCK_ROWS) % 2).astype("<f8").tobytes(),
            known_at_us=known_at.astype("<i8").tobytes(),
            source="benchmark",
        )
        if self.has_keys:
            width = 16 * BLOCK_ROWS
            message.client_keys = self.keys[width * number : width * (number + 1)]
        else:
            ids = np.empty(BLOCK_ROWS, dtype=[("block", "V16"), ("row", "<u4")])
            ids["block"] = np.void(block_id(self.first + number))
            ids["row"] = np.arange(BLOCK_ROWS)
            message.prediction_ids = ids.tobytes()
        return message

    async def measure(self, bus: Bus, api: Any) -> dict[str, Any]:
        """Rows per second archived and joined."""
        numbers = range(self.count)
        archived = await self._pass(bus, api, PREDICTIONS, self.predictions, numbers, "predictions")
        joined = await self._pass(bus, api, OUTCOMES, self.outcomes, numbers, "predictions_joined")
        return {"archive": archived, "join": joined}

    async def _pass(
        self,
        bus: Bus,
        api: Any,
        topic: Topic,
        make: Callable[[int], PredictionBlock | OutcomeBlock],
        numbers: Sequence[int],
        counted: str,
    ) -> dict[str, Any]:
        outgoing = []
        for number in numbers:
            message = make(number)
            outgoing.append(Outgoing(topic.name, message.block_id, message.SerializeToString()))
        producing = asyncio.create_task(produce(bus, outgoing))
        begun = time.perf_counter()
        rows = BLOCK_ROWS * len(numbers)
        before = cpu_seconds()
        while True:
            now = await api.GetStatistics(GetStatisticsRequest(model_name=self.model))
            if getattr(now, counted) >= rows:
                break
            await asyncio.sleep(0.02)
        seconds = time.perf_counter() - begun
        await producing
        used = {name: cpu - before.get(name, 0.0) for name, cpu in cpu_seconds().items()}
        return {
            "rows_per_second": round(rows / seconds),
            "cpu_us_per_row": {name: round(cpu / rows * 1e6, 2) for name, cpu in used.items()},
        }


def cpu_seconds() -> dict[str, float]:
    """What the ledger and the database have used so far; this machine may be busy with others."""
    used: dict[str, float] = {}
    for each in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            line, times = " ".join(each.cmdline()), each.cpu_times()
            name = "ledger" if "homeostat_ledger" in line else "postgres"
            if name == "ledger" or "postgres" in line:
                used[name] = used.get(name, 0.0) + times.user + times.system
    return used


async def produce(bus: Bus, outgoing: Sequence[Outgoing]) -> None:
    for start in range(0, len(outgoing), 500):
        await bus.produce_many(outgoing[start : start + 500])


async def cut_seconds(api: Any, model: str, newest: int | None) -> float:
    """Median of three."""
    taken = []
    for _ in range(3):
        question = CutDataSetRequest(model_name=model, known_at_most_us=2**62)
        if newest is not None:
            question.newest_rows = newest
        begun, content = time.perf_counter(), io.BytesIO()
        async for part in api.CutDataSet(question):
            content.write(part.chunk)
        taken.append(time.perf_counter() - begun)
    return round(sorted(taken)[1], 3)


async def run(rows: int, folder: Path) -> dict[str, Any]:
    for name in ("broker", "postgres", "ledger"):
        (folder / name).mkdir()
    broker, database = start_broker(folder / "broker"), start_database(folder / "postgres")
    address = f"127.0.0.1:{choose_port()}"
    environment = {
        "HOMEOSTAT_LEDGER_KAFKA_BOOTSTRAP_SERVERS": broker.address,
        "HOMEOSTAT_LEDGER_DATABASE_URL": create_service_database(
            database.admin_url, "ledger", "benchmark"
        ),
        "HOMEOSTAT_LEDGER_GRPC_ADDRESS": address,
        "HOMEOSTAT_LEDGER_DATA_FOLDER": str(folder / "ledger"),
    }
    begun = time.perf_counter()
    ledger = subprocess.Popen(  # noqa: ASYNC220 - waiting for it is done by asking it
        [sys.executable, "-m", "homeostat_ledger"],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
    )
    try:
        async with Bus(broker.address, client_id="benchmark") as bus:
            await bus.ensure_topics((PREDICTIONS, OUTCOMES, JOINED))
            async with grpc.aio.insecure_channel(
                address, options=[("grpc.max_reconnect_backoff_ms", 100)]
            ) as channel:
                api: Any = LedgerServiceStub(channel)
                await api.GetStatistics(GetStatisticsRequest(), wait_for_ready=True, timeout=30)
                started = time.perf_counter() - begun
                blocks = rows // BLOCK_ROWS
                by_client = await Traffic("by-client", blocks, has_keys=True, seed=1).measure(
                    bus, api
                )
                by_id = await Traffic("by-id", blocks, has_keys=False, seed=2).measure(bus, api)
                return {
                    "rows": blocks * BLOCK_ROWS,
                    "start_seconds": round(started, 2),
                    "by_client_id": by_client,
                    "by_prediction_id": by_id,
                    "cut_seconds": {
                        "newest_60000": await cut_seconds(api, "by-client", 60_000),
                        "all": await cut_seconds(api, "by-client", None),
                    },
                }
    finally:
        ledger.terminate()
        ledger.wait(12)
        broker.process.kill()
        broker.process.wait()
        database.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(run(arguments.rows, Path(folder))), indent=2))


if __name__ == "__main__":
    main()
