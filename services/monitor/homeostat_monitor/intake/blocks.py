"""Blocks of the topics to columns of numbers, for all blocks of a poll at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from homeostat.columns import DTYPES, unpack_validity
from homeostat.events.v1.column_pb2 import (
    ARM_CANARY,
    ARM_CHAMPION,
    ARM_FALLBACK,
    ARM_PINNED,
    Column,
)
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import BLOCK_ID_BYTES
from homeostat_monitor.app.taking import TakenRows
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import UnreadableBlock
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.sums import Rows
from homeostat_monitor.ports import ID_BYTES, BlockOfLosses

# Shadow rows repeat the champion's, and history was never served.
JUDGED_ARMS = frozenset({ARM_CHAMPION, ARM_CANARY, ARM_PINNED, ARM_FALLBACK})
_CODES = np.dtype("<i4")
# What the database can hold; names and numbers beyond are nobody's.
_MOST_NAME = 255
_MOST_VERSION = 2**31 - 1
# What a protobuf Timestamp can hold, with room for a window around the first and the last row.
_EARLIEST_US = -62_104_060_800_000_000
_LATEST_US = 253_370_764_800_000_000
# Before a context's name in a segment's expression.
_CONTEXT = "context."


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One scalar input of the signature, by its place there."""

    place: int
    name: str
    datatype: str

    @property
    def value_bytes(self) -> int:
        return _CODES.itemsize if self.datatype == "BYTES" else DTYPES[self.datatype].itemsize


@dataclass(frozen=True, slots=True)
class Schema:
    """What the blocks of a version must look like."""

    fingerprint: str
    input_count: int
    # Those that are judged: scalars.
    inputs: tuple[InputSpec, ...]


@dataclass(slots=True)
class _Gathered:
    """One input's bytes over all blocks."""

    values: list[bytes] = field(default_factory=list)
    dictionary: list[str] = field(default_factory=list)
    dictionary_sizes: list[int] = field(default_factory=list)
    nulls: dict[int, NDArray[np.bool_]] = field(default_factory=dict)


def subject_of(model_name: str, version: int) -> Subject:
    """Whom a message is about; UnreadableBlock for what can be no model's name or version."""
    if not model_name or len(model_name) > _MOST_NAME or "\0" in model_name:
        raise UnreadableBlock("the model's name is no name")
    if version > _MOST_VERSION:
        raise UnreadableBlock("the version is no version")
    return Subject(model_name, version)


def check_time(at_us: int) -> int:
    """The same time; UnreadableBlock for one outside of the years 2 to 9998."""
    if not _EARLIEST_US <= at_us < _LATEST_US:
        raise UnreadableBlock("a time is beyond the ages")
    return at_us


def check(block: PredictionBlock, schema: Schema) -> None:
    """UnreadableBlock where lengths or columns do not fit the row count or the signature."""
    rows = block.row_count
    if len(block.block_id) != BLOCK_ID_BYTES:
        raise UnreadableBlock(f"the block id has {len(block.block_id)} bytes")
    if len(block.event_times_us) != 8 * rows or len(block.scores) != 8 * rows:
        raise UnreadableBlock("event times or scores do not fit the row count")
    _check_times(block.event_times_us)
    if block.schema_fingerprint != schema.fingerprint or len(block.inputs) != schema.input_count:
        raise UnreadableBlock("the inputs are not those of the version's signature")
    inputs = block.inputs
    for spec in schema.inputs:
        _check_column(inputs[spec.place], spec, rows)


def _check_times(packed: bytes) -> None:
    times = np.frombuffer(packed, dtype="<i8")
    check_time(int(times.max(initial=0)))
    check_time(int(times.min(initial=0)))


def _check_column(column: Column, spec: InputSpec, rows: int) -> None:
    if column.datatype != spec.datatype or column.name != spec.name:
        raise UnreadableBlock(f"input {spec.place} is not {spec.name} of {spec.datatype}")
    if len(column.values) != rows * spec.value_bytes:
        raise UnreadableBlock(f"values of {spec.name} do not fit the row count")
    if column.validity and len(column.validity) != (rows + 7) // 8:
        raise UnreadableBlock(f"validity bits of {spec.name} do not fit the row count")
    if spec.datatype == "BYTES":
        codes = np.frombuffer(column.values, dtype=_CODES)
        if codes.min(initial=0) < 0 or codes.max(initial=0) >= max(len(column.dictionary), 1):
            raise UnreadableBlock(f"a code of {spec.name} is outside of its dictionary")


