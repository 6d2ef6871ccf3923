"""A retrainer under test beside a real registry and ledger, and what a test says to it."""

import asyncio
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.timestamp_pb2 import Timestamp
from tests.support.broker import TestBroker
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, eventually

from homeostat import cloudevents
from homeostat import history as past
from homeostat.events.v1 import alert_pb2 as alerts
from homeostat.events.v1.column_pb2 import Watermark
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.retraining_run_pb2 import RUN_STATE_ENDED, RetrainingRun
from homeostat.history import Columns
from homeostat.ids import event_id
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.progress.v1.progress_pb2 import GetProgressRequest, GetProgressResponse
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat.push import Push, prepare, send
from homeostat.registry.v1 import registry_pb2 as pb
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat.retrainer.v1 import retrainer_pb2 as rpc
from homeostat.retrainer.v1.retrainer_pb2_grpc import RetrainerServiceStub
from homeostat.topics import ALERTS, JOINED, RUNS, TOPICS, Topic
from homeostat_kit.kafka import Batch, Bus, Outgoing, consume, from_the_start
from homeostat_retrainer.recipes import load, signature_for

DAY_US = 86_400_000_000
START_US = 1_577_836_800_000_000
CLASSES = ("no", "yes")
CHANNEL = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
]


@dataclass(slots=True)
class Service:
    """One service as a process that can be killed and started again on the same data."""

    name: str
    settings: dict[str, str]
    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        prefix = f"HOMEOSTAT_{self.name.upper()}_"
        own = {"GRPC_ADDRESS": self.address, "DATA_FOLDER": str(self.folder / self.name)}
        (self.folder / self.name).mkdir(exist_ok=True)
        environment = {prefix + name: value for name, value in {**own, **self.settings}.items()}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"homeostat_{self.name}"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(12)


@dataclass(slots=True)
class Services:
    """What runs for a file of tests."""

    broker: TestBroker
    registry: Service
    ledger: Service
    retrainer: Service

    def __iter__(self) -> Any:
        return iter((self.registry, self.ledger, self.retrainer))


