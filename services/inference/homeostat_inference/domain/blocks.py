"""Prediction blocks: slices, as the journal keeps them, and whole ones, as the topic does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.columns import pack, pack_validity, unpack_validity
from homeostat.events.v1.column_pb2 import Column
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import CLIENT_KEY_BYTES
from homeostat_inference.domain.batches import present
from homeostat_inference.domain.requests import ContextSchema
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array, Packed, join


@dataclass(frozen=True, slots=True)
class Answered:
    """What the model made of a batch, row by row, in the batch's order."""

    inputs: Sequence[Array]
    outputs: Sequence[Array]
    scores: Array
    decisions: Array


def columns_of(
    schema: Schema, answered: Answered, rows: slice
) -> tuple[list[Column], list[Column]]:
    """Input and output columns of these rows of a batch."""
    inputs = [
        _nullable(tensor.name, values[rows])
        if tensor.is_nullable
        else pack(tensor.name, values[rows])
        for tensor, values in zip(schema.inputs, answered.inputs, strict=True)
    ]
    outputs = [
        pack(tensor.name, values[rows])
        for tensor, values in zip(schema.outputs, answered.outputs, strict=True)
    ]
    return inputs, outputs


def context_columns(names: ContextSchema, parts: Sequence[Sequence[Packed]]) -> list[Column]:
    """Context columns of some requests; ``parts``: per request, one value list per column."""
    return [
        _nullable(name, join(datatype, [each[at] for each in parts]))
        for at, (name, datatype) in enumerate(names)
    ]


def _nullable(name: str, values: Array) -> Column:
    return pack(name, values, present(values))


def merge(slices: Sequence[PredictionBlock], produced_at_us: int) -> PredictionBlock:
    """One block of all rows of its slices, in order."""
    block = slices[0]
    if len(slices) > 1:
        counts = [each.row_count for each in slices]
        block = PredictionBlock(
            model_name=block.model_name,
            version=block.version,
            arm=block.arm,
            task=block.task,
            schema_fingerprint=block.schema_fingerprint,
            block_id=block.block_id,
            row_count=sum(counts),
            inputs=_columns([each.inputs for each in slices], counts),
            outputs=_columns([each.outputs for each in slices], counts),
            contexts=_columns([each.contexts for each in slices], counts),
            event_times_us=b"".join(each.event_times_us for each in slices),
            client_keys=_keys(slices),
            scores=b"".join(each.scores for each in slices),
            decisions=b"".join(each.decisions for each in slices),
            latencies_seconds=b"".join(each.latencies_seconds for each in slices),
        )
    block.produced_at.CopyFrom(timestamp(produced_at_us))
    return block


def timestamp(at_us: int) -> Timestamp:
    """A message's time from microseconds."""
    return Timestamp(seconds=at_us // 1_000_000, nanos=at_us % 1_000_000 * 1_000)


def _columns(parts: Sequence[Iterable[Column]], counts: Sequence[int]) -> list[Column]:
    return [_column(each, counts) for each in zip(*parts, strict=True)]


def _column(parts: Sequence[Column], counts: Sequence[int]) -> Column:
    first = parts[0]
    values, dictionary = _values(parts)
    return Column(
        name=first.name,
        datatype=first.datatype,
        values=values,
        dictionary=dictionary,
        validity=_validity(parts, counts),
        width=first.width,
    )


def _values(parts: Sequence[Column]) -> tuple[bytes, list[str]]:
    if parts[0].datatype != "BYTES":
        return b"".join(each.values for each in parts), []
    joined: dict[str, int] = {}
    codes = []
    for part in parts:
        table = np.array(
            [joined.setdefault(each, len(joined)) for each in part.dictionary], dtype="<i4"
        )
        codes.append(table[np.frombuffer(part.values, dtype="<i4")].tobytes())
    return b"".join(codes), list(joined)


def _validity(parts: Sequence[Column], counts: Sequence[int]) -> bytes:
    if not any(each.validity for each in parts):
        return b""
    return pack_validity(
        np.concatenate(
            [unpack_validity(each.validity, rows) for each, rows in zip(parts, counts, strict=True)]
        )
    )


def _keys(slices: Sequence[PredictionBlock]) -> bytes:
    if not any(each.client_keys for each in slices):
        return b""
    return b"".join(each.client_keys or bytes(CLIENT_KEY_BYTES * each.row_count) for each in slices)
