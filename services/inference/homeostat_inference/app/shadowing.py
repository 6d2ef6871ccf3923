"""Shadows: which answered blocks are due, what a shadow makes of one, and how far that has come."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from homeostat.columns import pack, unpack
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, ARM_FALLBACK, ARM_SHADOW, Column
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import new_block_id
from homeostat.schema import judge
from homeostat_inference.app.assembly import Assembler, Mark, Sealed
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.whole import Whole
from homeostat_inference.domain.blocks import timestamp
from homeostat_inference.domain.errors import InvalidInput
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array

# Whose rows a shadow repeats: those that the model's clients were answered with.
SHADOWED_ARMS = frozenset({ARM_CHAMPION, ARM_FALLBACK})
_STAMP_BYTES, _RANDOM_BYTES = 6, 10


def shadow_block_id(origin: bytes, version: int) -> bytes:
    """The id of what a version makes of a block: the same however often it is made, and as old."""
    digest = hashlib.blake2b(origin, digest_size=_RANDOM_BYTES, key=version.to_bytes(8, "big"))
    return new_block_id(int.from_bytes(origin[:_STAMP_BYTES], "big"), digest.digest())


def inputs_of(schema: Schema, block: PredictionBlock) -> list[Array]:
    """What the model was given that made the block, as this version's arrays; InvalidInput if this
    version takes something else, ValueError if a column is damaged."""
    return [array for array, _ in _inputs(schema, block)]


def _inputs(schema: Schema, block: PredictionBlock) -> Iterator[tuple[Array, Column]]:
    given = {each.name: each for each in block.inputs}
    for tensor in schema.inputs:
        column = given.get(tensor.name)
        width = (column.width or 1) if column is not None else 0
        if column is None or (column.datatype, width) != (tensor.datatype, tensor.width):
            got = "none" if column is None else f"{width} {column.datatype} per row"
            raise InvalidInput(
                f"model {schema.model_name!r} version {schema.version}, input {tensor.name!r}: "
                f"expected {tensor.width} {tensor.datatype} per row as its champion has, got {got}"
            )
        # Nulls travel as NaN and "", beside the bits that say so.
        values, _ = unpack(column, block.row_count)
        yield values.reshape(tensor.shape), column


def shadow_block(
    schema: Schema,
    origin: PredictionBlock,
    outputs: Sequence[Array],
    *,
    run_seconds: float,
    produced_at_us: int,
) -> PredictionBlock:
    """What a version made of a block, row by row. ValueError if it does not answer row by row."""
    rows = origin.row_count
    for each in outputs:
        if each.shape[:1] != (rows,):
            raise ValueError(f"expected an output of {rows} rows, got shape {each.shape}")
    scores, decisions = judge(schema.signature, outputs[schema.score_index])
    return PredictionBlock(
        model_name=schema.model_name,
        version=schema.version,
        arm=ARM_SHADOW,
        task=schema.task,  # type: ignore[arg-type]
        schema_fingerprint=schema.fingerprint,
        block_id=shadow_block_id(origin.block_id, schema.version),
        row_count=rows,
        inputs=[column for _, column in _inputs(schema, origin)],
        outputs=[
            pack(tensor.name, values)
            for tensor, values in zip(schema.outputs, outputs, strict=True)
        ],
        contexts=origin.contexts,
        event_times_us=origin.event_times_us,
        client_keys=origin.client_keys,
        scores=scores.astype("<f8").tobytes(),
        decisions=decisions.astype("<f8").tobytes(),
        latencies_seconds=np.full(rows, run_seconds, "<f4").tobytes(),
        produced_at=timestamp(produced_at_us),
        origin_block_id=origin.block_id,
    )


def due_versions(plan: ServingPlan, block: PredictionBlock) -> tuple[int, ...]:
    """Which versions repeat the block's rows."""
    model = plan.models.get(block.model_name)
    if model is None or block.arm not in SHADOWED_ARMS:
        return ()
    return tuple(each for each in model.shadows if each != block.version)


class Recorded(Protocol):
    """A journal record, as it is read."""

    @property
    def position(self) -> int:
        """Where it stands."""

    @property
    def kind(self) -> int:
        """What it holds."""

    @property
    def payload(self) -> bytes:
        """What stands in it."""


