"""Open Inference Protocol tensors to and from packed bytes, strings and arrays."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.columns import DTYPES
from homeostat.inference.v2.open_inference_pb2 import InferTensorContents
from homeostat_inference.domain.errors import InvalidInput

Array = NDArray[Any]
# Fixed-width values packed little-endian, or decoded strings.
Packed = bytes | list[str]

# Where typed contents stand; FP16 has no field of its own and travels raw only.
CONTENTS_FIELD: Mapping[str, str] = MappingProxyType(
    {
        "BOOL": "bool_contents",
        "INT8": "int_contents",
        "INT16": "int_contents",
        "INT32": "int_contents",
        "INT64": "int64_contents",
        "UINT8": "uint_contents",
        "UINT16": "uint_contents",
        "UINT32": "uint_contents",
        "UINT64": "uint64_contents",
        "FP32": "fp32_contents",
        "FP64": "fp64_contents",
        "BYTES": "bytes_contents",
    }
)
_LENGTH_BYTES = 4
_FIELD_DTYPES = MappingProxyType({"int_contents": np.dtype("i4"), "uint_contents": np.dtype("u4")})


def read_raw(datatype: str, raw: bytes, count: int, where: str) -> Packed:
    """``count`` values of a raw tensor; InvalidInput, ``where`` in front, if they don't fit."""
    if datatype == "BYTES":
        return _split_strings(raw, count, where)
    expected = count * DTYPES[datatype].itemsize
    if len(raw) != expected:
        raise InvalidInput(
            f"{where}: expected {expected} bytes of raw contents for {count} {datatype} values, "
            f"got {len(raw)}"
        )
    if datatype == "BOOL" and raw and max(raw) > 1:
        raise InvalidInput(f"{where}: expected BOOL bytes 0 or 1, got {max(raw)}")
    return raw


def _split_strings(raw: bytes, count: int, where: str) -> list[str]:
    found: list[str] = []
    at, end = 0, len(raw)
    for _ in range(count):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(raw[at:start], "little")
        if at > end or start > end:
            raise InvalidInput(
                f"{where}: expected {count} length-prefixed strings, "
                f"got {len(found)} whole ones in {end} bytes"
            )
        found.append(_text(raw[start:at], where))
    if at != end:
        raise InvalidInput(
            f"{where}: expected {count} length-prefixed strings, got {end - at} bytes behind them"
        )
    return found


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{where}: expected UTF-8, got byte {data[error.start]:#04x} at {error.start}"
        ) from None


def read_typed(datatype: str, contents: InferTensorContents, count: int, where: str) -> Packed:
    """``count`` values of a tensor with typed contents, packed as raw ones would be."""
    field = CONTENTS_FIELD.get(datatype)
    if field is None:
        raise InvalidInput(f"{where}: {datatype} has no typed contents; send it raw")
    values = getattr(contents, field)
    if len(values) != count:
        raise InvalidInput(f"{where}: expected {count} values in {field}, got {len(values)}")
    if datatype == "BYTES":
        return [_text(each, where) for each in values]
    return _pack(datatype, values, where)


def _pack(datatype: str, values: Sequence[Any], where: str) -> bytes:
    dtype = DTYPES[datatype]
    # The field's own width: numpy's guess for mixed large integers would be a float.
    wide = np.array(values, dtype=_FIELD_DTYPES.get(CONTENTS_FIELD[datatype], dtype))
    if dtype.kind in "iu" and len(wide):
        bounds = np.iinfo(dtype)
        if wide.min() < bounds.min or wide.max() > bounds.max:
            raise InvalidInput(
                f"{where}: expected {datatype} between {bounds.min} and {bounds.max}, "
                f"got values from {wide.min()} to {wide.max()}"
            )
    return wide.astype(dtype).tobytes()


def join(datatype: str, parts: Sequence[Packed]) -> Array:
    """One flat array of many requests' values; strings as an object array of str."""
    if datatype == "BYTES":
        texts: list[str] = []
        for part in parts:
            texts.extend(part)  # type: ignore[arg-type]
        values = np.empty(len(texts), dtype=object)
        values[:] = texts
        return values
    packed = parts[0] if len(parts) == 1 else b"".join(parts)  # type: ignore[arg-type]
    return np.frombuffer(packed, dtype=DTYPES[datatype])  # type: ignore[arg-type]


def raw_of(values: Array) -> bytes:
    """An array as raw output contents; strings get their length in front."""
    if values.dtype != object:
        return values.tobytes()
    parts: list[bytes] = []
    for value in values.reshape(-1):
        encoded = str(value).encode()
        parts.append(len(encoded).to_bytes(_LENGTH_BYTES, "little"))
        parts.append(encoded)
    return b"".join(parts)


def fill(contents: InferTensorContents, datatype: str, values: Array) -> None:
    """Puts an array into typed contents."""
    flat = values.reshape(-1)
    if datatype == "BYTES":
        contents.bytes_contents.extend(str(each).encode() for each in flat)
        return
    getattr(contents, CONTENTS_FIELD[datatype]).extend(flat.tolist())
