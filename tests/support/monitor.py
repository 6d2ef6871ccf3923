"""A monitor for tests: a stand-in registry with reference profiles, a stream, the real process."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat import reference
from homeostat.columns import pack
from homeostat.events.v1.alert_pb2 import Alert
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, TASK_BINARY, Watermark
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.events.v1.retraining_run_pb2 import RetrainingRun
from homeostat.events.v1.version_changed_pb2 import VERSION_CHANGE_PROMOTED, VersionChanged
from homeostat.monitor.v1.monitor_pb2 import GetModelHealthRequest, ListAlertsRequest
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from homeostat.progress.v1.progress_pb2 import GetProgressRequest, GetProgressResponse
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat.registry.v1.registry_pb2 import (
    DownloadArtifactResponse,
    GetVersionResponse,
    Signature,
    TensorSpec,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from homeostat.schema import fingerprint
from homeostat.topics import ALERTS, JOINED, PREDICTIONS, RUNS, TOPICS, VERSIONS, Topic
from homeostat_kit.kafka import Bus, Outgoing

MODEL = "delays"
DAY_US = 86_400_000_000
ROWS_A_DAY = 600
DATATYPES = {"speed": "FP32", "weight": "FP32", "carrier": "BYTES", "stops": "INT64"}
INPUTS = [
    TensorSpec(name=name, datatype=datatype, shape=[-1, 1], is_nullable=datatype != "INT64")
    for name, datatype in DATATYPES.items()
]
CARRIERS = np.array(["AA", "BB", "CC", "DD"], dtype=object)


@dataclass(frozen=True, slots=True)
class Days:
    """Rows of a small world, in the order of their event times."""

    first_day: int
    event_times: np.ndarray
    known_at: np.ndarray
    features: dict[str, np.ndarray]
    scores: np.ndarray
    losses: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.event_times)

    @property
    def end_us(self) -> int:
        """The midnight after the last row."""
        return int(self.event_times[-1] // DAY_US + 1) * DAY_US


def days(
    count: int,
    *,
    first_day: int = 100,
    seed: int = 1,
    loss_rate: float = 0.2,
    shift: float = 0.0,
    null_rate: float = 0.02,
    carriers: Sequence[str] = tuple(CARRIERS),
) -> Days:
    """So many days; truth is known within six hours of the event."""
    rng = np.random.default_rng(seed)
    rows = count * ROWS_A_DAY
    times = first_day * DAY_US + np.arange(rows) * (DAY_US // ROWS_A_DAY)
    speed = (rng.normal(size=rows) + shift).astype(np.float32)
    speed[rng.random(rows) < null_rate] = np.nan
    return Days(
        first_day,
        times,
        times + rng.integers(1, DAY_US // 4, rows),
        {
            "speed": speed,
            "weight": rng.gamma(2.0, size=rows).astype(np.float32),
            "carrier": np.array(carriers, dtype=object)[rng.integers(0, len(carriers), rows)],
            "stops": rng.integers(0, 3, rows),
        },
        rng.random(rows),
        (rng.random(rows) < loss_rate).astype(np.float64),
    )


def profile(past: Days, *, holdout_share: float = 0.3) -> bytes:
    """The reference profile of a version that knew this past."""
    is_holdout = np.arange(past.rows) >= past.rows * (1 - holdout_share)
    features = {name: pa.array(values, from_pandas=True) for name, values in past.features.items()}
    said = reference.Verdicts(
        past.scores, np.zeros(past.rows), past.losses, past.losses, is_holdout
    )
    return reference.build(pa.table(features), past.event_times, past.known_at, said)


def blocks(
    what: Days, *, version: int = 1, rows_a_block: int = 100, salt: str = "", **changes: Any
) -> list[PredictionBlock]:
    """Predictions; the same rows and ``salt`` give the same block ids."""
    made = []
    for number, rows in enumerate(_portions(what.rows, rows_a_block)):
        made.append(
            PredictionBlock(
                model_name=MODEL,
                version=version,
                arm=changes.get("arm", ARM_CHAMPION),
                task=TASK_BINARY,
                schema_fingerprint=fingerprint(INPUTS),
                block_id=_block_id(what, version, number, salt),
                row_count=len(what.event_times[rows]),
                inputs=[
                    pack(name, values[rows], _valid(values[rows]))
                    for name, values in what.features.items()
                ],
                event_times_us=what.event_times[rows].astype("<i8").tobytes(),
                scores=what.scores[rows].tobytes(),
                decisions=np.zeros(len(what.scores[rows])).tobytes(),
            )
        )
    return made


def joined(
    what: Days,
    *,
    version: int = 1,
    rows_a_block: int = 100,
    salt: str = "",
    losses: np.ndarray | None = None,
    revision: int = 1,
) -> list[JoinedBlock]:
    """First truths (or corrections) of the same rows, in another order than they became known."""
    made = []
    values = what.losses if losses is None else losses
    for number, rows in enumerate(_portions(what.rows, rows_a_block)):
        count = len(what.event_times[rows])
        block_id = _block_id(what, version, number, salt)
        made.append(
            JoinedBlock(
                model_name=MODEL,
                version=version,
                arm=ARM_CHAMPION,
                task=TASK_BINARY,
                row_count=count,
                prediction_ids=b"".join(
                    block_id + row.to_bytes(4, "little") for row in range(count)
                ),
                event_times_us=what.event_times[rows].astype("<i8").tobytes(),
                known_at_us=what.known_at[rows].astype("<i8").tobytes(),
                scores=what.scores[rows].tobytes(),
                decisions=np.zeros(count).tobytes(),
                truths=values[rows].tobytes(),
                losses=values[rows].tobytes(),
                revisions=np.full(count, revision, "<u4").tobytes(),
            )
        )
    return made


def _portions(rows: int, size: int) -> Iterator[slice]:
    for first in range(0, rows, size):
        yield slice(first, first + size)


def _block_id(what: Days, version: int, number: int, salt: str) -> bytes:
    times = what.event_times
    text = f"{times[0] if len(times) else 0}/{len(times)}/{version}/{number}/{salt}"
    return hashlib.sha256(text.encode()).digest()[:16]


def _valid(values: np.ndarray) -> np.ndarray | None:
    return ~np.isnan(values) if values.dtype.kind == "f" else None


@dataclass(slots=True)
class StandInRegistry(RegistryServiceServicer):
    """Gives versions and reference profiles; the rest is not implemented."""

    address: str = ""
    versions: dict[tuple[str, int], Version] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)

    def add(self, version: int, artifact: bytes, *, model_name: str = MODEL) -> None:
        """A registered version with its reference profile."""
        sha256 = hashlib.sha256(artifact).hexdigest()
        self.artifacts[sha256] = artifact
        self.versions[model_name, version] = Version(
            model_name=model_name,
            version=version,
            reference_sha256=sha256,
            signature=Signature(task=TASK_BINARY, inputs=INPUTS),
        )

    async def GetVersion(self, request: Any, context: Any) -> GetVersionResponse:  # noqa: N802
        found = self.versions.get((request.model_name, request.version))
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        return GetVersionResponse(version=found)

    async def DownloadArtifact(self, request: Any, context: Any) -> Any:  # noqa: N802
        content = self.artifacts[request.sha256]
        for first in range(0, len(content), 100_000):
            yield DownloadArtifactResponse(chunk=content[first : first + 100_000])


@asynccontextmanager
async def a_registry(past: Days, *, port: int = 0) -> AsyncIterator[StandInRegistry]:
    """Serves a registry whose versions 1 and 2 knew this past."""
    registry = StandInRegistry()
    for version in (1, 2):
        registry.add(version, profile(past))
    server = grpc.aio.server()
    add_RegistryServiceServicer_to_server(registry, server)
    registry.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield registry
    finally:
        await server.stop(None)


def promotion(version: int, revision: int, at_us: int) -> VersionChanged:
    """The registry's event of a promotion."""
    news = VersionChanged(
        model_name=MODEL,
        version=version,
        change=VERSION_CHANGE_PROMOTED,
        revision=revision,
        champion_version=version,
    )
    news.occurred_at.FromMicroseconds(at_us)
    return news


