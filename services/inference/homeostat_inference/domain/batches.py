"""Rows of many requests side by side: what one run of the model takes and gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from homeostat.columns import Valid
from homeostat_inference.domain.requests import CheckedRequest
from homeostat_inference.domain.schema import Schema, Tensor
from homeostat_inference.domain.tensors import Array, join


@dataclass(frozen=True, slots=True)
class Unfit:
    """A request whose values can't be given to the model, and why."""

    index: int
    reason: str


def gather(schema: Schema, requests: Sequence[CheckedRequest]) -> list[Array]:
    """One array per input, in the signature's shape, the requests' rows one after the other."""
    return [
        join(tensor.datatype, [each.columns[at] for each in requests]).reshape(tensor.shape)
        for at, tensor in enumerate(schema.inputs)
    ]


def unfit(schema: Schema, requests: Sequence[CheckedRequest], arrays: list[Array]) -> list[Unfit]:
    """Requests with infinities, or with NaN in an input that is not nullable; usually none."""
    found: dict[int, Unfit] = {}
    for tensor, values in zip(schema.inputs, arrays, strict=True):
        if values.dtype.kind != "f":
            continue
        bad = np.isinf(values) if tensor.is_nullable else ~np.isfinite(values)
        if not bad.any():
            continue
        for row in np.flatnonzero(bad.reshape(len(values), -1).any(axis=1)):
            index, first = _owner(requests, int(row))
            worst = values[row].reshape(-1)[bad[row].reshape(-1)][0]
            reason = _reason(schema, tensor, float(worst), int(row) - first)
            found.setdefault(index, Unfit(index, reason))
    for index, request in enumerate(requests):
        reason = _bad_context(request)
        if reason:
            found.setdefault(index, Unfit(index, f"model {schema.model_name!r}, {reason}"))
    return [found[index] for index in sorted(found)]


def _owner(requests: Sequence[CheckedRequest], row: int) -> tuple[int, int]:
    first = 0
    for index, request in enumerate(requests):
        if row < first + request.rows:
            return index, first
        first += request.rows
    raise IndexError(row)


def _reason(schema: Schema, tensor: Tensor, worst: float, row: int) -> str:
    expected = "a finite number or NaN for null" if tensor.is_nullable else "a finite number"
    hint = "" if tensor.is_nullable else " (the signature does not declare this input nullable)"
    return (
        f"model {schema.model_name!r} version {schema.version}, input {tensor.name!r}, row {row}: "
        f"expected {expected}, got {worst}{hint}"
    )


def _bad_context(request: CheckedRequest) -> str:
    for (name, datatype), packed in zip(request.context_schema, request.contexts, strict=True):
        if datatype.startswith("FP") and np.isinf(join(datatype, [packed])).any():
            return f"context {name!r}: expected finite numbers or NaN for null, got infinity"
    return ""


def present(values: Array) -> Valid:
    """Which rows are not null: NaN in floats and "" in strings are, where all of a row's are."""
    rows = values.reshape(len(values), -1)
    is_present: Valid = np.ones(rows.shape, dtype=bool)
    if values.dtype == object:
        is_present = np.not_equal(rows, "").astype(bool)
    elif values.dtype.kind == "f":
        is_present = np.asarray(~np.isnan(rows), dtype=bool)
    return np.asarray(is_present.any(axis=1), dtype=bool)
