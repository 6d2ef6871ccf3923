"""Answering calls: check, batch, run, keep, answer."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import client_keys
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat.schema import judge
from homeostat_inference.app.answers import Answers
from homeostat_inference.app.book import BlockBook, Placed, Size
from homeostat_inference.app.ports import Call, Clock, Done
from homeostat_inference.app.records import RowsRecord, pack_rows
from homeostat_inference.app.serving import NotLoaded, Served, Table
from homeostat_inference.domain.batches import gather, unfit
from homeostat_inference.domain.blocks import Answered, columns_of, context_columns
from homeostat_inference.domain.errors import (
    InferenceError,
    InvalidInput,
    Leaving,
    ModelFailed,
    TooLarge,
)
from homeostat_inference.domain.requests import EVENT_TIME_INPUT, CheckedRequest, check
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array
from homeostat_inference.domain.times import TimeBounds

# One run takes no more rows than this, so that a burst does not hold up everybody for long.
MAX_RUN_ROWS = 4096
# What the broker takes as one record, with room for its own framing.
MAX_BLOCK_BYTES = 15 * 1024 * 1024
# Event time, client key, score, decision and latency of one row.
ROW_OVERHEAD_BYTES = 8 + 16 + 8 + 8 + 4


def _no_trace(schema: Schema, rows: int) -> AbstractContextManager[str]:
    return nullcontext("")


@dataclass(slots=True)
class Counts:
    """What was done since the start; read by the metrics."""

    requests: int = 0
    rows: int = 0
    refused: int = 0
    failed: int = 0
    runs: int = 0
    batch_rows_max: int = 0
    run_seconds: float = 0.0


@dataclass(slots=True)
class Waiting:
    """A checked request that waits for its run."""

    call: Call
    request: CheckedRequest
    arm: int
    arrived_at_us: int

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return self.request.rows


@dataclass(frozen=True, slots=True)
class Rules:
    """How calls are treated, for the life of the process."""

    max_message_bytes: int
    client_key_secret: bytes
    # What the answers say: "durable" or "fast".
    durability: str


@dataclass(slots=True)
class Engine:
    """Answers calls. `handle` may be called from several threads; each call is answered once."""

    table: Table
    book: BlockBook
    clock: Clock
    rules: Rules
    # Bounds for times now.
    times: Callable[[int], TimeBounds]
    # Told the newest event time of each batch.
    see: Callable[[int, int], None]
    # Takes over a call whose version must be fetched first.
    fetch: Callable[[Call, NotLoaded], None]
    log: Callable[[str, Exception], None]
    trace: Callable[[Schema, int], AbstractContextManager[str]] = _no_trace
    counts: Counts = field(default_factory=Counts)
    is_leaving: bool = False

    def handle(self, calls: Sequence[Call]) -> None:
        """Answers all calls, now or later; raises nothing."""
        now_us = self.clock.now_us()
        times = self.times(now_us)
        groups: dict[Served, list[Waiting]] = {}
        for call in calls:
            try:
                served, waiting = self._read(call, now_us, times)
                groups.setdefault(served, []).append(waiting)
            except NotLoaded as missing:
                self.fetch(call, missing)
            except Exception as error:
                self._fail(call, error)
        for served, group in groups.items():
            self._dispatch(served, group)

    def _read(self, call: Call, now_us: int, times: TimeBounds) -> tuple[Served, Waiting]:
        if self.is_leaving:
            raise Leaving("the server is shutting down; try another one or again later")
        if len(call.payload) > self.rules.max_message_bytes:
            raise TooLarge(
                f"expected a message of at most {self.rules.max_message_bytes} bytes, "
                f"got {len(call.payload)}"
            )
        try:
            message = ModelInferRequest.FromString(call.payload)
        except Exception:
            raise InvalidInput("expected a serialized ModelInferRequest, got other bytes") from None
        served, arm = self.table.route(message.model_name, message.model_version)
        request = check(message, served.schema, times)
        _check_block_bytes(request, served.schema, len(call.payload))
        served.admit(request.rows, len(call.payload), now_us)
        return served, Waiting(call, request, arm, now_us)

    def _dispatch(self, served: Served, group: list[Waiting]) -> None:
        for batch in _cut(group, MAX_RUN_ROWS):
            if served.is_inline(sum(each.rows for each in batch)):
                self.run(served, batch)
            else:
                self._hand_over(served, batch)

    def _hand_over(self, served: Served, batch: list[Waiting]) -> None:
        runner = served.runner_for(lambda some: self.run(served, some), MAX_RUN_ROWS)
        if runner is None or not runner.submit(batch):
            # Swapped out between routing and here: the version is still loaded, so it answers.
            self.run(served, batch)

    def run(self, served: Served, batch: list[Waiting]) -> None:
        """Runs and answers a batch of one version; raises nothing."""
        # Rows of one block share arm and context columns.
        batch.sort(key=_block_key)
        try:
            ran = self._ran(served, batch)
        except Exception as error:
            if len(batch) > 1:
                self._run_apart(served, batch)
            else:
                self._refuse(served, batch[0], self._named(served, error))
            return
        if ran is not None:
            self._keep(served, batch, ran)

    def _run_apart(self, served: Served, batch: list[Waiting]) -> None:
        """One request that the model can't digest must not take the others with it."""
        for each in list(batch):
            self.run(served, [each])

    def _named(self, served: Served, error: Exception) -> Exception:
        if isinstance(error, InferenceError):
            return error
        self.log("model_failed", error)
        return ModelFailed(
            f"model {served.schema.model_name!r} version {served.schema.version} failed on this "
            f"input ({type(error).__name__})"
        )

    def _ran(self, served: Served, batch: list[Waiting]) -> "_Ran | None":
        """What the model made of the batch; requests with bad values are refused and taken out."""
        arrays = self._fit_arrays(served, batch)
        if arrays is None:
            return None
        schema = served.schema
        started_ns = time.monotonic_ns()
        with self.trace(schema, len(arrays[0])) as traceparent:
            outputs = served.model.run(arrays)
            _require_rows(outputs, len(arrays[0]))
            scores, decisions = judge(schema.signature, outputs[schema.score_index])
        ran_ns = time.monotonic_ns() - started_ns
        self._count(batch, len(scores), ran_ns / 1e9)
        served.tally.add(len(batch), len(scores), ran_ns, self.clock.now_us())
        return _Ran(Answered(arrays, outputs, scores, decisions), started_ns, traceparent)

    def _fit_arrays(self, served: Served, batch: list[Waiting]) -> list[Array] | None:
        while batch:
            requests = [each.request for each in batch]
            arrays = gather(served.schema, requests)
            bad = {each.index: each.reason for each in unfit(served.schema, requests, arrays)}
            if not bad:
                return arrays
            for index, reason in bad.items():
                self._refuse(served, batch[index], InvalidInput(reason))
            batch[:] = [each for index, each in enumerate(batch) if index not in bad]
        return None

    def _keep(self, served: Served, batch: list[Waiting], ran: "_Ran") -> None:
        with self.book.unchanged() as promised_us:
            self._keep_groups(served, batch, ran, promised_us)
        self.book.commit()

    def _keep_groups(
        self, served: Served, batch: list[Waiting], ran: "_Ran", promised_us: int | None
    ) -> None:
        first = 0

        def placed_by(each: Waiting) -> tuple[bool, BlockKey]:
            return _is_late(each, promised_us), _block_key(each)

        for (is_late, key), group in groupby(batch, placed_by):
            if is_late:
                first += self._refuse_late(served, list(group), promised_us)
                continue
            slices = _Slices(self, served, list(group), ran, first)
            sizes = _sizes(served.schema, slices.group, ran.answered.outputs, first)
            try:
                self.book.keep((served, *key), sizes, slices.write)
            except Exception as error:
                for each in slices.group[slices.taken :]:
                    self._refuse(served, each, error)
            first += sum(each.rows for each in sizes)

    def _refuse_late(self, served: Served, group: list[Waiting], promised_us: int | None) -> int:
        """Rows that were in hand when the caller promised that none so early follows."""
        for each in group:
            error = InvalidInput(
                f"model {served.schema.model_name!r}, input {EVENT_TIME_INPUT!r}: expected no time "
                f"before {promised_us} us, the watermark that was set in the meantime"
            )
            self._refuse(served, each, error)
        return sum(each.rows for each in group)

    def _count(self, batch: list[Waiting], rows: int, seconds: float) -> None:
        counts = self.counts
        counts.runs += 1
        counts.requests += len(batch)
        counts.rows += rows
        counts.batch_rows_max = max(counts.batch_rows_max, rows)
        counts.run_seconds += seconds

    def _refuse(self, served: Served, waiting: Waiting, error: Exception) -> None:
        served.tally.refused += 1
        served.release(waiting.rows, len(waiting.call.payload), waiting.arrived_at_us)
        self._fail(waiting.call, error)

    def _fail(self, call: Call, error: Exception) -> None:
        if isinstance(error, InferenceError):
            self.counts.refused += 1
        else:
            self.counts.failed += 1
            self.log("call_failed", error)
        call.fail(error)