@dataclass(slots=True)
class Stream:
    """Puts things on the topics, as the other services would."""

    bus: Bus
    produced: dict[tuple[str, int], int] = field(default_factory=dict)
    # What was played, and how: the truth of its last hours becomes known in later days.
    played: list[tuple[Days, dict[str, Any]]] = field(default_factory=list)

    async def predict(self, what: Days, **how: Any) -> None:
        """Predictions of all rows."""
        await self.send(PREDICTIONS, blocks(what, **how))

    async def learn(self, what: Days, **how: Any) -> None:
        """Truth of all rows, joined."""
        await self.send(JOINED, joined(what, **how))

    async def send(self, topic: Topic, messages: Sequence[Any]) -> None:
        """Blocks or news; keyed like the services do."""
        await self._produce(
            [
                Outgoing(
                    topic.name,
                    getattr(each, "block_id", MODEL.encode()),
                    each.SerializeToString(),
                    {"ce_id": hashlib.sha256(each.SerializeToString()).hexdigest().encode()},
                )
                for each in messages
            ]
        )

    async def mark(self, at_us: int, topics: Sequence[Topic] = (PREDICTIONS, JOINED)) -> None:
        """Nothing earlier follows: on every partition, predictions before what was joined."""
        for topic in topics:
            source = "inference-0" if topic is PREDICTIONS else "ledger"
            mark = topic.message(watermark=Watermark(source_id=source, watermark_us=at_us))
            await self._produce(
                [
                    Outgoing(topic.name, b"", mark.SerializeToString(), {}, partition)
                    for partition in range(topic.partitions)
                ]
            )

    async def play(self, what: Days, **how: Any) -> None:
        """Day by day: predictions, truth as it becomes known, and the mark of midnight."""
        for number in range(what.first_day, what.end_us // DAY_US):
            start, end = number * DAY_US, (number + 1) * DAY_US
            await self.predict(between(what, start, end), **how)
            for each, its_how in (*self.played, (what, how)):
                known = between(each, start - DAY_US, end, known=True)
                if known.rows:
                    await self.learn(known, **its_how)
            await self.mark(end)
        self.played.append((what, how))

    async def garbage(self, topic: Topic) -> None:
        """Records that are none."""
        await self._produce(
            [
                Outgoing(topic.name, b"\xff", b"\xff\xfe garbage", {"x": b"\xff\xfe"}, partition)
                for partition in range(topic.partitions)
            ]
        )

    async def _produce(self, outgoing: Sequence[Outgoing]) -> None:
        places = await self.bus.produce_many(outgoing)
        for each, (partition, offset) in zip(outgoing, places, strict=True):
            self.produced[each.topic, partition] = offset + 1


def between(what: Days, start: int, end: int, *, known: bool = False) -> Days:
    """The rows of a span; by ``known``: those whose truth becomes known within its last day."""
    if known:
        keep = (what.known_at >= end - DAY_US) & (what.known_at < end)
    else:
        keep = (what.event_times >= start) & (what.event_times < end)
    return Days(
        int(end // DAY_US),
        what.event_times[keep],
        what.known_at[keep],
        {name: values[keep] for name, values in what.features.items()},
        what.scores[keep],
        what.losses[keep],
    )


@asynccontextmanager
async def a_stream(broker: str) -> AsyncIterator[Stream]:
    """A producer with all topics there."""
    async with Bus(broker, client_id="tests") as bus:
        await bus.ensure_topics(TOPICS)
        yield Stream(bus)


@dataclass(slots=True)
class RunningMonitor:
    """A process of `python -m homeostat_monitor`, and stubs to talk to it."""

    environment: dict[str, str]
    log_file: Path
    process: "subprocess.Popen[bytes]"
    channel: grpc.aio.Channel

    async def progress(self) -> GetProgressResponse | None:
        """Its answer; None while it does not serve."""
        try:
            answer: GetProgressResponse = await ProgressServiceStub(self.channel).GetProgress(
                GetProgressRequest(), timeout=2
            )
        except grpc.aio.AioRpcError:
            return None
        return answer

    async def until_judged(self, stream: Stream, *, seconds: float = 40.0) -> None:
        """Everything that was produced is applied, judged and told."""

        async def is_done() -> bool:
            assert self.process.poll() is None, self.log()[-3000:]
            answer = await self.progress()
            if answer is None or answer.open_work_count or answer.unsent_count:
                return False
            if answer.epoch != stream.bus.epoch:
                return False
            applied = {(each.topic, each.partition): each.next_offset for each in answer.applied}
            return all(applied.get(place, 0) >= end for place, end in stream.produced.items())

        await eventually(is_done, seconds=seconds, what=f"all judged; {self.log()[-3000:]}")

    async def until_serving(self) -> None:
        """It answers."""

        async def is_serving() -> bool:
            assert self.process.poll() is None, self.log()[-3000:]
            return await self.progress() is not None

        await eventually(is_serving, what=f"the monitor serves; {self.log()[-2000:]}")

    async def alerts(self, *, open_only: bool = False) -> list[Alert]:
        """As ListAlerts gives them."""
        stub = MonitorServiceStub(self.channel)
        answer = await stub.ListAlerts(
            ListAlertsRequest(model_name=MODEL, open_only=open_only), timeout=5
        )
        return list(answer.alerts)

    async def health(self) -> Any:
        """As GetModelHealth gives it."""
        stub = MonitorServiceStub(self.channel)
        return await stub.GetModelHealth(GetModelHealthRequest(model_name=MODEL), timeout=5)

    def log(self) -> str:
        return self.log_file.read_text()

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of one kind."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [each for each in lines if each["event"] == event]

    async def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    def start(self) -> None:
        """Again, as before."""
        self.process = _started(self.environment, self.log_file)


def _started(environment: dict[str, str], log_file: Path) -> "subprocess.Popen[bytes]":
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "homeostat_monitor"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@asynccontextmanager
async def a_monitor(
    *, broker: str, database: str, registry: str, folder: Path, **settings: Any
) -> AsyncIterator[RunningMonitor]:
    """Runs the service; ``settings`` are its own, without the prefix."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    given = {
        "grpc_address": address,
        "kafka_bootstrap_servers": broker,
        "database_url": database,
        "registry_address": registry,
        "data_folder": str(folder / "data"),
        **{name: str(value) for name, value in settings.items()},
    }
    environment = {f"HOMEOSTAT_MONITOR_{name.upper()}": value for name, value in given.items()}
    log_file = folder / "monitor.log"
    async with grpc.aio.insecure_channel(
        address, options=[("grpc.max_reconnect_backoff_ms", 200)]
    ) as channel:
        running = RunningMonitor(environment, log_file, _started(environment, log_file), channel)
        try:
            yield running
        finally:
            if running.process.poll() is None:
                await running.kill()


async def alert_events(broker: str, until: int) -> list[tuple[str, Alert]]:
    """The first ``until`` events on the alerts topic, in order, each with its ce_id."""
    from tests.support.inference import read_topic  # noqa: PLC0415

    return await read_topic(broker, ALERTS, lambda found: len(found) >= until)


__all__ = ["JOINED", "PREDICTIONS", "RUNS", "VERSIONS", "RetrainingRun"]
