"""Packed columns of blocks, to and from numpy."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import Column

Values = NDArray[Any]
Valid = NDArray[np.bool_]

# Open Inference Protocol datatypes; BYTES is strings here and travels as codes into a dictionary.
DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "BOOL": np.dtype("?"),
        "INT8": np.dtype("i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "UINT8": np.dtype("u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "FP16": np.dtype("<f2"),
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_CODES = np.dtype("<i4")


def datatype_of(values: Values) -> str:
    """The protocol's name for an array's type; TypeError where it has none."""
    if values.dtype == object or values.dtype.kind in "US":
        return "BYTES"
    name = _NAMES.get(values.dtype.newbyteorder("<"))
    if name is None:
        raise TypeError(f"no protocol datatype for numpy {values.dtype}")
    return name


def pack(name: str, values: Values, valid: Valid | None = None) -> Column:
    """A column of ``values``, shape (rows,) or (rows, width); None, NaN and "" are nulls of the
    nullable kinds only where ``valid`` says so. Strings become codes into a dictionary."""
    rows = len(values)
    width = values.size // rows if rows else 1
    datatype = datatype_of(values)
    dictionary: list[str] = []
    if datatype == "BYTES":
        codes, dictionary = encode_strings(values.reshape(-1))
        packed = codes.tobytes()
    else:
        packed = np.ascontiguousarray(values, dtype=DTYPES[datatype]).tobytes()
    return Column(
        name=name,
        datatype=datatype,
        values=packed,
        validity=b"" if valid is None or valid.all() else pack_validity(valid),
        dictionary=dictionary,
        width=width,
    )


def unpack(column: Column, rows: int) -> tuple[Values, Valid]:
    """Values, shape (rows,) or (rows, width), strings as an object array, and which rows are
    present; ValueError where lengths, codes or datatype do not fit."""
    width = column.width or 1
    valid = unpack_validity(column.validity, rows, column.name)
    shape = (rows,) if width == 1 else (rows, width)
    if column.datatype == "BYTES":
        codes, dictionary = unpack_codes(column, rows)
        return dictionary[codes].reshape(shape), valid
    dtype = DTYPES.get(column.datatype)
    if dtype is None:
        raise ValueError(f"column {column.name!r} has unknown datatype {column.datatype!r}")
    if len(column.values) != rows * width * dtype.itemsize:
        raise ValueError(
            f"column {column.name!r} has {len(column.values)} bytes, expected "
            f"{rows * width * dtype.itemsize} for {rows} x {width} {column.datatype}"
        )
    return np.frombuffer(column.values, dtype=dtype).reshape(shape), valid


def unpack_codes(column: Column, rows: int) -> tuple[NDArray[np.int32], NDArray[np.object_]]:
    """Codes and dictionary of a BYTES column; ValueError where a code is outside."""
    count = rows * (column.width or 1)
    if len(column.values) != count * _CODES.itemsize:
        raise ValueError(
            f"column {column.name!r} has {len(column.values)} bytes of codes, expected "
            f"{count * _CODES.itemsize}"
        )
    codes = np.frombuffer(column.values, dtype=_CODES)
    dictionary = np.empty(len(column.dictionary), dtype=object)
    dictionary[:] = column.dictionary
    if count and (codes.min() < 0 or codes.max() >= len(dictionary)):
        raise ValueError(f"column {column.name!r} has a code outside its dictionary")
    return codes, dictionary


def encode_strings(values: Values) -> tuple[NDArray[np.int32], list[str]]:
    """Codes by first use, and the dictionary; None counts as ""."""
    index: dict[str, int] = {}
    codes = np.fromiter(
        (index.setdefault("" if value is None else str(value), len(index)) for value in values),
        dtype=_CODES,
        count=len(values),
    )
    return codes, list(index)


def pack_validity(valid: Valid) -> bytes:
    """One bit per row, least significant first."""
    return np.packbits(valid, bitorder="little").tobytes()


def unpack_validity(packed: bytes, rows: int, name: str = "") -> Valid:
    """Which rows are present; empty bytes mean all."""
    if not packed:
        return np.ones(rows, dtype=bool)
    if len(packed) != (rows + 7) // 8:
        raise ValueError(f"column {name!r} has {len(packed)} validity bytes for {rows} rows")
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=rows, bitorder="little")
    return bits.astype(bool)


def nulls_of(values: Values) -> Valid:
    """Which rows are null by the protocol's convention: NaN in floats, "" or None in strings."""
    if values.dtype == object:
        return np.fromiter((not value for value in values), dtype=bool, count=len(values))
    if values.dtype.kind == "f":
        return np.isnan(values)
    return np.zeros(len(values), dtype=bool)
