"""Whole arrays into tables by COPY: the binary format is built by numpy, not row by row."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_kit.postgres import Connection

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
# Postgres' types by numpy's: the wire is big-endian. Unsigned words travel as signed ones.
_WIRE = {"i8": ">i8", "u8": ">i8", "i4": ">i4", "u4": ">i8", "i2": ">i2", "f8": ">f8", "b1": "u1"}


async def copy_in(connection: Connection, table: str, columns: Mapping[str, NDArray[Any]]) -> None:
    """Adds one row per element; all columns have one length."""
    rows = len(next(iter(columns.values())))
    if rows:
        await connection.copy_to_table(
            table,
            source=io.BytesIO(packed(columns)),
            columns=list(columns),
            format="binary",
        )


def packed(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """The body of a binary COPY."""
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for position, values in enumerate(columns.values()):
        fields += [(f"l{position}", ">i4"), (f"v{position}", _WIRE[values.dtype.str[1:]])]
    layout = np.dtype(fields)
    rows = np.empty(len(next(iter(columns.values()))), dtype=layout)
    rows["fields"] = len(columns)
    for position, values in enumerate(columns.values()):
        kind = layout[f"v{position}"]
        rows[f"l{position}"] = kind.itemsize
        signed = values.view("i8") if values.dtype.str[1:] == "u8" else values
        rows[f"v{position}"] = signed
    return _HEADER + rows.tobytes() + _TRAILER


async def copy_out(
    connection: Connection, query: str, columns: Mapping[str, str]
) -> NDArray[np.void]:
    """The rows of a query without nulls; ``columns`` are names and numpy types in its order."""
    body = io.BytesIO()
    await connection.copy_from_query(query, output=body, format="binary")
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for name, kind in columns.items():
        fields += [(f"length of {name}", ">i4"), (name, _WIRE[kind])]
    layout = np.dtype(fields)
    count = (body.getbuffer().nbytes - len(_HEADER) - len(_TRAILER)) // layout.itemsize
    rows = np.frombuffer(body.getbuffer(), dtype=layout, count=count, offset=len(_HEADER))
    plain = np.empty(count, dtype=[(name, kind) for name, kind in columns.items()])
    for name, kind in columns.items():
        wide = rows[name].astype("i8") if kind == "u8" else rows[name]
        plain[name] = wide.view("u8") if kind == "u8" else wide
    return plain


def signed(words: NDArray[Any]) -> list[int]:
    """Unsigned 64-bit words as Postgres' bigint has them."""
    numbers: list[int] = np.ascontiguousarray(words, dtype="u8").view("i8").tolist()
    return numbers


def unsigned(numbers: list[int]) -> NDArray[np.uint64]:
    """The way back."""
    return np.array(numbers, dtype="i8").view("u8")
