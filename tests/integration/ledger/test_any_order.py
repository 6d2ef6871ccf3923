"""The join on a real database, held against a model, for any order, duplication and correction."""

import asyncio
import itertools
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from opentelemetry.metrics import NoOpMeter
from opentelemetry.trace import NoOpTracer
from tests.support.ledger_events import MODEL, SECRET, START_US, a_block, block_id, outcomes

from homeostat import checksum
from homeostat.events.v1.column_pb2 import ARM_SHADOW
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import client_keys, pack_prediction_id
from homeostat.topics import OUTCOMES, PREDICTIONS
from homeostat_kit.clock import SystemClock
from homeostat_kit.kafka import Batch, Received
from homeostat_kit.postgres import Pool, migrate, open_pool
from homeostat_ledger.app.cut import cut
from homeostat_ledger.app.ports import Question
from homeostat_ledger.archive.files import ParquetArchive
from homeostat_ledger.bus.intake import Intaker, Limits, Sources
from homeostat_ledger.domain.counts import Counts
from homeostat_ledger.domain.data_sets import FIRST_KNOWN_AT, KNOWN_AT, TRUTH
from homeostat_ledger.metrics import Metrics
from homeostat_ledger.store.finding import PostgresFinder
from homeostat_ledger.store.index import PostgresIndex, become_writer
from homeostat_local.database import create_service_database

TABLES = (
    "truth",
    "client_row",
    "parked",
    "prediction_block",
    "archive_part",
    "archive_file",
    "history",
    "model",
    "outcome_block",
    "watermark",
    "outbox",
    "consumer_offset",
)

# A client's id, or the block and row of a prediction.
Subject = str | tuple[int, int]
Truth = tuple[Subject, float, int]

clients = st.sampled_from(["a", "b", "c", ""])
subjects: st.SearchStrategy[Subject] = st.sampled_from(["a", "b", "c", "d"]) | st.tuples(
    st.integers(0, 4), st.integers(0, 3)
)