def _require_rows(outputs: Sequence[Array], rows: int) -> None:
    """A model that does not answer row by row would give some callers the answers of others."""
    for each in outputs:
        if each.shape[:1] != (rows,):
            raise ValueError(f"expected an output of {rows} rows, got shape {each.shape}")


def _check_block_bytes(request: CheckedRequest, schema: Schema, payload_bytes: int) -> None:
    """A request's rows stay together in one record, and the broker takes none beyond a limit."""
    expected = _expected_bytes(schema, request.rows, payload_bytes)
    if expected > MAX_BLOCK_BYTES:
        raise TooLarge(
            f"model {schema.model_name!r}: expected a request whose record has at most "
            f"{MAX_BLOCK_BYTES} bytes, got {request.rows} rows that make about {expected}; "
            "send fewer rows at once"
        )


def _expected_bytes(schema: Schema, rows: int, payload_bytes: int) -> int:
    """What a request takes in a block, without the text of its outputs."""
    inputs = max(payload_bytes, rows * schema.input_row_bytes)
    return inputs + rows * (ROW_OVERHEAD_BYTES + schema.output_row_bytes)


def _sizes(
    schema: Schema, group: Sequence[Waiting], outputs: Sequence[Array], first: int
) -> list[Size]:
    """What each request takes in a block; the group's rows begin at ``first`` of the run."""
    texts = [each for each in outputs if each.dtype == object]
    sizes = []
    for each in group:
        rows = each.rows
        expected = _expected_bytes(schema, rows, len(each.call.payload))
        expected += sum(_text_bytes(values[first : first + rows]) for values in texts)
        sizes.append(Size(rows, expected))
        first += rows
    return sizes


