"""Prediction blocks: an outline of what their rows have in common, and the rows under it."""

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.columns import DTYPES, datatype_of, pack
from homeostat.events.v1.column_pb2 import Column
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_inference.domain.batches import present
from homeostat_inference.domain.requests import ContextSchema
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array, Packed, join

# In an outline's columns, in the place of validity: nulls may be among the values.
_NULLABLE = b"\x01"


class Answered(NamedTuple):
    """What the model made of a batch, row by row, in the batch's order."""

    inputs: Sequence[Array]
    outputs: Sequence[Array]
    scores: Array
    decisions: Array


def outline(
    schema: Schema, arm: int, outputs: Sequence[Array], contexts: ContextSchema
) -> PredictionBlock:
    """A block without rows: who answered, and what its columns are."""
    return PredictionBlock(
        model_name=schema.model_name,
        version=schema.version,
        arm=arm,  # type: ignore[arg-type]
        task=schema.task,  # type: ignore[arg-type]
        schema_fingerprint=schema.fingerprint,
        inputs=[
            Column(
                name=each.name,
                datatype=each.datatype,
                width=each.width,
                validity=_NULLABLE if each.is_nullable else b"",
            )
            for each in schema.inputs
        ],
        outputs=[
            Column(name=each.name, datatype=datatype_of(values), width=_width(values))
            for each, values in zip(schema.outputs, outputs, strict=True)
        ],
        contexts=[
            Column(name=name, datatype=datatype, width=1, validity=_NULLABLE)
            for name, datatype in contexts
        ],
    )


def _width(values: Array) -> int:
    return values.size // len(values) if len(values) else 1


def row_bytes(column: Column) -> int:
    """Bytes of one row of an outline's column of numbers."""
    return int(DTYPES[column.datatype].itemsize * column.width)


def filled(column: Column, parts: Sequence[Packed]) -> Column:
    """An outline's column with the values of all its rows, one part behind another."""
    width = column.width
    if column.datatype != "BYTES" and not column.validity:
        joined = b"".join(each for each in parts if isinstance(each, bytes))
        return Column(name=column.name, datatype=column.datatype, values=joined, width=width)
    values = join(column.datatype, parts)
    shaped = values if width == 1 else values.reshape(-1, width)
    return pack(column.name, shaped, present(shaped) if column.validity else None)


def timestamp(at_us: int) -> Timestamp:
    """A message's time from microseconds."""
    return Timestamp(seconds=at_us // 1_000_000, nanos=at_us % 1_000_000 * 1_000)
