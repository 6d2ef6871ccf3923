"""Which row was it: input rows as bytes, and a short name for each that two processes agree on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from homeostat.columns import DTYPES
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array

_DIGEST_BYTES = 16
_END = "\0"


@dataclass(frozen=True, slots=True)
class Part:
    """What one input puts into a row: so many bytes, or so many texts."""

    row_bytes: int
    texts: int


Layout = tuple[Part, ...]


def layout_of(schema: Schema) -> Layout:
    """How a version's rows lie in packed bytes: input by input, each with all its rows."""
    return tuple(
        Part(0, each.width)
        if each.datatype == "BYTES"
        else Part(each.width * DTYPES[each.datatype].itemsize, 0)
        for each in schema.inputs
    )


def packed(layout: Layout, arrays: Sequence[Array]) -> bytes:
    """All values, input by input."""
    if not any(each.texts for each in layout):
        try:
            return b"".join(arrays)  # type: ignore[arg-type]
        except (BufferError, ValueError):
            # An array whose rows do not lie one behind the other.
            pass
    return b"".join(
        _texts(array) if part.texts else np.ascontiguousarray(array).tobytes()
        for part, array in zip(layout, arrays, strict=True)
    )


def _texts(values: Array) -> bytes:
    return "".join(
        str(each).replace(_END, "\N{REPLACEMENT CHARACTER}") + _END for each in values.ravel()
    ).encode(errors="replace")


def fingerprints(layout: Layout, rows: int, data: bytes) -> list[str]:
    """One name (hex) per row; nothing if ``data`` is not what `packed` made of so many rows."""
    columns: list[list[bytes]] = []
    at = 0
    for part in layout:
        column, at = (
            _text_column(part, rows, data, at) if part.texts else _column(part, rows, data, at)
        )
        if len(column) != rows:
            return []
        columns.append(column)
    return [
        hashlib.blake2b(b"".join(row), digest_size=_DIGEST_BYTES).hexdigest()
        for row in zip(*columns, strict=True)
    ]


def _column(part: Part, rows: int, data: bytes, at: int) -> tuple[list[bytes], int]:
    size = part.row_bytes
    end = at + rows * size
    if end > len(data):
        return [], at
    return [data[first : first + size] for first in range(at, end, size)], end


def _text_column(part: Part, rows: int, data: bytes, at: int) -> tuple[list[bytes], int]:
    column = []
    for _ in range(rows):
        first = at
        for _ in range(part.texts):
            at = data.find(b"\0", at) + 1
            if at == 0:
                return [], first
        column.append(data[first:at])
    return column, at