def _text_bytes(values: Array) -> int:
    return sum(len(str(each).encode(errors="replace")) for each in values.ravel())


def _cut(group: list[Waiting], max_rows: int) -> list[list[Waiting]]:
    batches: list[list[Waiting]] = [[]]
    rows = 0
    for each in group:
        if batches[-1] and rows + each.rows > max_rows:
            batches.append([])
            rows = 0
        batches[-1].append(each)
        rows += each.rows
    return batches


BlockKey = tuple[int, tuple[tuple[str, str], ...]]


def _block_key(waiting: Waiting) -> BlockKey:
    return waiting.arm, waiting.request.context_schema


def _is_late(waiting: Waiting, promised_us: int | None) -> bool:
    packed = waiting.request.event_times
    if promised_us is None or packed is None:
        return False
    return int(np.frombuffer(packed, "<i8").min()) < promised_us


@dataclass(frozen=True, slots=True)
class _Ran:
    """One run of a model."""

    answered: Answered
    started_ns: int
    traceparent: str


class _Slices:
    """Turns placed rows of a run into a journal record, and into answers once that is kept."""

    def __init__(
        self, engine: Engine, served: Served, group: list[Waiting], ran: _Ran, first: int
    ) -> None:
        """``group``: requests of one arm and one set of context columns, whose rows begin at
        ``first`` of the run."""
        self.group = group
        # How many of the group's requests have gone into the journal's hands.
        self.taken = 0
        self._engine = engine
        self._served = served
        self._arm, self._names = _block_key(group[0])
        self._ran = ran
        self._first = first
        self._answers = Answers(
            served.schema,
            self._arm,
            ran.answered.outputs,
            rows=len(ran.answered.scores),
            durability=engine.rules.durability,
        )

    def write(self, placed: Placed) -> tuple[bytes, Done]:
        """The record's payload, and what to do when it is kept or lost."""
        some = self.group[placed.first : placed.after]
        first = self._first
        rows = slice(first, first + placed.row_count)
        message = self._message(some, rows, placed.block_id)
        if len(message) > MAX_BLOCK_BYTES:
            raise TooLarge(
                f"model {self._served.schema.model_name!r}: expected a record of at most "
                f"{MAX_BLOCK_BYTES} bytes, got {len(message)}; send fewer rows at once"
            )
        record = RowsRecord(
            placed.block_id, placed.first_row, placed.row_count, self._ran.traceparent, message
        )
        done = self._done(some, first, placed)
        self._first = rows.stop
        self.taken = placed.after
        return pack_rows(record), done

    def _message(self, some: list[Waiting], rows: slice, block_id: bytes) -> bytes:
        schema, answered = self._served.schema, self._ran.answered
        inputs, outputs = columns_of(schema, answered, rows)
        counts = [each.rows for each in some]
        now_ns = time.monotonic_ns()
        latencies = np.array([(now_ns - each.call.received_ns) / 1e9 for each in some], "<f4")
        return PredictionBlock(
            model_name=schema.model_name,
            version=schema.version,
            arm=self._arm,  # type: ignore[arg-type]
            task=schema.task,  # type: ignore[arg-type]
            schema_fingerprint=schema.fingerprint,
            block_id=block_id,
            row_count=rows.stop - rows.start,
            inputs=inputs,
            outputs=outputs,
            contexts=context_columns(self._names, [each.request.contexts for each in some]),
            event_times_us=self._event_times(some),
            client_keys=self._client_keys(some),
            scores=answered.scores[rows].astype("<f8").tobytes(),
            decisions=answered.decisions[rows].astype("<f8").tobytes(),
            latencies_seconds=np.repeat(latencies, counts).tobytes(),
        ).SerializeToString()

    def _event_times(self, some: list[Waiting]) -> bytes:
        # A replay may run ahead of the clock.
        earliest_us = self._engine.book.promised_us or 0
        packed = b"".join(
            each.request.event_times
            or max(each.arrived_at_us, earliest_us).to_bytes(8, "little") * each.rows
            for each in some
        )
        newest = int(np.frombuffer(packed, "<i8").max())
        self._engine.see(newest, some[-1].arrived_at_us)
        return packed

    def _client_keys(self, some: list[Waiting]) -> bytes:
        if not any(each.request.client_ids for each in some):
            return b""
        ids: list[str] = []
        for each in some:
            ids.extend(each.request.client_ids or [""] * each.rows)
        return client_keys(self._engine.rules.client_key_secret, ids)

    def _done(self, some: list[Waiting], first: int, placed: Placed) -> Done:
        answers = []
        row = placed.first_row
        for each in some:
            queue_us = max(0, (self._ran.started_ns - each.call.received_ns) // 1000)
            answers.append(
                self._answers.write(
                    each.request, first, block_id=placed.block_id, row=row, queue_us=queue_us
                )
            )
            first += each.rows
            row += each.rows
        served, engine = self._served, self._engine

        def done(error: Exception | None) -> None:
            for each, answer in zip(some, answers, strict=True):
                served.release(each.rows, len(each.call.payload), each.arrived_at_us)
                if error is None:
                    each.call.respond(answer)
                else:
                    engine._fail(each.call, error)

        return done
