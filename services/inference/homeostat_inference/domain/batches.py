"""Values of many requests side by side: which of them no model can be given, and which are null."""

from collections.abc import Sequence

import numpy as np

from homeostat.columns import Valid
from homeostat_inference.domain.parts import Item, Part
from homeostat_inference.domain.schema import Schema, Tensor
from homeostat_inference.domain.tensors import Array


def unfit(
    schema: Schema, parts: Sequence[Part[Item]], arrays: Sequence[Array]
) -> dict[int, dict[int, str]]:
    """Requests with infinities, or with NaN in an input that is not nullable, and why: by part and
    by the request's place in it; usually none. ``arrays``: the rows of all parts, per input."""
    found: dict[int, dict[int, str]] = {}
    for tensor, values in zip(schema.inputs, arrays, strict=True):
        if values.dtype.kind != "f":
            continue
        good = np.isfinite(values)
        if good.all():
            continue
        bad = np.isinf(values) if tensor.is_nullable else ~good
        for row in np.flatnonzero(bad.reshape(len(values), -1).any(axis=1)):
            at, index, first = _owner(parts, int(row))
            worst = values[row].reshape(-1)[bad[row].reshape(-1)][0]
            reason = _reason(schema, tensor, float(worst), int(row) - first)
            found.setdefault(at, {}).setdefault(index, reason)
    for at, part in enumerate(parts):
        if not part.context_schema:
            continue
        for index, name in _bad_contexts(part):
            reason = f"context {name!r}: expected finite numbers or NaN for null, got infinity"
            found.setdefault(at, {}).setdefault(index, f"model {schema.model_name!r}, {reason}")
    return found


def _owner(parts: Sequence[Part[Item]], row: int) -> tuple[int, int, int]:
    """Part, request in it, and the request's first row."""
    first = 0
    for at, part in enumerate(parts):
        if row < first + part.rows:
            index = (row - first) // part.each
            return at, index, first + index * part.each
        first += part.rows
    raise IndexError(row)


def _bad_contexts(part: Part[Item]) -> list[tuple[int, str]]:
    found = []
    for (name, _), values in zip(part.context_schema, part.contexts, strict=True):
        if values.dtype.kind == "f" and np.isinf(values).any():
            rows = np.flatnonzero(np.isinf(values))
            found += [(int(index), name) for index in np.unique(rows // part.each)]
    return found


def _reason(schema: Schema, tensor: Tensor, worst: float, row: int) -> str:
    expected = "a finite number or NaN for null" if tensor.is_nullable else "a finite number"
    hint = "" if tensor.is_nullable else " (the signature does not declare this input nullable)"
    return (
        f"model {schema.model_name!r} version {schema.version}, input {tensor.name!r}, row {row}: "
        f"expected {expected}, got {worst}{hint}"
    )


def present(values: Array) -> Valid:
    """Which rows are not null: NaN in floats and "" in strings are, where all of a row's are."""
    rows = values.reshape(len(values), -1)
    is_present: Valid = np.ones(rows.shape, dtype=bool)
    if values.dtype == object:
        is_present = np.not_equal(rows, "").astype(bool)
    elif values.dtype.kind == "f":
        is_present = np.asarray(~np.isnan(rows), dtype=bool)
    return np.asarray(is_present.any(axis=1), dtype=bool)