@dataclass(frozen=True)
class World:
    """What was predicted and what turned out to be true; block numbers are places in the lists."""

    blocks: list[list[str]]
    truths: list[list[Truth]]
    # Blocks that repeat the rows of another, and the clients' ids of one whose origin never comes.
    shadows: list[tuple[int, list[str]]]

    def shadow_ids(self, shadow: int) -> list[str]:
        """Clients' ids of a shadow's rows."""
        origin, own = self.shadows[shadow]
        return self.blocks[origin] if origin < len(self.blocks) else own

    def events_of_shadow(self, shadow: int, row: int) -> list[tuple[int, bytes, int, float]]:
        """(known-at, event id, truth) of one row, in order: what was told of the row it repeats."""
        subjects = {(self.shadows[shadow][0], row), self.shadow_ids(shadow)[row] or None}
        return self.events(subjects)

    def events_of(self, block: int, row: int) -> list[tuple[int, bytes, int, float]]:
        """(known-at, event id, truth) of one prediction, in order."""
        return self.events({(block, row), self.blocks[block][row] or None})

    def events(self, named: set[Any]) -> list[tuple[int, bytes, int, float]]:
        return sorted(
            (known_at, block_id(1_000_000 + number), at, truth)
            for number, told in enumerate(self.truths)
            for at, (subject, truth, known_at) in enumerate(told)
            if subject in named
        )

    def counts(self) -> Counts:
        found = Counts(
            blocks=len(self.blocks) + len(self.shadows),
            outcomes_received=sum(map(len, self.truths)),
        )
        for block, row in self.predictions():
            found.predictions += 1
            events = self.events_of(block, row)
            if events:
                differing = sum(a[3] != b[3] for a, b in itertools.pairwise(events))
                found.predictions_joined += 1
                found.corrections += differing
                found.outcomes_repeated += len(events) - 1 - differing
                found.joined_checksum += self.hash_of(block, row, events[-1])
        shadowed = itertools.chain(*map(self.shadow_ids, range(len(self.shadows))))
        known = {*self.predictions(), *itertools.chain(*self.blocks), *shadowed}
        found.outcomes_parked = sum(
            subject not in known for told in self.truths for subject, _, _ in told
        )
        found.joined_checksum %= 2**64
        return found

    def hash_of(self, block: int, row: int, event: tuple[int, bytes, int, float]) -> int:
        known_at, truth = [START_US + event[0]], [event[3]]
        if client := self.blocks[block][row]:
            return checksum.of_client_keys(client_keys(SECRET, [client]), truth, known_at)
        return checksum.of_prediction_ids(pack_prediction_id(block_id(block), row), truth, known_at)

    def predictions(self) -> list[tuple[int, int]]:
        return [(block, row) for block, ids in enumerate(self.blocks) for row in range(len(ids))]

    def known_by(self, at: int) -> list[tuple[int, int, float]]:
        """(known-at, first known-at, truth) of the rows that a cut at that time holds."""
        return self.held([self.events_of(*each) for each in self.predictions()], at)

    def shadows_known_by(self, at: int) -> list[tuple[int, int, float]]:
        """The same of a cut that asks for shadows only."""
        rows = [
            (shadow, row)
            for shadow in range(len(self.shadows))
            for row in range(len(self.shadow_ids(shadow)))
        ]
        return self.held([self.events_of_shadow(*each) for each in rows], at)

    def held(
        self, events: list[list[tuple[int, bytes, int, float]]], at: int
    ) -> list[tuple[int, int, float]]:
        known = [[event for event in each if event[0] <= at] for each in events]
        return sorted(
            (START_US + since(each), START_US + each[0][0], each[-1][3]) for each in known if each
        )

    def messages(self, model: str) -> list[PredictionBlock | OutcomeBlock]:
        said: list[Any] = [
            a_block(number, client_ids=ids, model=model) for number, ids in enumerate(self.blocks)
        ]
        for number, (origin, _) in enumerate(self.shadows):
            ids = self.shadow_ids(number)
            shadow = a_block(SHADOWS + number, client_ids=ids, model=model, arm=ARM_SHADOW)
            shadow.origin_block_id = block_id(origin)
            said.append(shadow)
        for number, told in enumerate(self.truths):
            message = outcomes(
                number,
                [truth for _, truth, _ in told],
                [START_US + known_at for _, _, known_at in told],
                client_ids=[name if isinstance(name, str) else "" for name, _, _ in told],
                model=model,
            )
            message.prediction_ids = b"".join(
                bytes(20)
                if isinstance(name, str)
                else pack_prediction_id(block_id(name[0]), name[1])
                for name, _, _ in told
            )
            said.append(message)
        return said


def since(events: Sequence[tuple[int, bytes, int, float]]) -> int:
    """When the last value came that was not just said again."""
    *before, last = events
    return since(before) if before and before[-1][3] == last[3] else last[0]


SHADOWS = 100
worlds = st.builds(
    World,
    st.lists(st.lists(clients, min_size=1, max_size=3), max_size=4),
    st.lists(
        st.lists(
            st.tuples(subjects, st.sampled_from([0.0, 1.0]), st.integers(0, 5)),
            min_size=1,
            max_size=4,
        ),
        max_size=6,
    ),
    # Of blocks that come, and of such as never do.
    st.lists(st.tuples(st.integers(0, 4), st.lists(clients, min_size=1, max_size=3)), max_size=4),
)


