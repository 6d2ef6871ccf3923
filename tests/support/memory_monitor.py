"""Taking in and judging one version's rows in memory, without broker and database."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from homeostat import reference
from homeostat.columns import pack
from homeostat.events.v1.alert_pb2 import Alert as AlertMessage
from homeostat.events.v1.column_pb2 import ARM_CHAMPION
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.app.judging import judge_model
from homeostat_monitor.app.memory.transaction import MemoryTransaction
from homeostat_monitor.app.taking import take_losses, take_predictions
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.errors import UnreadableBlock
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import Policy, Segment
from homeostat_monitor.intake.blocks import check, first_truths, schema_of, subject_of, taken_rows
from homeostat_monitor.messages.alerts import message_of
from homeostat_monitor.ports import KnownVersion
from homeostat_monitor.store.rows import alert_of
from homeostat_monitor.versions import _profile
from homeostat_monitor.webhooks.bodies import body_of

DAY_US = 86_400_000_000
ROWS = 600
SUBJECT = subject_of("m", 1)
DATATYPES = {"amount": "FP64", "small": "FP32", "kind": "BYTES", "count": "INT64"}
SCHEMA = schema_of("f", [(name, datatype, [-1, 1]) for name, datatype in DATATYPES.items()])
SEGMENT = Segment("rare", 'kind == "b"')

Columns = dict[str, np.ndarray]


@dataclass(slots=True)
class Rows:
    """Rows of a small world, oldest first."""

    times: np.ndarray
    features: Columns
    scores: np.ndarray
    truths: np.ndarray
    known_at: np.ndarray
    is_holdout: np.ndarray
    losses: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.times)

    def only(self, rows: "np.ndarray | slice") -> "Rows":
        """Those rows, in their order."""
        features = {name: values[rows] for name, values in self.features.items()}
        names = ("scores", "truths", "known_at", "is_holdout", "losses")
        return Rows(self.times[rows], features, *(getattr(self, name)[rows] for name in names))


def rows_of(day: float, days: int = 1, *, seed: int = 1, rows: int = ROWS) -> Rows:
    rng = np.random.default_rng(seed)
    total = rows * days
    times = int(day * DAY_US) + np.arange(total, dtype=np.int64) * (DAY_US // rows)
    scores = rng.random(total)
    truths = (rng.random(total) < scores).astype(np.float64)
    features: Columns = {
        "amount": rng.gamma(2.0, size=total),
        "small": rng.normal(size=total).astype(np.float32),
        "kind": np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, total)],
        "count": rng.integers(0, 5, total),
    }
    return Rows(
        times,
        features,
        scores,
        truths,
        times + 3_600_000_000,
        np.arange(total) >= total * 0.6,
        (truths != (scores >= 0.5)).astype(np.float64),
    )


def parquet(past: Rows) -> bytes:
    table = pa.table(
        {name: pa.array(values, from_pandas=True) for name, values in past.features.items()}
    )
    decisions = (past.scores >= 0.5).astype(np.float64)
    said = reference.Verdicts(past.scores, decisions, past.truths, past.losses, past.is_holdout)
    return reference.build(table, past.times, past.known_at, said)


def a_version(
    past: Rows, *, task: Task = Task.BINARY, mode: Mode | None = None, segments: bool = False
) -> KnownVersion:
    policy = Policy(mode=mode, segments=(SEGMENT,) if segments else ())
    return KnownVersion(SUBJECT, task, _profile(parquet(past), SCHEMA, None, policy), policy=policy)


def a_block(what: Rows, number: int = 1) -> PredictionBlock:
    valid: Mapping[str, np.ndarray] = {
        name: ~np.isnan(values)
        for name, values in what.features.items()
        if values.dtype.kind == "f"
    }
    valid |= {"kind": np.array([each is not None for each in what.features["kind"]])}
    texts = np.array([each or "" for each in what.features["kind"]], dtype=object)
    features = what.features | {"kind": texts}
    return PredictionBlock(
        model_name="m",
        version=1,
        arm=ARM_CHAMPION,
        schema_fingerprint="f",
        block_id=number.to_bytes(16, "big"),
        row_count=what.rows,
        inputs=[pack(name, values, valid.get(name)) for name, values in features.items()],
        event_times_us=what.times.astype("<i8").tobytes(),
        scores=what.scores.astype("<f8").tobytes(),
        decisions=(what.scores >= 0.5).astype("<f8").tobytes(),
    )


def truths_of(what: Rows, number: int = 1, revision: int = 1) -> JoinedBlock:
    block_id = number.to_bytes(16, "big")
    return JoinedBlock(
        model_name="m",
        version=1,
        arm=ARM_CHAMPION,
        row_count=what.rows,
        prediction_ids=b"".join(block_id + row.to_bytes(4, "little") for row in range(what.rows)),
        event_times_us=what.times.astype("<i8").tobytes(),
        known_at_us=what.known_at.astype("<i8").tobytes(),
        scores=what.scores.astype("<f8").tobytes(),
        decisions=(what.scores >= 0.5).astype("<f8").tobytes(),
        truths=what.truths.astype("<f8").tobytes(),
        losses=what.losses.astype("<f8").tobytes(),
        revisions=np.full(what.rows, revision, "<u4").tobytes(),
    )


@dataclass(slots=True)
class Monitor:
    """What taking and judging do of one version, in memory; refusals as the dead-letter topic
    would get them."""

    known: KnownVersion
    tx: MemoryTransaction = field(default_factory=MemoryTransaction)
    refused: list[str] = field(default_factory=list)

    def take(self, *blocks: PredictionBlock, partition: int = 0) -> None:
        """Blocks that one poll brought of this partition."""
        good = []
        for each in blocks:
            try:
                subject_of(each.model_name, each.version)
                check(each, SCHEMA)
            except UnreadableBlock as error:
                self.refused.append(str(error))
            else:
                good.append((partition, each))
        if good:
            taken = taken_rows(SUBJECT, self.known.profile, SCHEMA, good)
            asyncio.run(self._take(taken))

    async def _take(self, taken: Any) -> None:
        await self.tx.add_models([SUBJECT.model_name])
        await take_predictions([taken], tx=self.tx)

    def learn(self, *blocks: JoinedBlock) -> None:
        asyncio.run(self._learn(blocks))

    async def _learn(self, blocks: Sequence[JoinedBlock]) -> None:
        await self.tx.add_models([SUBJECT.model_name])
        for each in blocks:
            try:
                firsts, corrections, odd = first_truths(each, each.SerializeToString())
            except UnreadableBlock as error:
                self.refused.append(str(error))
                continue
            counts = {"corrections": corrections, "losses_not_finite": odd}
            await self.tx.tally(SUBJECT, counts)
            if len(firsts.losses):
                await take_losses([firsts], tx=self.tx)

    def judge(self, *days: float) -> None:
        """Up to the beginnings of these days, which one poll brings."""
        asyncio.run(self._judge([int(each * DAY_US) for each in days]))

    async def _judge(self, marks: Sequence[int]) -> None:
        await self.tx.add_models([SUBJECT.model_name])
        for topic in (PREDICTIONS, JOINED):
            self.tx.reach(topic.name, marks)
        while (await judge_model("m", {SUBJECT: self.known}, tx=self.tx)).is_full:
            pass

    def count(self, name: str) -> int:
        return self.tx.tallies.get(SUBJECT, {}).get(name, 0)

    @property
    def alerts(self) -> list[Alert]:
        """All that were told, by id."""
        return sorted(self.tx.alerts.values(), key=lambda each: each.alert_id)

    @property
    def judged_windows(self) -> int:
        return asyncio.run(self.tx.standing(SUBJECT)).windows_judged


def assert_all_can_be_told(monitor: Monitor) -> None:
    """Stored and read back, on the topic, and as JSON that any reader takes."""
    for alert in monitor.tx.alerts.values():
        stored = message_of(alert_of(json.dumps(asdict(alert))))
        assert str(stored) == str(message_of(alert))
        message = AlertMessage.FromString(stored.SerializeToString())
        json.loads(body_of(message, "w"), parse_constant=pytest.fail)


def assert_an_ordinary_day_is_judged(monitor: Monitor, day: int = 200) -> None:
    before, windows = monitor.count("predictions"), monitor.judged_windows
    now = rows_of(day, seed=9)
    monitor.take(a_block(now, number=10**6))
    monitor.learn(truths_of(now, number=10**6))
    monitor.judge(day + 2)
    assert monitor.count("predictions") == before + now.rows
    if monitor.known.profile is not None:
        assert monitor.judged_windows > windows
    assert_all_can_be_told(monitor)