def taken_rows(
    subject: Subject,
    profile: VersionProfile | None,
    schema: Schema,
    blocks: Sequence[tuple[int, PredictionBlock]],
) -> TakenRows:
    """All rows of checked blocks of one version; each block comes with its partition."""
    sizes = np.fromiter((block.row_count for _, block in blocks), dtype=np.intp, count=len(blocks))
    partitions = np.fromiter((each for each, _ in blocks), dtype=np.int32, count=len(blocks))
    total = int(sizes.sum())
    columns: Sequence[ColumnValues] = ()
    if profile is not None:
        columns = _columns(schema, [block for _, block in blocks], sizes)
    scores = np.frombuffer(b"".join(block.scores for _, block in blocks), dtype="<f8")
    event_times = np.frombuffer(b"".join(block.event_times_us for _, block in blocks), dtype="<i8")
    return TakenRows(
        subject=subject,
        profile=profile,
        block_ids=[block.block_id for _, block in blocks],
        block_of=np.repeat(np.arange(len(blocks)), sizes),
        partitions=np.repeat(partitions, sizes),
        event_times_us=event_times,
        rows=Rows(np.zeros(total, dtype=np.intp), 1, columns, scores),
        segments={} if profile is None else _segments(profile, schema, columns, blocks, sizes),
    )


def _segments(
    profile: VersionProfile,
    schema: Schema,
    columns: Sequence[ColumnValues],
    blocks: Sequence[tuple[int, PredictionBlock]],
    sizes: NDArray[np.intp],
) -> dict[str, NDArray[np.bool_]]:
    """Which rows belong to which segments of the policy, by inputs and contexts."""
    if not profile.expressions:
        return {}
    known: dict[str, ColumnValues] = {
        spec.name: each for spec, each in zip(schema.inputs, columns, strict=True)
    }
    wanted = {
        name.removeprefix(_CONTEXT)
        for expression in profile.expressions.values()
        for name in expression.names
        if name not in known
    }
    for name in sorted(wanted):
        found = context_column(name, [block for _, block in blocks], sizes)
        if found is not None:
            known[_CONTEXT + name] = found
            known.setdefault(name, found)
    total = int(sizes.sum())
    return {name: each.mask(known, total) for name, each in profile.expressions.items()}


def context_column(
    name: str, blocks: Sequence[PredictionBlock], sizes: NDArray[np.intp]
) -> ColumnValues | None:
    """A context over all blocks, null where a block has none that fits; None: nobody has it."""
    found = [next((each for each in block.contexts if each.name == name), None) for block in blocks]
    datatype = next((each.datatype for each in found if each is not None), None)
    if datatype is None or (datatype != "BYTES" and datatype not in DTYPES):
        return None
    spec = InputSpec(0, name, datatype)
    gathered = _Gathered()
    for number, (column, rows) in enumerate(zip(found, sizes.tolist(), strict=True)):
        if column is None or not _fits(column, spec, rows):
            gathered.values.append(bytes(rows * spec.value_bytes))
            gathered.nulls[number] = np.ones(rows, dtype=bool)
            if datatype == "BYTES":
                gathered.dictionary_sizes.append(0)
            continue
        gathered.values.append(column.values)
        if datatype == "BYTES":
            gathered.dictionary.extend(column.dictionary)
            gathered.dictionary_sizes.append(len(column.dictionary))
        if column.validity:
            gathered.nulls[number] = ~unpack_validity(column.validity, rows)
    return _column(spec, gathered, sizes)


def _fits(column: Column, spec: InputSpec, rows: int) -> bool:
    try:
        _check_column(column, spec, rows)
    except UnreadableBlock:
        return False
    return True


