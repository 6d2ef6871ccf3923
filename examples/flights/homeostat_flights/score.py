"""How good the answers were: accuracy, and AUC as the mean over weeks, on the same rows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
WEEK_US = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Week:
    """One week of the loop beside the first model on the same rows; fractions."""

    from_us: int
    rows: int
    accuracy_loop: float
    accuracy_never: float
    auc_loop: float
    auc_never: float


@dataclass(frozen=True, slots=True)
class Scores:
    """The whole run; AUC is the mean over weeks that have both classes."""

    weeks: Sequence[Week]
    accuracy_loop: float
    accuracy_never: float
    auc_loop: float
    auc_never: float


def auc(truths: Floats, scores: Floats) -> float:
    """Area under the ROC curve by ranks, ties counted half (Hanley and McNeil 1982); NaN with one
    class only."""
    positives = int(truths.sum())
    negatives = len(truths) - positives
    if not positives or not negatives:
        return float("nan")
    _, index, counts = np.unique(scores, return_inverse=True, return_counts=True)
    upper = np.cumsum(counts)
    mean_rank = upper - (counts - 1) / 2
    rank_sum = float(mean_rank[index][truths == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def score(times_us: NDArray[np.int64], truths: Floats, loop: Floats, never: Floats) -> Scores:
    """``loop`` and ``never`` are probabilities of being late, one per row; decided at one half."""
    week_of = (times_us - times_us.min()) // WEEK_US
    right_loop, right_never = (loop >= 0.5) == truths, (never >= 0.5) == truths
    weeks = [
        Week(
            int(times_us.min() + number * WEEK_US),
            int(mask.sum()),
            float(right_loop[mask].mean()),
            float(right_never[mask].mean()),
            auc(truths[mask], loop[mask]),
            auc(truths[mask], never[mask]),
        )
        for number in np.unique(week_of)
        for mask in [week_of == number]
    ]
    return Scores(
        weeks,
        float(right_loop.mean()),
        float(right_never.mean()),
        float(np.nanmean([week.auc_loop for week in weeks])),
        float(np.nanmean([week.auc_never for week in weeks])),
    )
