"""What comes from the topics: blocks, marks, news. One transaction per poll."""

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Message

from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.events.v1.retraining_run_pb2 import (
    RUN_OUTCOME_NO_CANDIDATE,
    RUN_OUTCOME_REJECTED,
    RUN_STATE_ENDED,
    RetrainingRun,
)
from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.topics import JOINED, PREDICTIONS, RUNS, VERSIONS, Topic
from homeostat_kit import telemetry
from homeostat_kit.kafka import Batch, Bus, Received, Unreadable
from homeostat_kit.kafka.dead_letters import DeadLetters
from homeostat_kit.offsets import advance_offsets
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_monitor.app.hearing import RunNews, VersionNews, hear_run, hear_version
from homeostat_monitor.app.taking import TakenRows, take_losses, take_predictions
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import UnreadableBlock
from homeostat_monitor.intake.blocks import (
    check,
    check_time,
    first_truths,
    is_judged,
    subject_of,
    taken_rows,
)
from homeostat_monitor.intake.marks import observe_marks, passed_us
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.ports import BlockOfLosses
from homeostat_monitor.store.transaction import StoreTransaction
from homeostat_monitor.versions import Versions

_FRUITLESS = frozenset({RUN_OUTCOME_NO_CANDIDATE, RUN_OUTCOME_REJECTED})
_NO_VERSION = "the registry knows no such version"
# Spans of the newest polls, for the span of what they lead to.
_MOST_LINKS = 32


class Listener:
    """Handlers for each topic; each stores its effect and its offsets together."""

    def __init__(
        self,
        pool: Pool,
        bus: Bus,
        versions: Versions,
        *,
        told: Callable[[], None],
        marked: Callable[[], None],
        runs_until_accepted: int,
        metrics: Metrics,
        traces: telemetry.Telemetry,
    ) -> None:
        """``told`` is called when alerts are in the outbox, ``marked`` where a watermark has moved:
        there may be something to judge."""
        self._marked = marked
        self._pool = pool
        self._bus = bus
        self._versions = versions
        self._told = told
        self._runs_until_accepted = runs_until_accepted
        self._metrics = metrics
        self._traces = traces
        # Of the present life of the broker.
        self._dead_letters: tuple[str, DeadLetters] | None = None
        self.recent_spans: deque[Any] = deque(maxlen=_MOST_LINKS)

    async def on_predictions(self, batch: Batch) -> None:
        """Sums of new blocks, and the marks behind them."""
        by_subject: dict[Subject, list[tuple[Received, PredictionBlock]]] = {}
        unjudged: dict[Subject, int] = {}
        unreadable: list[Unreadable] = []
        for record, block in batch.records:
            if not block.row_count:
                continue
            try:
                subject = subject_of(block.model_name, block.version)
            except UnreadableBlock as error:
                unreadable.append(Unreadable(record, str(error)))
                continue
            if is_judged(block.arm):
                by_subject.setdefault(subject, []).append((record, block))
            else:
                unjudged[subject] = unjudged.get(subject, 0) + block.row_count
        taken = await self._taken(by_subject, unreadable)
        await self._bury(batch, unreadable)

        async def effect(tx: StoreTransaction) -> int:
            for subject, rows in unjudged.items():
                await tx.tally(subject, {"unjudged_arm_rows": rows})
            if not taken:
                return 0
            passed = await passed_us(tx, PREDICTIONS, batch, lambda _, each: each.block_id)
            return await take_predictions(taken, tx=tx, passed_us=passed)

        rows = await self._apply(batch, PREDICTIONS, effect)
        self._metrics.predictions.add(rows)

    async def _taken(
        self,
        by_subject: dict[Subject, list[tuple[Received, PredictionBlock]]],
        unreadable: list[Unreadable],
    ) -> list[TakenRows]:
        taken: list[TakenRows] = []
        for subject, blocks in by_subject.items():
            watched = await self._versions.get(subject)
            if watched.schema is None:
                unreadable += [Unreadable(each, _NO_VERSION) for each, _ in blocks]
                continue
            good: list[tuple[int, PredictionBlock]] = []
            for record, block in blocks:
                try:
                    check(block, watched.schema)
                except UnreadableBlock as error:
                    unreadable.append(Unreadable(record, str(error)))
                else:
                    good.append((record.partition, block))
            if good:
                taken.append(taken_rows(subject, watched.known.profile, watched.schema, good))
        return taken

    async def on_joined(self, batch: Batch) -> None:
        """First truths wait for the marks that pass them."""
        blocks: list[BlockOfLosses] = []
        tallies: dict[Subject, Counter[str]] = {}
        unreadable: list[Unreadable] = []
        for record, block in batch.records:
            if not block.row_count:
                continue
            try:
                subject = subject_of(block.model_name, block.version)
                watched = await self._versions.get(subject)
                if watched.schema is None:
                    raise UnreadableBlock(_NO_VERSION)
                firsts, counts = _losses_of(record, block)
            except UnreadableBlock as error:
                unreadable.append(Unreadable(record, str(error)))
                continue
            tallies.setdefault(firsts.subject, Counter()).update(counts)
            if len(firsts.losses) and is_judged(block.arm):
                blocks.append(firsts)
        await self._bury(batch, unreadable)

        async def effect(tx: StoreTransaction) -> int:
            for subject, counts in tallies.items():
                await tx.tally(subject, counts)
            if not blocks:
                return 0
            passed = await passed_us(tx, JOINED, batch, lambda record, _: _event_of(record))
            return await take_losses(blocks, tx=tx, passed_us=passed)

        await self._apply(batch, JOINED, effect)

    async def on_news(self, batch: Batch) -> None:
        """What registry and retrainer tell, in order."""

        heard: list[VersionNews | RunNews] = []
        unreadable: list[Unreadable] = []
        for record, message in batch.records:
            try:
                if record.topic == VERSIONS.name:
                    heard.append(_version_news(message))
                elif _is_fruitless(message):
                    heard.append(_run_news(message))
            except UnreadableBlock as error:
                unreadable.append(Unreadable(record, str(error)))
        await self._bury(batch, unreadable)
        for each in heard:
            self._versions.announced(each.subject)
        names = sorted({each.subject.model_name for each in heard})

        async def effect(tx: StoreTransaction) -> int:
            # All locks first, in one order, then the outbox's: judging takes them so too.
            await tx.add_models(names)
            for name in names:
                await tx.lock_model(name)
            ended = 0
            for each in heard:
                if isinstance(each, VersionNews):
                    ended += len(await hear_version(each, tx=tx))
                else:
                    enough = self._runs_until_accepted
                    ended += len(await hear_run(each, runs_until_accepted=enough, tx=tx))
            return ended

        if await self._apply(batch, None, effect):
            self._told()

    async def _apply(self, batch: Batch, marked: Topic | None, effect: Any) -> int:
        """The effect, the marks and the offsets, all or none."""
        begun = time.perf_counter()

        async def work(connection: Connection) -> tuple[int, bool]:
            await advance_offsets(connection, batch)
            tx = StoreTransaction(connection)
            done: int = await effect(tx)
            moved = marked is not None and await observe_marks(tx, marked, batch)
            return done, moved

        with self._span(batch):
            done, has_moved = await retrying(self._pool, work)
        self._metrics.take_seconds.record(time.perf_counter() - begun)
        if has_moved:
            self._marked()
        return done

    def _span(self, batch: Batch) -> Any:
        links = telemetry.links([each.headers for each, _ in batch.records])
        span = self._traces.tracer.start_as_current_span("monitor.take", links=links)
        return _Remembered(span, self.recent_spans)

    async def _bury(self, batch: Batch, unreadable: Sequence[Unreadable]) -> None:
        """Says in the dead-letter topic which blocks were none, before their offsets are passed."""
        if not unreadable:
            return
        self._metrics.unreadable.add(len(unreadable))
        if self._dead_letters is None or self._dead_letters[0] != batch.epoch:
            topics = {each.name: each for each in (PREDICTIONS, JOINED, VERSIONS, RUNS)}
            self._dead_letters = (batch.epoch, DeadLetters(self._bus, topics, batch.epoch))
        await self._dead_letters[1].tell(unreadable)