def _columns(
    schema: Schema, blocks: Sequence[PredictionBlock], sizes: NDArray[np.intp]
) -> tuple[ColumnValues, ...]:
    gathered = [_Gathered() for _ in schema.inputs]
    for number, block in enumerate(blocks):
        inputs = block.inputs
        for spec, into in zip(schema.inputs, gathered, strict=True):
            column = inputs[spec.place]
            into.values.append(column.values)
            if spec.datatype == "BYTES":
                into.dictionary.extend(column.dictionary)
                into.dictionary_sizes.append(len(column.dictionary))
            if column.validity:
                into.nulls[number] = ~unpack_validity(column.validity, block.row_count)
    return tuple(
        _column(spec, each, sizes) for spec, each in zip(schema.inputs, gathered, strict=True)
    )


def _column(spec: InputSpec, gathered: _Gathered, sizes: NDArray[np.intp]) -> ColumnValues:
    nulls = _nulls(gathered.nulls, sizes)
    data = b"".join(gathered.values)
    if spec.datatype != "BYTES":
        return NumberColumn(np.frombuffer(data, dtype=DTYPES[spec.datatype]), nulls)
    lengths = np.array(gathered.dictionary_sizes)
    offsets = np.repeat(np.cumsum(lengths) - lengths, sizes).astype(np.int32)
    codes = np.frombuffer(data, dtype=_CODES) + offsets
    if not lengths.all():
        # A block without a dictionary has only nulls; its codes may point past the end.
        gathered.dictionary.append("")
    return CategoryColumn(codes, gathered.dictionary, nulls)


def _nulls(
    by_block: dict[int, NDArray[np.bool_]], sizes: NDArray[np.intp]
) -> NDArray[np.bool_] | None:
    if not by_block:
        return None
    nulls = np.zeros(int(sizes.sum()), dtype=bool)
    ends = np.cumsum(sizes)
    for number, each in by_block.items():
        nulls[ends[number] - sizes[number] : ends[number]] = each
    return nulls


def first_truths(block: JoinedBlock, event_id: bytes) -> tuple[BlockOfLosses, int, int]:
    """First truths of a joined block, and how many rows were corrections or not finite.

    UnreadableBlock where its columns do not fit the row count.
    """
    rows = block.row_count
    said = (block.scores, block.decisions, block.truths)
    columns = (block.known_at_us, block.event_times_us, block.losses, *said)
    if any(len(each) != 8 * rows for each in columns):
        raise UnreadableBlock("times, losses, scores or truths do not fit the row count")
    if len(block.prediction_ids) != ID_BYTES * rows or len(block.revisions) != 4 * rows:
        raise UnreadableBlock("prediction ids or revisions do not fit the row count")
    _check_times(block.event_times_us)
    _check_times(block.known_at_us)
    losses = np.frombuffer(block.losses, dtype="<f8")
    is_first = np.frombuffer(block.revisions, dtype="<u4") <= 1
    is_finite = np.isfinite(losses)
    whole = BlockOfLosses(
        Subject(block.model_name, block.version),
        event_id,
        np.frombuffer(block.known_at_us, dtype="<i8"),
        np.frombuffer(block.event_times_us, dtype="<i8"),
        losses,
        np.frombuffer(block.prediction_ids, dtype=f"S{ID_BYTES}"),
        np.frombuffer(b"".join(said), dtype="<f8").reshape(3, rows),
    )
    corrections = int((~is_first).sum())
    return whole.only(is_first & is_finite), corrections, int((is_first & ~is_finite).sum())


def is_judged(arm: int) -> bool:
    """Whether rows of this arm say something about the version in service."""
    return arm in JUDGED_ARMS


def schema_of(fingerprint: str, inputs: Iterable[tuple[str, str, Sequence[int]]]) -> Schema:
    """From a signature's inputs: name, datatype, shape with the batch dimension first."""
    listed = list(inputs)
    scalars = tuple(
        InputSpec(place, name, datatype)
        for place, (name, datatype, shape) in enumerate(listed)
        if len(shape) <= 1 or all(size == 1 for size in shape[1:])
    )
    return Schema(fingerprint, len(listed), scalars)
