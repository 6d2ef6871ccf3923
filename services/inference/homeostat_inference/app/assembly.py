"""Journal records back into what goes on the topics."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from homeostat.events.v1.column_pb2 import Column
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.records import (
    ColumnsReader,
    RowsRecord,
    client_keys,
    fixed_columns,
    unpack_mark,
    unpack_rows,
    unpack_seal,
)
from homeostat_inference.app.whole import Whole, unpack_whole
from homeostat_inference.domain.blocks import filled, row_bytes, timestamp
from homeostat_inference.domain.tensors import Packed

# Of a row's time, score, decision and latency.
_FRONT_BYTES = (8, 8, 8, 4)


@dataclass(frozen=True, slots=True)
class Sealed:
    """A block that is whole."""

    block_id: bytes
    sealed_at_us: int
    traceparent: str
    slices: list[RowsRecord]

    def block(self) -> PredictionBlock:
        """All its rows, as one message; ValueError, struct.error or DecodeError if its records are
        damaged in a way that their checksums missed."""
        outline = PredictionBlock.FromString(self.slices[0].outline)
        slices = self.slices
        columns = [*outline.inputs, *outline.outputs, *outline.contexts]
        if any(each.datatype == "BYTES" for each in columns):
            times, scores, decisions, latencies, *parts = _read(slices, columns)
        else:
            sizes = [*_FRONT_BYTES, *[row_bytes(each) for each in columns]]
            times, scores, decisions, latencies, *fixed = fixed_columns(slices, sizes)
            parts = [[each] for each in fixed]
        outputs_at = len(outline.inputs)
        contexts_at = outputs_at + len(outline.outputs)
        made = [filled(each, part) for each, part in zip(columns, parts, strict=True)]
        has_keys = any(each.has_client_keys for each in slices)
        return PredictionBlock(
            model_name=outline.model_name,
            version=outline.version,
            arm=outline.arm,
            task=outline.task,
            schema_fingerprint=outline.schema_fingerprint,
            block_id=self.block_id,
            row_count=sum([each.row_count for each in slices]),
            client_keys=b"".join([client_keys(each) for each in slices]) if has_keys else b"",
            event_times_us=times,
            scores=scores,
            decisions=decisions,
            latencies_seconds=latencies,
            inputs=made[:outputs_at],
            outputs=made[outputs_at:contexts_at],
            contexts=made[contexts_at:],
            produced_at=timestamp(self.sealed_at_us),
        )


def _read(slices: Sequence[RowsRecord], columns: Sequence[Column]) -> list[Any]:
    """Columns among which are texts: what is in front joined, the columns slice by slice."""
    readers = [ColumnsReader.of(each) for each in slices]
    front = [b"".join([each.numbers(size) for each in readers]) for size in _FRONT_BYTES]
    return [*front, *[[_values(column, reader) for reader in readers] for column in columns]]


def _values(column: Column, reader: ColumnsReader) -> Packed:
    if column.datatype == "BYTES":
        return reader.texts(column.width)
    return bytes(reader.numbers(row_bytes(column)))


@dataclass(frozen=True, slots=True)
class Mark:
    """A promise, which goes out after everything before it was acknowledged."""

    mark_us: int
    # Made by the caller: it is passed on even if a later one is known already.
    is_callers: bool


@dataclass(frozen=True, slots=True)
class Event:
    """A record that is a message as it stands."""

    kind: Kind
    message: bytes


Assembled = Sealed | Whole | Mark | Event


@dataclass(slots=True)
class _Gathering:
    position: int
    rows: int = 0
    slices: list[RowsRecord] = field(default_factory=list)


class Assembler:
    """Fed with records in order, gives what they complete.

    It may begin anywhere: of a block whose first rows it has not seen it gives nothing, since
    whoever chose the beginning had that block acknowledged.
    """

    def __init__(self) -> None:
        self._gathering: dict[bytes, _Gathering] = {}

    @property
    def needed_from(self) -> int | None:
        """The position of the oldest record that is not complete yet; None if there is none."""
        return min((each.position for each in self._gathering.values()), default=None)

    @property
    def open_block_ids(self) -> list[bytes]:
        """Blocks that have rows and no end."""
        return list(self._gathering)

    def feed(self, position: int, kind: int, payload: bytes) -> list[Assembled]:
        """What this record completes; ValueError if it is of no kind that we know."""
        if kind == Kind.ROWS:
            self._add(position, unpack_rows(payload))
            return []
        if kind == Kind.SEAL:
            return self._seal(*unpack_seal(payload))
        if kind == Kind.BEGIN:
            return self.end_open(unpack_mark(payload))
        if kind in (Kind.CLOCK_MARK, Kind.CALLER_MARK):
            return [Mark(unpack_mark(payload), kind == Kind.CALLER_MARK)]
        if kind == Kind.BLOCK:
            return [unpack_whole(payload)]
        return [Event(Kind(kind), payload)]

    def end_open(self, sealed_at_us: int) -> list[Assembled]:
        """Ends the blocks that are open: their writer is gone, and nothing follows."""
        return [made for each in list(self._gathering) for made in self._seal(each, sealed_at_us)]

    def _add(self, position: int, rows: RowsRecord) -> None:
        if rows.first_row == 0:
            self._gathering[rows.block_id] = _Gathering(position)
        block = self._gathering.get(rows.block_id)
        if block is not None and rows.first_row == block.rows:
            block.slices.append(rows)
            block.rows += rows.row_count

    def _seal(self, block_id: bytes, sealed_at_us: int) -> list[Assembled]:
        block = self._gathering.pop(block_id, None)
        if block is None or not block.slices:
            return []
        return [Sealed(block_id, sealed_at_us, block.slices[0].traceparent, block.slices)]