@dataclass(frozen=True, slots=True)
class Due:
    """A block that some version is to repeat."""

    # Whoever reads on from here misses nothing of it.
    floor: int
    block: PredictionBlock
    size_bytes: int
    traceparent: str

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return int(self.block.row_count)


@dataclass(frozen=True, slots=True)
class _Passed:
    floor: int
    mark: Mark


@dataclass(slots=True)
class Tail:
    """Follows one journal. What is due and the journal's promises are taken in its order."""

    slot: str
    # Where to read on.
    next: int
    # Everything earlier than this is done, and nothing earlier follows; None: nothing was promised.
    promised_us: int | None = None
    _assembler: Assembler = field(default_factory=Assembler)
    _waiting: deque[Due | _Passed] = field(default_factory=deque)
    rows: int = 0
    bytes: int = 0

    @property
    def floor(self) -> int:
        """Everything before is done: whoever begins anew begins here."""
        if self._waiting:
            return self._waiting[0].floor
        needed = self._assembler.needed_from
        return self.next if needed is None else min(needed, self.next)

    def feed(
        self,
        records: Iterable[Recorded],
        after: int,
        is_due: Callable[[PredictionBlock], bool],
        on_damage: Callable[[Exception], None],
    ) -> None:
        """Takes records that were read up to ``after``."""
        for record in records:
            needed = self._assembler.needed_from
            floor = record.position if needed is None else min(needed, record.position)
            try:
                made = self._assembler.feed(record.position, record.kind, record.payload)
                for each in made:
                    self._take(each, floor, is_due)
            except Exception as error:
                # Damage that its checksum missed, or a record of a later make.
                on_damage(error)
        self.next = after

    def _take(self, made: object, floor: int, is_due: Callable[[PredictionBlock], bool]) -> None:
        if isinstance(made, Mark):
            self._waiting.append(_Passed(floor, made))
        elif isinstance(made, Sealed | Whole):
            block = made.block()
            if is_due(block):
                due = Due(floor, block, block.ByteSize(), made.traceparent)
                self._waiting.append(due)
                self.rows += due.rows
                self.bytes += due.size_bytes

    def pass_mark(self) -> Mark | None:
        """The promise whose turn it is, if it is one's; it counts from now on."""
        head = self._waiting[0] if self._waiting else None
        if not isinstance(head, _Passed):
            return None
        self._waiting.popleft()
        self.promise(head.mark.mark_us)
        return head.mark

    def promise(self, mark_us: int) -> None:
        """Nothing earlier is due any longer."""
        if self.promised_us is None or mark_us > self.promised_us:
            self.promised_us = mark_us

    @property
    def first(self) -> Due | None:
        """The block whose turn it is."""
        head = self._waiting[0] if self._waiting else None
        return head if isinstance(head, Due) else None

    @property
    def is_empty(self) -> bool:
        """Nothing of what was read waits."""
        return not self._waiting

    def drop_first(self) -> None:
        """The block is done, or given up."""
        due = self._waiting.popleft()
        if isinstance(due, Due):
            self.rows -= due.rows
            self.bytes -= due.size_bytes


@dataclass(frozen=True, slots=True)
class Lag:
    """How far shadows may be behind; what is older is given up, so that the server's promises
    about time don't wait for them any longer."""

    us: int = 5_000_000
    rows: int = 100_000
    bytes: int = 64 * 1024 * 1024

    def is_over(self, tails: Sequence[Tail], first: Due, now_us: int) -> bool:
        """Whether this block, the first of one of the tails, is to be given up."""
        age_us = now_us - first.block.produced_at.ToMicroseconds()
        return age_us > self.us or self.is_full(tails)

    def is_full(self, tails: Sequence[Tail]) -> bool:
        """More waits than may."""
        rows, size = sum(each.rows for each in tails), sum(each.bytes for each in tails)
        return rows > self.rows or size > self.bytes


def least_promise(tails: Iterable[Tail]) -> int | None:
    """What all of them promise; None if one of them, or none, has promised anything."""
    promised = [each.promised_us for each in tails]
    known = [each for each in promised if each is not None]
    return min(known) if known and len(known) == len(promised) else None
