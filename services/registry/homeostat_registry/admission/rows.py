"""Rows made up for a trial: ordinary ones, with nulls and never-seen strings, and extreme ones."""

from typing import Any

import numpy as np

DTYPES = {
    "BOOL": np.bool_, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
_STRINGS = ("a", "B", "never seen before", "7", "-1.5", "é ü", "2013-01-01")
_NULL_SHARE = 0.25
# Small, so that models that look categories up by number find them.
_LARGEST_INTEGER = 4


def ordinary(inputs: list[dict[str, Any]], rows: int, seed: int = 7) -> dict[str, Any]:
    """Arrays by input name; nullable inputs have nulls, the first row has none."""
    rng = np.random.default_rng(seed)
    return {each["name"]: _column(each, rows, rng) for each in inputs}


def _column(tensor: dict[str, Any], rows: int, rng: Any) -> Any:
    shape = (rows, *tensor["shape"][1:])
    datatype = tensor["datatype"]
    if datatype == "BYTES":
        values = rng.choice(np.array(_STRINGS, dtype=object), shape)
    elif datatype == "BOOL":
        values = rng.integers(0, 2, shape).astype(np.bool_)
    elif datatype.startswith("FP"):
        scale = rng.choice([1.0, 30.0], shape)
        values = (rng.normal(size=shape) * scale).astype(DTYPES[datatype])
    else:
        values = rng.integers(0, _LARGEST_INTEGER, shape).astype(DTYPES[datatype])
    if tensor["is_nullable"]:
        missing = rng.random(shape) < _NULL_SHARE
        missing[0] = False
        values[missing] = "" if datatype == "BYTES" else np.nan
    return values


def extreme(inputs: list[dict[str, Any]], rows: int, seed: int = 11) -> dict[str, Any]:
    """What a hostile client could send, in every mixture: none of it may be fatal."""
    rng = np.random.default_rng(seed)
    return {
        each["name"]: rng.choice(_extremes(each["datatype"]), (rows, *each["shape"][1:]))
        for each in inputs
    }


def _extremes(datatype: str) -> Any:
    if datatype == "BYTES":
        return np.array(["", "\0", "x" * 10_000, "-1", "\U0001f600"], dtype=object)
    if datatype == "BOOL":
        return np.array([True, False])
    dtype = DTYPES[datatype]
    if datatype.startswith("FP"):
        largest = np.finfo(dtype).max
        return np.array([-largest, largest, np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-7], dtype)
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    return np.array([least, most, -1 if least else most - 1, 0, 1], dtype)
