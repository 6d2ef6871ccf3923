"""A ledger under test: the service itself, a broker, a database, and what a test says to them."""

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pyarrow as pa
import pyarrow.parquet as pq
from tests.support.broker import TestBroker
from tests.support.ledger_events import MODEL, SECRET, mark
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat import cloudevents
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ledger.v1.ledger_pb2 import (
    CutDataSetHeader,
    CutDataSetRequest,
    GetStatisticsRequest,
    GetStatisticsResponse,
)
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.progress.v1.progress_pb2 import GetProgressRequest, GetProgressResponse
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat.topics import JOINED, OUTCOMES, PREDICTIONS, Topic
from homeostat_kit.kafka import Batch, Bus, Outgoing, Received, consume, from_the_start
from homeostat_ledger.main import serve
from homeostat_ledger.settings import LedgerSettings

_PREFIX = "HOMEOSTAT_LEDGER_"
_TOPICS = {PredictionBlock: PREDICTIONS, OutcomeBlock: OUTCOMES}


@dataclass(slots=True)
class LedgerUnderTest:
    """One ledger process that can be killed and started again on the same data."""

    broker: TestBroker
    database_url: str
    folder: Path
    bus: Bus
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    leave: asyncio.Event | None = None
    task: asyncio.Task[None] | None = None
    channel: Any = None
    sent: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir()

    @property
    def log(self) -> Path:
        return self.folder / "ledger.log"

    async def start(self) -> None:
        """As a process of its own."""
        with self.log.open("ab") as log:
            # Waiting for it is done by asking it, not by its process.
            self.process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "homeostat_ledger"],
                env={**os.environ, **self._environment()},
                stdout=log,
                stderr=log,
            )
        await self._connect()

    async def start_here(self) -> None:
        """In this process: quicker, and can't be killed."""
        names = {name.removeprefix(_PREFIX).lower(): v for name, v in self._environment().items()}
        settings = LedgerSettings.model_validate(names)
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(serve(settings, self.leave))
        await self._connect()

    def _environment(self) -> dict[str, str]:
        values = {
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.address,
            "DATABASE_URL": self.database_url,
            "GRPC_ADDRESS": f"127.0.0.1:{self.port}",
            "DATA_FOLDER": str(self.folder),
            "CLIENT_KEY_SECRET": SECRET.decode(),
            **self.settings,
        }
        return {f"{_PREFIX}{name}": value for name, value in values.items()}

    async def _connect(self) -> None:
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.port}",
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
            ],
        )
        await eventually(self.is_serving, what="the ledger serves")

    async def files(self) -> int:
        """How many files the archive consists of."""
        connection = await asyncpg.connect(self.database_url)
        try:
            return int(await connection.fetchval("SELECT count(*) FROM archive_file"))
        finally:
            await connection.close()

    async def is_serving(self) -> bool:
        if self.process is not None:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
        if self.task is not None and self.task.done():
            await self.task
        try:
            await self.progress()
        except grpc.aio.AioRpcError:
            return False
        return True

    async def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        await self.channel.close()

    async def stop(self) -> None:
        if self.task is not None and self.leave is not None:
            self.leave.set()
            await self.task
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(12)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        if self.channel is not None:
            await self.channel.close()

    @property
    def api(self) -> Any:
        return LedgerServiceStub(self.channel)

    async def progress(self) -> GetProgressResponse:
        stub: Any = ProgressServiceStub(self.channel)
        answer: GetProgressResponse = await stub.GetProgress(GetProgressRequest(), timeout=30)
        return answer

    async def statistics(self, model: str = MODEL) -> GetStatisticsResponse:
        answer: GetStatisticsResponse = await self.api.GetStatistics(
            GetStatisticsRequest(model_name=model), timeout=5
        )
        return answer

    async def say(self, *messages: PredictionBlock | OutcomeBlock) -> None:
        """Produces blocks, each to the partition of its id."""
        await self._produce(
            [
                Outgoing(
                    _TOPICS[type(each)].name,
                    each.block_id,
                    each.SerializeToString(),
                    _headers(_TOPICS[type(each)], each.block_id.hex()),
                )
                for each in messages
            ]
        )

    async def say_raw(
        self, topic: Topic, value: bytes, headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """Produces any bytes."""
        await self._produce([Outgoing(topic.name, b"key", value, headers)])

    async def mark(self, at_us: int) -> None:
        """Everything before has been said."""
        await self._produce(
            [
                Outgoing(
                    topic.name,
                    b"",
                    mark(kind, at_us).SerializeToString(),
                    _headers(topic, f"mark-{at_us}-{partition}"),
                    partition,
                )
                for kind, topic in _TOPICS.items()
                for partition in range(topic.partitions)
            ]
        )

    async def _produce(self, outgoing: Sequence[Outgoing]) -> None:
        placed = await self.bus.produce_many(outgoing)
        for each, (partition, offset) in zip(outgoing, placed, strict=True):
            place = (each.topic, partition)
            self.sent[place] = max(self.sent.get(place, 0), offset + 1)

    async def settled(self) -> None:
        """All that was said has been taken in and told on."""

        async def is_done() -> bool:
            try:
                now = await self.progress()
            except grpc.aio.AioRpcError:
                return False
            applied = {(each.topic, each.partition): each.next_offset for each in now.applied}
            return (
                now.epoch == self.bus.epoch
                and not now.unsent_count
                and not now.open_work_count
                and all(applied.get(place, 0) >= end for place, end in self.sent.items())
            )

        await eventually(is_done, what="the ledger has taken everything in")

    async def cut(self, **question: Any) -> tuple[CutDataSetHeader, pa.Table]:
        header, content = None, io.BytesIO()
        async for part in self.api.CutDataSet(CutDataSetRequest(**question), timeout=60):
            if part.HasField("header"):
                header = part.header
            else:
                content.write(part.chunk)
        assert header is not None
        assert content.tell() == header.file_bytes
        return header, pq.read_table(content)

    async def joined(self) -> list[JoinedBlock]:
        """Everything that is on the topic of joined blocks now, marks included."""
        return [message for _, message in await self.read(JOINED)]

    async def read(self, topic: Topic) -> list[tuple[Received, Any]]:
        """A topic's records up to what the ledger says it has produced there."""
        progress = await self.progress()
        ends = {p.partition: p.next_offset for p in progress.produced if p.topic == topic.name}
        return await self.read_all(topic, sum(ends.values()))

    async def read_all(self, topic: Topic, count: int) -> list[tuple[Received, Any]]:
        """A topic's first ``count`` records, readable or not."""
        seen: list[tuple[Received, Any]] = []
        stop = asyncio.Event()

        async def handle(batch: Batch) -> None:
            seen.extend(batch.records)
            seen.extend((each.received, None) for each in batch.unreadable)
            if len(seen) >= count:
                stop.set()

        if count:
            async with asyncio.timeout(60):
                await consume(self.bus, [topic], offsets=from_the_start, handle=handle, stop=stop)
        return seen


def _headers(topic: Topic, event_id: str) -> list[tuple[str, bytes]]:
    return cloudevents.headers(
        topic, event_id=event_id, source="homeostat/test", occurred_at_us=1_700_000_000_000_000
    )


@asynccontextmanager
async def a_ledger(
    broker: TestBroker, database_url: str, folder: Path
) -> AsyncIterator[LedgerUnderTest]:
    """Not started yet; stopped in the end."""
    bus = Bus(broker.address, client_id="test")
    await bus.ensure_topics((PREDICTIONS, OUTCOMES, JOINED))
    async with bus:
        under_test = LedgerUnderTest(broker, database_url, folder, bus)
        yield under_test
        with suppress(ProcessLookupError):
            await under_test.stop()
