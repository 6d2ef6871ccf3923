"""An inference service for tests: small models, a stand-in for the registry, the real process."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from onnx import TensorProto, helper
from tests.support.waiting import eventually

from homeostat.events.v1.column_pb2 import TASK_BINARY
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.events.v1.serving_pb2 import Serving
from homeostat.events.v1.version_changed_pb2 import (
    VERSION_CHANGE_PROMOTED,
    VERSION_CHANGE_SERVING,
    VersionChanged,
)
from homeostat.inference.v1.truth_pb2_grpc import TruthServiceStub
from homeostat.inference.v2.open_inference_pb2 import ServerReadyRequest
from homeostat.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from homeostat.progress.v1.progress_pb2 import GetProgressRequest, GetProgressResponse
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat.registry.v1.registry_pb2 import (
    DownloadArtifactResponse,
    GetSnapshotResponse,
    GetVersionResponse,
    Model,
    Signature,
    TensorSpec,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from homeostat.topics import VERSIONS, Topic
from homeostat_kit.kafka import Bus

MODEL = "risk"


def a_model(weight: float = 1.0) -> bytes:
    """Probability of "late" = sigmoid(weight * amount (or 0 where it is null) + kind's number)."""
    f32, i64, text = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
    nodes = [
        helper.make_node("IsNaN", ["amount"], ["is_null"]),
        helper.make_node("Where", ["is_null", "zero", "amount"], ["known"]),
        helper.make_node("Mul", ["known", "weight"], ["weighted"]),
        helper.make_node(
            "LabelEncoder",
            ["kind"],
            ["number"],
            domain="ai.onnx.ml",
            keys_strings=["red", "blue", "grün"],
            values_floats=[1.0, -1.0, 2.0],
            default_float=0.0,
        ),
        helper.make_node("Cast", ["count"], ["counted"], to=f32),
        helper.make_node("Mul", ["counted", "zero"], ["nothing"]),
        helper.make_node("Sum", ["weighted", "number", "nothing"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["late"]),
        helper.make_node("Sub", ["one", "late"], ["in_time"]),
        helper.make_node("Concat", ["in_time", "late"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "risk",
        [
            helper.make_tensor_value_info("amount", f32, [None, 1]),
            helper.make_tensor_value_info("kind", text, [None, 1]),
            helper.make_tensor_value_info("count", i64, [None, 1]),
        ],
        [
            helper.make_tensor_value_info("label", i64, [None]),
            helper.make_tensor_value_info("probabilities", f32, [None, 2]),
        ],
        [
            helper.make_tensor("zero", f32, [], [0.0]),
            helper.make_tensor("one", f32, [], [1.0]),
            helper.make_tensor("weight", f32, [], [weight]),
        ],
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=9,
    )
    content: bytes = model.SerializeToString()
    return content


def a_signature(**changes: Any) -> Signature:
    """What `a_model` accepts: `amount` and `kind` are nullable, `count` is not."""
    fields: dict[str, Any] = {
        "task": TASK_BINARY,
        "inputs": [
            TensorSpec(name="amount", datatype="FP32", shape=[-1, 1], is_nullable=True),
            TensorSpec(name="kind", datatype="BYTES", shape=[-1, 1], is_nullable=True),
            TensorSpec(name="count", datatype="INT64", shape=[-1, 1]),
        ],
        "outputs": [
            TensorSpec(name="label", datatype="INT64", shape=[-1]),
            TensorSpec(name="probabilities", datatype="FP32", shape=[-1, 2]),
        ],
        "classes": ["in time", "late"],
        "score_output": "probabilities",
        "decision_threshold": 0.5,
    }
    return Signature(**{**fields, **changes})


def expected_probability(amount: float, kind: str, weight: float = 1.0) -> float:
    """What `a_model` answers."""
    number = {"red": 1.0, "blue": -1.0, "grün": 2.0}.get(kind, 0.0)
    logit = (0.0 if np.isnan(amount) else weight * amount) + number
    return float(1 / (1 + np.exp(-logit)))


def columns(amounts: list[float], kinds: list[str]) -> dict[str, np.ndarray]:
    """Rows for `a_model`."""
    return {
        "amount": np.array(amounts, np.float32),
        "kind": np.array(kinds, dtype=object),
        "count": np.arange(len(amounts), dtype=np.int64),
    }


@dataclass(slots=True)
class StandInRegistry(RegistryServiceServicer):
    """Answers what inference asks a registry; the rest is not implemented."""

    server: grpc.aio.Server
    address: str = ""
    champions: dict[str, int] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    versions: dict[tuple[str, int], Version] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    servings: dict[str, Serving] = field(default_factory=dict)

    def add(
        self, version: int, content: bytes, signature: Signature, *, model_name: str = MODEL
    ) -> None:
        """A registered version."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.artifacts[sha256] = content
        self.versions[model_name, version] = Version(
            model_name=model_name, version=version, model_sha256=sha256, signature=signature
        )

    def promote(self, version: int, *, model_name: str = MODEL) -> VersionChanged:
        """Makes it champion; the event that says so."""
        before = self.champions.get(model_name)
        self.champions[model_name] = version
        self.revisions[model_name] = self.revisions.get(model_name, 0) + 1
        return VersionChanged(
            model_name=model_name,
            version=version,
            change=VERSION_CHANGE_PROMOTED,
            revision=self.revisions[model_name],
            champion_version=version,
            previous_champion_version=before,
        )

    def share_out(self, model_name: str = MODEL, **serving: Any) -> VersionChanged:
        """Shares traffic out between versions; the event that says so."""
        self.servings[model_name] = Serving(**serving)
        self.revisions[model_name] = self.revisions.get(model_name, 0) + 1
        return VersionChanged(
            model_name=model_name,
            version=self.champions[model_name],
            change=VERSION_CHANGE_SERVING,
            revision=self.revisions[model_name],
            champion_version=self.champions[model_name],
            serving=self.servings[model_name],
        )

    def _others(self) -> list[Version]:
        """Whoever answers or runs beside a champion."""
        found = []
        for name, serving in self.servings.items():
            numbers = {*serving.shadow_versions, serving.canary.version, serving.fallback_version}
            found += [self.versions[name, each] for each in sorted(numbers - {0})]
        return found

    async def GetSnapshot(self, request: Any, context: Any) -> GetSnapshotResponse:  # noqa: N802
        return GetSnapshotResponse(
            models=[
                Model(
                    name=name,
                    champion_version=version,
                    revision=self.revisions[name],
                    serving=self.servings.get(name),
                )
                for name, version in self.champions.items()
            ],
            champions=[self.versions[each] for each in self.champions.items()],
            others=self._others(),
        )

    async def GetVersion(self, request: Any, context: Any) -> GetVersionResponse:  # noqa: N802
        found = self.versions.get((request.model_name, request.version))
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        return GetVersionResponse(version=found)

    async def DownloadArtifact(self, request: Any, context: Any) -> Any:  # noqa: N802
        content = self.artifacts[request.sha256]
        for first in range(0, len(content), 1000):
            yield DownloadArtifactResponse(chunk=content[first : first + 1000])


@asynccontextmanager
async def a_registry(port: int = 0) -> AsyncIterator[StandInRegistry]:
    """Serves a registry with version 1 of `MODEL` as champion."""
    server = grpc.aio.server()
    registry = StandInRegistry(server)
    registry.add(1, a_model(), a_signature())
    registry.promote(1)
    add_RegistryServiceServicer_to_server(registry, server)
    registry.address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield registry
    finally:
        await server.stop(None)


@dataclass(slots=True)
class RunningInference:
    """A process of `python -m homeostat_inference`, and stubs to talk to it."""

    environment: dict[str, str]
    log_file: Path
    process: "subprocess.Popen[bytes]"
    address: str
    channel: grpc.aio.Channel

    @property
    def inference(self) -> Any:
        return GRPCInferenceServiceStub(self.channel)

    @property
    def truth(self) -> Any:
        return TruthServiceStub(self.channel)

    async def progress(self) -> GetProgressResponse:
        """Where it says it is."""
        answer: GetProgressResponse = await ProgressServiceStub(self.channel).GetProgress(
            GetProgressRequest(), timeout=30
        )
        return answer

    def log(self) -> str:
        return self.log_file.read_text()

    async def kill(self) -> None:
        """Kill -9."""
        self.process.kill()
        await asyncio.to_thread(self.process.wait)

    async def stop(self) -> int:
        """SIGTERM; the exit status."""
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 12)

    async def restart(self) -> None:
        """Starts the same again."""
        self.process = _started(self.environment, self.log_file)
        await self.until_ready()

    async def until_ready(self) -> None:
        async def is_ready() -> bool:
            assert self.process.poll() is None, self.log()
            try:
                answer = await self.inference.ServerReady(ServerReadyRequest(), timeout=1)
            except grpc.aio.AioRpcError:
                return False
            return bool(answer.ready)

        await eventually(is_ready, what="inference ready")


def _started(environment: Mapping[str, str], log_file: Path) -> "subprocess.Popen[bytes]":
    with log_file.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "homeostat_inference"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


@asynccontextmanager
async def an_inference(
    *,
    port: int,
    broker: str,
    registry: str,
    folder: Path,
    is_waited_for: bool = True,
    **settings: Any,
) -> AsyncIterator[RunningInference]:
    """Runs the service; ``settings`` are its own, without the prefix."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    address = f"127.0.0.1:{port}"
    given = {
        "grpc_address": address,
        "kafka_bootstrap_servers": broker,
        "registry_address": registry,
        "data_folder": str(folder / "data"),
        "client_key_secret": "a secret of the tests",
        "snapshot_interval_seconds": "0.5",
        **{name: str(value) for name, value in settings.items()},
    }
    environment = {f"HOMEOSTAT_INFERENCE_{name.upper()}": value for name, value in given.items()}
    log_file = folder / "inference.log"
    async with grpc.aio.insecure_channel(
        address, options=[("grpc.max_reconnect_backoff_ms", 200)]
    ) as channel:
        running = RunningInference(
            environment, log_file, _started(environment, log_file), address, channel
        )
        try:
            if is_waited_for:
                await running.until_ready()
            yield running
        finally:
            if running.process.poll() is None:
                await running.kill()


async def tell(broker: str, *changes: VersionChanged) -> None:
    """Puts changes on the registry's topic."""
    async with Bus(broker, client_id="registry") as bus:
        await bus.ensure_topics((VERSIONS,))
        for each in changes:
            await bus.produce(VERSIONS, each.model_name.encode(), each.SerializeToString())


@asynccontextmanager
async def reading(broker: str, topic: Topic) -> AsyncIterator[Callable[[], Awaitable[list[Any]]]]:
    """What answers, call by call, the records that came since, from the topic's start on."""
    from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: PLC0415

    consumer = AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        consumer.assign(places)
        for place in places:
            consumer.seek(place, 0)

        async def more() -> list[Any]:
            polled = await consumer.getmany(timeout_ms=100)
            return [each for records in polled.values() for each in records]

        yield more
    finally:
        await consumer.stop()


Told = tuple[str, Any]


def told_by(record: Any, topic: Topic) -> Told:
    """(ce_id, message) of a record."""
    headers = {name: value.decode() for name, value in record.headers}
    return headers["ce_id"], topic.message.FromString(record.value)


async def read_topic(broker: str, topic: Topic, until: Callable[[list[Told]], Any]) -> list[Told]:
    """(ce_id, message) of each record from the start, once ``until`` of them is true."""
    found: list[Told] = []
    async with reading(broker, topic) as more:

        async def is_enough() -> bool:
            found.extend([told_by(each, topic) for each in await more()])
            return bool(until(found))

        await eventually(is_enough, what=f"records on {topic.name}")
    return found


async def read_partitions(
    broker: str, topic: Topic, until: Callable[[dict[int, list[Told]]], Any]
) -> dict[int, list[Told]]:
    """The same by partition, each of them in its order."""
    found: dict[int, list[Told]] = {each: [] for each in range(topic.partitions)}
    async with reading(broker, topic) as more:

        async def is_enough() -> bool:
            for each in await more():
                found[each.partition].append(told_by(each, topic))
            return bool(until(found))

        await eventually(is_enough, what=f"records on {topic.name}")
    return found


async def read_produced(running: RunningInference, broker: str, topic: Topic) -> list[Told]:
    """Everything that the server says it has produced by now, and perhaps what came since."""
    produced = (await running.progress()).produced
    missing = {each.partition: each.next_offset for each in produced if each.topic == topic.name}
    found: list[Told] = []
    async with reading(broker, topic) as more:

        async def is_all_there() -> bool:
            for each in await more():
                found.append(told_by(each, topic))
                if each.offset + 1 >= missing.get(each.partition, 0):
                    missing.pop(each.partition, None)
            return not missing

        await eventually(is_all_there, what=f"all that was produced on {topic.name}")
    return found


def marks_of(found: list[Told]) -> list[int]:
    """Promises among the records of a topic of blocks."""
    return [each.watermark.watermark_us for _, each in found if not each.row_count]


async def read_until_marked(
    broker: str, topic: Topic, marks: Iterable[int], *, times: int = 1
) -> dict[int, list[Told]]:
    """The records of each partition, once every one of them holds each of these marks so often or
    more often."""
    wanted = list(marks)

    def are_marked(found: dict[int, list[Told]]) -> bool:
        seen = [Counter(marks_of(own)) for own in found.values()]
        return all(each[mark] >= times for each in seen for mark in wanted)

    return await read_partitions(broker, topic, are_marked)


def rows_of(records: list[tuple[str, PredictionBlock]]) -> int:
    """Rows of distinct blocks."""
    return sum(each.row_count for each in dict(records).values())