class Installation:
    """The ledger's own code on a database and a folder, spoken to poll by poll."""

    def __init__(
        self, index: PostgresIndex, archive: ParquetArchive, finder: PostgresFinder
    ) -> None:
        self.index, self.archive, self.finder = index, archive, finder
        self.epoch = uuid.uuid4().hex
        self.next = {PREDICTIONS.name: 0, OUTCOMES.name: 0}
        self.intaker = Intaker(
            index=index,
            archive=archive,
            refuse=self.refuse,
            limits=Limits(0, 0, SECRET),
            clock=SystemClock(),
            load_sources=self.no_sources,
            metrics=Metrics(NoOpMeter("test")),
            tracer=NoOpTracer(),
        )

    async def refuse(self, epoch: str, refused: Sequence[object]) -> None:
        raise AssertionError(f"{len(refused)} records were refused")

    async def no_sources(self) -> Sources:
        return Sources()

    async def poll(self, messages: Sequence[PredictionBlock | OutcomeBlock]) -> None:
        before, records = dict(self.next), []
        for each in messages:
            name = PREDICTIONS.name if isinstance(each, PredictionBlock) else OUTCOMES.name
            records.append((Received(name, 0, self.next[name], b"", b"", {}), each))
            self.next[name] += 1
        moved = {name: end for name, end in self.next.items() if end != before[name]}
        await self.intaker.handle(
            Batch(
                self.epoch,
                records,
                [],
                {(name, 0): before[name] for name in moved},
                {(name, 0): end for name, end in moved.items()},
            )
        )

    async def cut(
        self, at: int, newest: int | None = None, arms: Sequence[int] = (1, 3, 4, 5)
    ) -> tuple[str, pa.Table]:
        question = Question(MODEL, START_US + at, -(2**63), 2**63 - 1, newest, arms)
        data_set = await cut(question, index=self.index, archive=self.archive)
        return data_set.content_sha256, data_set.table


@pytest.fixture(scope="module")
def database_url(postgres_admin_url: str) -> str:
    """One for all examples."""
    return create_service_database(postgres_admin_url, f"test_{uuid.uuid4().hex[:12]}", "test")


async def forget(pool: Pool) -> None:
    """Between two installations in one database."""
    # Deleting a few rows is quicker than truncating.
    await pool.execute("; ".join(f"DELETE FROM {table}" for table in TABLES))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    # Making an example smaller takes minutes on a database; test_truths does it on the same law.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(worlds, st.data())
def test_any_order_duplication_and_correction_equals_the_model(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    world: World,
    data: st.DataObject,
) -> None:
    # So that a few rows are many.
    monkeypatch.setattr("homeostat_ledger.store.index._SPARE_ROWS", 0)

    async def in_any_order(pool: Pool, index: PostgresIndex, archive: ParquetArchive) -> list[str]:
        """The hashes of cuts at each time."""
        await forget(pool)
        installation = Installation(index, archive, PostgresFinder(pool))
        said = world.messages(MODEL)
        repeated = data.draw(st.lists(st.sampled_from(said), max_size=3)) if said else []
        order = data.draw(st.permutations([*said, *repeated]))
        polls = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4)))
        for start, stop in itertools.pairwise([0, *polls, len(order)]):
            if order[start:stop]:
                await installation.poll(order[start:stop])
        await assert_equals_model(installation, len(repeated))
        if not said:
            return []
        return [(await installation.cut(at))[0] for at in range(6)]

    async def assert_equals_model(installation: Installation, repeated: int) -> None:
        counted, expected = await installation.finder.counts(MODEL), world.counts()
        assert 0 <= counted.duplicate_blocks <= repeated
        expected.duplicate_blocks = counted.duplicate_blocks
        assert counted == expected
        for at in range(6) if world.blocks or world.truths or world.shadows else ():
            _, table = await installation.cut(at)
            columns = [table[name].to_pylist() for name in (KNOWN_AT, FIRST_KNOWN_AT, TRUTH)]
            rows = sorted(zip(*columns, strict=True))
            assert rows == world.known_by(at)
            _, shadows = await installation.cut(at, arms=(ARM_SHADOW,))
            columns = [shadows[name].to_pylist() for name in (KNOWN_AT, FIRST_KNOWN_AT, TRUTH)]
            assert sorted(zip(*columns, strict=True)) == world.shadows_known_by(at)
            _, newest = await installation.cut(at, newest=2)
            assert newest[KNOWN_AT].to_pylist() == [row[0] for row in rows][-2:]

    async def run() -> None:
        pool = await open_pool(database_url, max_size=2)
        try:
            await migrate(pool, "homeostat_ledger")
            index = PostgresIndex(pool, await become_writer(pool), SystemClock(), lambda: None)
            archive = ParquetArchive(tmp_path / "archive", cache_bytes=1_000_000)
            first = await in_any_order(pool, index, archive)
            assert first == await in_any_order(pool, index, archive)
        finally:
            await pool.close()

    asyncio.run(run())
