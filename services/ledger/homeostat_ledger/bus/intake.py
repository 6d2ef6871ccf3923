"""One poll of the topics: read, refuse what can't be, take in the rest."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from opentelemetry import trace

from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import BLOCK_ID_BYTES
from homeostat.topics import OUTCOMES, PREDICTIONS
from homeostat_kit import telemetry
from homeostat_kit.clock import Clock
from homeostat_kit.kafka import Batch, Received
from homeostat_kit.kafka import Unreadable as Refused
from homeostat_kit.watermarks import Watermarks
from homeostat_ledger.app.ports import Archive, Index, Intake, Marks
from homeostat_ledger.app.take_in import take_in
from homeostat_ledger.bus.dead import Refuse
from homeostat_ledger.bus.messages import Bounds, read_block, read_outcomes
from homeostat_ledger.domain.blocks import Block, OutcomeBatch
from homeostat_ledger.domain.errors import Unreadable
from homeostat_ledger.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Limits:
    """What is refused, and the secret of clients' ids."""

    event_time_ahead_us: int
    known_at_ahead_us: int
    client_key_secret: bytes


class Sources:
    """How far the sources have promised in the present life of the broker."""

    def __init__(self, epoch: str = "", text: str = "[]") -> None:
        self.epoch = epoch
        self.marks = Watermarks.from_json(text)
        self._rises: list[int] = []

    def after(self, batch: Batch, latest_us: int) -> "Sources":
        """A copy that has seen the batch's marks up to ``latest_us``: until the batch is committed
        they don't count."""
        is_same = batch.epoch == self.epoch
        seen = [
            (received, message.watermark)
            for received, message in batch.records
            if message.HasField("watermark") and message.watermark.watermark_us <= latest_us
        ]
        if is_same and not seen:
            return self
        after = Sources(batch.epoch, self.marks.to_json() if is_same else "[]")
        for received, mark in seen:
            after.marks.observe(received.topic, received.partition, mark)
            after.note_rise()
        return after

    def note_rise(self) -> None:
        """Remembers the watermark if it has a new value."""
        reached = [self.marks.current(each, each.partitions) for each in (PREDICTIONS, OUTCOMES)]
        known = [each for each in reached if each is not None]
        if len(known) == len(reached) and (not self._rises or min(known) > self._rises[-1]):
            self._rises.append(min(known))

    @property
    def outcomes_us(self) -> int | None:
        """Everything known before this has come."""
        return self.marks.current(OUTCOMES, OUTCOMES.partitions)

    def marked(self) -> Marks:
        """For the store."""
        return Marks(self.epoch, self.marks.to_json(), tuple(self._rises))


class Intaker:
    """Handles batches, one at a time."""

    def __init__(
        self,
        *,
        index: Index,
        archive: Archive,
        refuse: Refuse,
        limits: Limits,
        clock: Clock,
        load_sources: Callable[[], Awaitable[Sources]],
        metrics: Metrics,
        tracer: trace.Tracer,
    ) -> None:
        self._index = index
        self._archive = archive
        self._refuse = refuse
        self._limits = limits
        self._clock = clock
        self._metrics = metrics
        self._tracer = tracer
        self._load_sources = load_sources
        self._are_sources_known = False
        self.sources = Sources()
        self.is_busy = False

    async def handle(self, batch: Batch) -> None:
        """Raises where the world is away; then nothing of the batch has happened."""
        self.is_busy = True
        try:
            if not self._are_sources_known:
                self.sources = await self._load_sources()
            # A batch that fails may have been committed, and its marks with it.
            self._are_sources_known = False
            links = telemetry.links([received.headers for received, _ in batch.records])
            with self._tracer.start_as_current_span("take_in", links=links):
                await self._handle(batch)
        finally:
            self.is_busy = False

    async def _handle(self, batch: Batch) -> None:
        read = _Reading(self._limits, self._clock.now_us())
        for received, message in batch.records:
            read.take(received, message)
        if read.refused:
            # Before the commit: a crash in between repeats them under the same id.
            await self._refuse(batch.epoch, read.refused)
        self._metrics.refused(len(read.refused) + len(batch.unreadable))
        sources = self.sources.after(batch, read.latest_us)
        span = trace.get_current_span()
        span.set_attribute("homeostat.models", sorted({each.model_name for each in read.blocks}))
        marks = None if sources is self.sources else sources.marked()
        set_aside = _block_ids([*read.refused_whole, *(each.received for each in batch.unreadable)])
        intake = Intake(
            batch, read.blocks, read.outcomes, marks, telemetry.traceparent(), set_aside
        )
        taken = await take_in(intake, index=self._index, archive=self._archive)
        self.sources, self._are_sources_known = sources, True
        self._metrics.taken_in(taken)


class _Reading:
    """What was read of one batch so far."""

    def __init__(self, limits: Limits, now_us: int) -> None:
        self._limits = limits
        self._bounds = Bounds(
            now_us + limits.event_time_ahead_us, now_us + limits.known_at_ahead_us
        )
        # Marks beyond it would end all judging for good.
        self.latest_us = self._bounds.event_time_us
        self.blocks: list[Block] = []
        self.outcomes: list[OutcomeBatch] = []
        self.refused: list[Refused] = []
        # Records of which nothing was taken.
        self.refused_whole: list[Received] = []

    def take(self, received: Received, message: PredictionBlock | OutcomeBlock) -> None:
        """A mark without rows is neither taken nor refused."""
        try:
            if message.HasField("watermark") and message.watermark.watermark_us > self.latest_us:
                raise Unreadable("a watermark is too far in the future")
            if not message.row_count and message.HasField("watermark"):
                return
            if isinstance(message, PredictionBlock):
                self.blocks.append(read_block(message, self._bounds))
            else:
                self._take_outcomes(received, message)
        except Unreadable as reason:
            self.refused.append(Refused(received, str(reason)))
            self.refused_whole.append(received)

    def _take_outcomes(self, received: Received, message: OutcomeBlock) -> None:
        read = read_outcomes(message, self._bounds, self._limits.client_key_secret)
        self.outcomes.append(read.batch)
        if read.refused:
            reasons = ", ".join(f"{count} rows: {reason}" for reason, count in read.refused.items())
            self.refused.append(Refused(received, reasons))


def _block_ids(records: Sequence[Received]) -> list[bytes]:
    """The ids of unreadable blocks: they are their records' keys."""
    return [each.key for each in records if each.key and len(each.key) == BLOCK_ID_BYTES]