class _Remembered:
    """A span whose context is kept for links from what follows."""

    def __init__(self, span: Any, into: deque[Any]) -> None:
        self._span = span
        self._into = into

    def __enter__(self) -> None:
        context = self._span.__enter__().get_span_context()
        if context.is_valid:
            self._into.append(context)

    def __exit__(self, *error: Any) -> None:
        self._span.__exit__(*error)


def _losses_of(record: Received, block: JoinedBlock) -> tuple[BlockOfLosses, dict[str, int]]:
    firsts, corrections, not_finite = first_truths(block, _event_of(record))
    return firsts, {"corrections": corrections, "losses_not_finite": not_finite}


def _event_of(record: Received) -> bytes:
    return record.headers.get("ce_id") or hashlib.sha256(record.value).digest()


def _version_news(message: VersionChanged) -> VersionNews:
    subject = subject_of(message.model_name, message.version)
    champion = message.champion_version if message.HasField("champion_version") else None
    subject_of(message.model_name, champion or 0)
    return VersionNews(
        subject, check_time(message.revision), champion, _micros(message, "occurred_at")
    )


def _is_fruitless(run: RetrainingRun) -> bool:
    return run.state == RUN_STATE_ENDED and run.outcome in _FRUITLESS


def _run_news(run: RetrainingRun) -> RunNews:
    subject = subject_of(run.model_name, run.champion_version)
    cut_us = check_time(run.cut_known_at_us)
    return RunNews(run.run_id, subject, cut_us, _micros(run, "occurred_at"))


def _micros(message: Message, field: str) -> int:
    return check_time(getattr(message, field).ToMicroseconds())
