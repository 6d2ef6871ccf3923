"""Metrics of a task from sums over rows: sums of parts add up, so that they need no rows."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.residuals import raw_residuals
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.performance import intervals

Floats = NDArray[np.float64]
# Name, value, low, high.
Figure = tuple[str, float, float, float]

# A probability of 0 that comes true costs this much of certainty, not everything.
_SUREST = 1e-7
# Scores of all times are counted in so many equal bins from 0 to 1.
SCORE_BINS = 512


@dataclass(frozen=True, slots=True)
class Sums:
    """Over some rows: ``terms`` as ``terms_of`` names them; of a binary task counts of positives
    and negatives per score, scores rising, [2, scores]."""

    terms: Floats
    scores: Floats


def terms_of(rows: Truths, task: Task, centre: float) -> Floats:
    """What is summed of every row, [terms, rows]; the first is 1. ``centre``: any fixed value near
    a regression's truths, so that powers stay exact."""
    ones = np.ones(len(rows))
    error = raw_residuals(rows, task)
    if task is Task.REGRESSION:
        square, off = np.square(error), rows.truths - centre
        powers = [off**each for each in (1, 2, 3, 4)]
        mixed = [square * off, square * off * off]
        parts = [ones, error, square, np.abs(error), np.square(square), *powers, *mixed]
        return np.stack(parts)
    is_right = (rows.decisions == rows.truths).astype(np.float64)
    cost = raw_costs(rows, task)
    brier = np.square(error)
    said = (rows.decisions == 1.0) if task is Task.BINARY else np.zeros(len(rows), dtype=bool)
    true = rows.truths == 1.0
    parts = [ones, is_right, cost, cost * cost, brier, brier * brier, error]
    parts += [said & true, said & ~true, ~said & true]
    return np.stack([np.asarray(each, dtype=np.float64) for each in parts])


def raw_costs(rows: Truths, task: Task) -> Floats:
    """Log-loss of every row of a classification; of several classes that of the decided one."""
    is_right = (rows.decisions == rows.truths).astype(np.float64)
    hit = rows.truths if task is Task.BINARY else is_right
    sure = np.clip(rows.scores, _SUREST, 1.0 - _SUREST)
    cost: Floats = -np.log(np.where(hit > 0, sure, 1.0 - sure))
    return cost


def score_counts(rows: Truths, scores: Floats) -> Floats:
    """Positives and negatives per place of ``scores`` (equal bins of 0..1), [2, bins]."""
    place = np.minimum((rows.scores * len(scores[0])).astype(np.intp), len(scores[0]) - 1)
    is_true = rows.truths == 1.0
    positives = np.bincount(place[is_true], minlength=len(scores[0]))
    negatives = np.bincount(place[~is_true], minlength=len(scores[0]))
    return np.stack([positives, negatives]).astype(np.float64)


def sums_of(rows: Truths, task: Task, centre: float) -> Sums:
    """Over these rows, each score a place of its own."""
    if task is not Task.BINARY:
        return Sums(terms_of(rows, task, centre).sum(axis=1), np.zeros((2, 0)))
    values, place = np.unique(rows.scores, return_inverse=True)
    is_true = rows.truths == 1.0
    counts = [np.bincount(place[each], minlength=len(values)) for each in (is_true, ~is_true)]
    return Sums(terms_of(rows, task, centre).sum(axis=1), np.stack(counts).astype(np.float64))


def figures(sums: Sums, task: Task) -> list[Figure]:
    """Every metric of the task; NaN where it is not defined. None without rows."""
    if not len(sums.terms) or sums.terms[0] < 1:
        return []
    if task is Task.REGRESSION:
        return list(_of_values(sums.terms.tolist()))
    return list(_of_classes(sums, task))


def _of_classes(sums: Sums, task: Task) -> Iterator[Figure]:
    rows, right, cost, costs, brier, briers, error, tp, fp, fn = sums.terms.tolist()
    low, high = intervals.wilson(right / rows, rows)
    yield "accuracy", right / rows, low, high
    yield "loss", 1 - right / rows, 1 - high, 1 - low
    yield "log_loss", *_not_below(0.0, intervals.of_mean(rows, cost, costs))
    yield "bias", *intervals.of_mean(rows, error, brier)
    if task is Task.MULTICLASS:
        return
    yield "auc", *intervals.auc(sums.scores[0], sums.scores[1])
    yield "brier", *_not_below(0.0, intervals.of_mean(rows, brier, briers))
    for name, of in (("precision", tp + fp), ("recall", tp + fn)):
        share = tp / of if of else math.nan
        yield name, share, *(intervals.wilson(share, of) if of else (math.nan, math.nan))
    yield "f1", *intervals.f1(tp, fp + fn)


def _of_values(terms: list[float]) -> Iterator[Figure]:
    rows, error, square, size, fourth, *_ = terms
    yield "mae", *_not_below(0.0, intervals.of_mean(rows, size, square))
    mse, low, high = _of_squares(rows, square, fourth)
    yield "rmse", math.sqrt(mse), math.sqrt(max(low, 0.0)), math.sqrt(high)
    yield "loss", *_not_below(0.0, (mse, low, high))
    yield "bias", *intervals.of_mean(rows, error, square)
    yield "r2", *_r2(terms)


def _of_squares(rows: float, square: float, fourth: float) -> tuple[float, float, float]:
    """Mean of squares; its interval is taken of its logarithm, which leans less."""
    mse, _, high = intervals.of_mean(rows, square, fourth)
    if mse <= 0.0 or not math.isfinite(high):
        return mse, 0.0, high
    times = math.exp((high - mse) / mse)
    return mse, mse / times, mse * times


def _r2(terms: list[float]) -> tuple[float, float, float]:
    """1 less squared error over variance; its interval by its influence function (delta method):
    of a row with error e and distance d from the mean truth, (mse d^2 / v - e^2) / v."""
    rows, _, square, _, fourth, *powers, mixed1, mixed2 = terms
    d1, d2, d3, d4 = (each / rows for each in powers)
    variance = d2 - d1 * d1
    if rows < 3 or variance <= 1e-12 * d2:
        return math.nan, math.nan, math.nan
    mse = square / rows
    # Central moments from those around the centre.
    m4 = d4 - 4 * d1 * d3 + 6 * d1 * d1 * d2 - 3 * d1**4
    e2d2 = (mixed2 - 2 * d1 * mixed1 + d1 * d1 * square) / rows
    ratio = mse / variance
    spread = (ratio * ratio * m4 - 2 * ratio * e2d2 + fourth / rows) / (variance * variance)
    half = intervals.Z * math.sqrt(max(spread, 0.0) / rows)
    return 1 - ratio, 1 - ratio - half, min(1 - ratio + half, 1.0)


def _not_below(least: float, figure: tuple[float, float, float]) -> tuple[float, float, float]:
    value, low, high = figure
    return value, max(low, least), high