def rows(day: int, days: int, per_day: int = 500, *, driver: str = "x1", seed: int = 0) -> pa.Table:
    """Rows of some days; the truth follows ``driver``, and is known an hour later."""
    rng = np.random.default_rng([seed, day])
    count = days * per_day
    times = START_US + day * DAY_US + np.arange(count, dtype=np.int64) * (DAY_US // per_day)
    x1, x2 = rng.normal(size=(2, count)).astype(np.float32)
    drives = {"x1": x1, "x2": x2}[driver]
    truth = drives + rng.normal(scale=0.5, size=count) > 0
    return pa.table(
        {
            "x1": pa.array(x1),
            "x2": pa.array(np.where(rng.random(count) < 0.02, np.nan, x2), from_pandas=True),
            "kind": pa.array(np.array(["red", "blue"], dtype=object)[rng.integers(0, 2, count)]),
            "truth": pa.array([CLASSES[int(each)] for each in truth]),
            "time": pa.array(times),
            "known": pa.array(times + DAY_US // 24),
        }
    )


INPUTS = ("x1", "x2", "kind")


class Client:
    """One test's connections to the services and the broker."""

    def __init__(self, services: Services, bus: Bus, folder: Path, model: str) -> None:
        self.services = services
        self.bus = bus
        self.folder = folder
        self.model = model
        self.channels = {
            each.name: grpc.aio.insecure_channel(each.address, options=CHANNEL) for each in services
        }
        self.registry: Any = RegistryServiceStub(self.channels["registry"])
        self.retrainer: Any = RetrainerServiceStub(self.channels["retrainer"])

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self.channels.values()))

    async def wait_ready(self) -> None:
        for service in self.services:
            await eventually(lambda s=service: self._serves(s), what=service.name)

    async def _serves(self, service: Service) -> bool:
        assert service.process is not None
        assert service.process.poll() is None, service.log.read_text()[-3000:]
        stub: Any = ProgressServiceStub(self.channels[service.name])
        try:
            await stub.GetProgress(GetProgressRequest(), timeout=30)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def push(
        self, past_rows: pa.Table, *, autonomy: int = pb.AUTONOMY_AUTO, recipe: str = "lightgbm"
    ) -> None:
        """A first version, as a user would; returns once the retrainer knows of it."""
        features = past_rows.select(INPUTS)
        signature = signature_for(features, classes=CLASSES, nullable=["x2"])
        truth = np.array([CLASSES.index(each) for each in past_rows["truth"].to_pylist()], float)
        model, file = self.folder / "model.onnx", self.folder / "past.parquet"
        model.write_bytes(load(recipe).train(features, truth, signature).onnx)
        pq.write_table(past_rows, file)
        push = Push(
            model_name=self.model,
            model_path=model,
            history_path=file,
            columns=Columns("truth", "time", "known"),
            autonomy=autonomy,  # type: ignore[arg-type]
            recipe=recipe,
            classes=CLASSES,
            nullable=("x2",),
        )
        await send(
            prepare(push),
            registry_address=self.services.registry.address,
            ledger_address=self.services.ledger.address,
        )

    async def learn(self, new_rows: pa.Table) -> None:
        """Truth that came since, straight into the ledger."""
        file = self.folder / "since.parquet"
        pq.write_table(new_rows, file)
        version = await self.registry.GetVersion(pb.GetVersionRequest(model_name=self.model))
        history = past.read_history(file, Columns("truth", "time", "known"))

        async def requests() -> Any:
            for request in past.import_requests(history, version.version.signature):
                if request.HasField("header"):
                    request.header.model_name = self.model
                yield request

        await LedgerServiceStub(self.channels["ledger"]).ImportHistory(requests(), timeout=60)

    async def mark(self, day: int) -> None:
        """All truth known before that midnight has been joined."""
        at_us = START_US + day * DAY_US
        mark = JoinedBlock(watermark=Watermark(source_id="test", watermark_us=at_us))
        await self._produce(
            [
                self._record(JOINED, mark, event_id("mark", at_us, partition), partition)
                for partition in range(JOINED.partitions)
            ]
        )

    async def alarm(self, day: int, **changes: Any) -> alerts.Alert:
        """The monitor's word that the loss rose, judged at that midnight."""
        at_us = START_US + day * DAY_US
        occurred_at = Timestamp()
        occurred_at.FromMicroseconds(at_us)
        given = {
            "alert_id": event_id("alert", self.model, day),
            "model_name": self.model,
            "version": 1,
            "rule": alerts.ALERT_RULE_PERFORMANCE,
            "state": alerts.ALERT_STATE_OPENED,
            "watermark_us": at_us,
            "occurred_at": occurred_at,
        }
        alert = alerts.Alert(**{**given, **changes})
        await self._produce([self._record(ALERTS, alert, alert.alert_id, None)])
        return alert

    def _record(self, topic: Topic, message: Any, ce_id: str, partition: int | None) -> Outgoing:
        headers = cloudevents.headers(
            topic, event_id=ce_id, source="homeostat/test", occurred_at_us=START_US
        )
        key = self.model.encode()
        return Outgoing(topic.name, key, message.SerializeToString(), headers, partition)

    async def say(self, topic: Topic, message: Any) -> None:
        """Any record, under an id of its own."""
        await self._produce([self._record(topic, message, uuid.uuid4().hex, 0)])

    async def _produce(self, records: Sequence[Outgoing]) -> None:
        await self.bus.produce_many(records)

    async def progress(self, service: str = "retrainer") -> GetProgressResponse:
        stub: Any = ProgressServiceStub(self.channels[service])
        answer: GetProgressResponse = await stub.GetProgress(GetProgressRequest(), timeout=30)
        return answer

    async def runs(self) -> list[RetrainingRun]:
        answer = await self.retrainer.ListRuns(rpc.ListRunsRequest(model_name=self.model))
        return list(answer.runs)

    async def ended(self, count: int = 1) -> list[RetrainingRun]:
        """The model's runs, once so many have ended."""

        async def enough() -> list[RetrainingRun] | None:
            try:
                runs = await self.runs()
            except grpc.aio.AioRpcError:
                return None
            done = [run for run in runs if run.state == RUN_STATE_ENDED]
            return done if len(done) >= count else None

        found: list[RetrainingRun] = await eventually(
            enough, seconds=2 * PATIENCE_SECONDS, what="runs end"
        )
        return found

    async def versions(self) -> list[pb.Version]:
        request = pb.ListVersionsRequest(model_name=self.model)
        return list((await self.registry.ListVersions(request)).versions)

    async def told(self, least: int) -> list[RetrainingRun]:
        """This model's events on the topic of runs, in order."""
        heard: list[RetrainingRun] = []
        enough = asyncio.Event()

        async def handle(batch: Batch) -> None:
            heard.extend(each for _, each in batch.records if each.model_name == self.model)
            if len(heard) >= least:
                enough.set()

        async with asyncio.timeout(60):
            await consume(self.bus, [RUNS], offsets=from_the_start, handle=handle, stop=enough)
        return heard


ALL_TOPICS = TOPICS
