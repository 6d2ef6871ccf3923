"""Whether another form of a model says the same: decisions row by row, and how scores differ."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat import schema
from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.registry.v1.registry_pb2 import Signature

# What the registry's gate asks for, whatever a user tolerates.
LEAST_SHARE = 0.999
LEAST_ROWS = 500
# A regression's answer counts as equal within this share of the answers' own standard deviation.
_VALUE_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What still counts as the same."""

    # Of the rows, this share must be decided alike.
    share: float = LEAST_SHARE
    # No score may differ by more (classification: probabilities).
    score_difference: float = 0.02
    # Regression: values that differ by more are not equal. None: see `value_tolerance`.
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Equality:
    """How alike two forms are on the rows that both were given."""

    row_count: int
    equal_count: int
    # Over rows that are finite in both; infinite where a row is finite in one alone.
    max_score_difference: float
    # 0 for classification.
    value_tolerance: float

    @property
    def share(self) -> float:
        """Equal rows; 0 where there are none."""
        return self.equal_count / self.row_count if self.row_count else 0.0


def value_tolerance(signature: Signature, original: NDArray[Any], told: float | None) -> float:
    """What a regression's answers may differ by: as told, or a hundredth of their deviation."""
    if signature.task != TASK_REGRESSION:
        return 0.0
    if told is not None:
        return told
    finite = _table(original)[:, 0]
    finite = finite[np.isfinite(finite)]
    return float(_VALUE_SHARE * finite.std()) if len(finite) else 0.0


def compare(
    signature: Signature, original: NDArray[Any], other: NDArray[Any], tolerance: Tolerance
) -> Equality:
    """The two forms' score outputs for the same rows; ValueError where the shapes differ."""
    one, two = _table(original), _table(other)
    if one.shape != two.shape:
        raise ValueError(f"answers of the shape {list(two.shape)} instead of {list(one.shape)}")
    allowed = value_tolerance(signature, original, tolerance.value)
    if not len(one):
        return Equality(0, 0, 0.0, allowed)
    differences = _differences(one, two)
    if signature.task == TASK_REGRESSION:
        equal = differences <= allowed
    else:
        # A row without a finite score has no decision to compare; only the same lack is the same.
        decided = [schema.judge(signature, each)[1] for each in (original, other)]
        equal = (decided[0] == decided[1]) & np.isfinite(differences)
    return Equality(len(one), int(equal.sum()), float(differences.max()), allowed)


def why_not(equality: Equality, signature: Signature, tolerance: Tolerance) -> str:
    """One sentence why the form is not equivalent; empty where it is."""
    if equality.share < tolerance.share:
        what = "within tolerance" if signature.task == TASK_REGRESSION else "decided alike"
        return (
            f"{equality.equal_count:,} of {equality.row_count:,} rows are {what}, "
            f"{tolerance.share:.2%} are asked for"
        )
    if (
        signature.task != TASK_REGRESSION
        and equality.max_score_difference > tolerance.score_difference
    ):
        return (
            f"a score differs by {equality.max_score_difference:.3g}, "
            f"{tolerance.score_difference:g} is allowed"
        )
    if not np.isfinite(equality.max_score_difference):
        return "a row is finite in one form and not in the other"
    return ""


def _table(output: NDArray[Any]) -> NDArray[np.float64]:
    rows = len(output)
    return np.asarray(output, dtype=np.float64).reshape(rows, -1) if rows else np.empty((0, 1))


def _differences(one: NDArray[np.float64], two: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per row the largest; 0 where both lack the same numbers, infinite where one alone does."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - two)
    same = (one == two) | (np.isnan(one) & np.isnan(two))
    apart = np.where(same, 0.0, apart)
    largest: NDArray[np.float64] = np.where(np.isnan(apart), np.inf, apart).max(axis=1)
    return largest
