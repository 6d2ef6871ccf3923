"""How much wider a metric's interval is where neighbouring rows resemble each other.

Every metric is, to first order, a mean over rows of what each row does to it (its influence
function). Means of blocks of rows vary more than those of independent rows would by as much as the
rows hang together (batch means: Schmeiser, Batch size effects in the analysis of simulation output,
Operations Research 1982).
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.residuals import raw_residuals
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.performance import intervals
from homeostat_monitor.domain.performance.figures import Figure, raw_costs

Floats = NDArray[np.float64]

# The shortest blocks, and how many of them there are at the least.
_BLOCK = 8
_FEWEST_BLOCKS = 8
# Chance alone has block means vary more than that once in some forty.
_SURELY = 2.0
# Within what a metric lies by its nature.
_SHARES = frozenset({"accuracy", "auc", "precision", "recall", "f1", "brier"})
_SIGNED = frozenset({"bias", "r2"})


def widening(values: Floats) -> float:
    """By how much an interval of the mean of these values, in their order, is wider than one of
    independent values; 1 unless they surely hang together."""
    variance = float(values.var()) if len(values) else 0.0
    if variance <= 0.0:
        return 1.0
    most, size = 1.0, _BLOCK
    while (blocks := len(values) // size) >= _FEWEST_BLOCKS:
        means = values[: blocks * size].reshape(blocks, size).mean(axis=1)
        ratio = float(means.var(ddof=1)) * size / variance
        if ratio > 1.0 + _SURELY * math.sqrt(2.0 / (blocks - 1)):
            most = max(most, math.sqrt(ratio) * _of_few(blocks - 1))
        size *= 2
    return most


def widened(figure: Figure, by: float, *, is_share: bool) -> Figure:
    """The figure with its interval so many times as wide; ``is_share``: the loss is one."""
    name, value, low, high = figure
    low, high = value - by * (value - low), value + by * (high - value)
    if name in _SHARES or (is_share and name == "loss"):
        return name, value, max(low, 0.0), min(high, 1.0)
    if name == "r2":
        return name, value, low, min(high, 1.0)
    return name, value, low if name in _SIGNED else max(low, 0.0), high


def widenings(rows: Truths, task: Task) -> dict[str, float]:
    """Of every metric of the task; rows in the order in which they became known."""
    return {name: widening(values) for name, values in _influences(rows, task)}


def _influences(rows: Truths, task: Task) -> Iterator[tuple[str, Floats]]:
    error = raw_residuals(rows, task)
    yield "bias", error
    if task is Task.REGRESSION:
        square, off = np.square(error), np.square(rows.truths - rows.truths.mean())
        yield "mae", np.abs(error)
        yield "rmse", square
        yield "loss", square
        yield "r2", square - off * float(square.mean()) / max(float(off.mean()), 1e-300)
        return
    right = (rows.decisions == rows.truths).astype(np.float64)
    yield "accuracy", right
    yield "loss", right
    yield "log_loss", raw_costs(rows, task)
    if task is Task.BINARY:
        said, true = rows.decisions == 1.0, rows.truths == 1.0
        yield "brier", np.square(error)
        yield "precision", right[said]
        yield "recall", right[true]
        yield "f1", right[said | true]
        yield "auc", _of_auc(rows.scores, true)


def _of_auc(scores: Floats, true: NDArray[np.bool_]) -> Floats:
    """Of a positive the share of negatives below it, of a negative that of positives above."""
    if not 0 < true.sum() < len(true):
        return np.zeros(0)
    found = np.empty(len(scores))
    for mine in (true, ~true):
        others = np.sort(scores[~mine])
        at = [np.searchsorted(others, scores[mine], side) for side in ("left", "right")]
        below = (at[0] + at[1]) / (2 * len(others))
        beyond = below if mine is true else 1 - below
        found[mine] = (beyond - beyond.mean()) / mine.mean()
    return found


def _of_few(freedom: int) -> float:
    """Student's quantile over the normal one."""
    from scipy.special import stdtrit  # noqa: PLC0415 - scipy takes a second to import

    return float(stdtrit(freedom, 0.975)) / intervals.Z
