"""Intervals of figures, 95 % unless said otherwise, in closed form."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Deviations of a normal variable that hold 95 %.
Z = 1.959963984540054


def wilson(share: float, rows: float) -> tuple[float, float]:
    """Of a share of so many rows (Wilson 1927); honest at 0 and 1 too. Without rows: everything."""
    if rows <= 0:
        return 0.0, 1.0
    square = Z * Z / rows
    centre = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / rows + square / (4 * rows))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def of_mean(rows: float, total: float, squares: float) -> tuple[float, float, float]:
    """Mean of values with that sum and sum of squares, and its interval; it is endless for fewer
    than two rows."""
    mean = total / rows
    if rows < 2:
        return mean, -math.inf, math.inf
    variance = max(squares / rows - mean * mean, 0.0) * rows / (rows - 1)
    half = Z * math.sqrt(variance / rows)
    return mean, mean - half, mean + half


def auc(positives: Floats, negatives: Floats) -> tuple[float, float, float]:
    """Area under the ROC curve from counts per score, scores rising, and its interval (DeLong,
    DeLong, Clarke-Pearson 1988; equal scores count half). NaN where one class is missing."""
    n_pos, n_neg = float(positives.sum()), float(negatives.sum())
    if not n_pos or not n_neg:
        return math.nan, math.nan, math.nan
    # Of each score: the share of negatives below it, of positives above it.
    below = (np.cumsum(negatives) - negatives / 2) / n_neg
    above = 1.0 - (np.cumsum(positives) - positives / 2) / n_pos
    area = float((positives * below).sum() / n_pos)
    spread_pos = float((positives * np.square(below - area)).sum()) / max(n_pos - 1, 1.0)
    spread_neg = float((negatives * np.square(above - area)).sum()) / max(n_neg - 1, 1.0)
    variance = spread_pos / n_pos + spread_neg / n_neg
    if variance <= 0.0:
        # All alike, as a perfect order: no better known than a share of the rarer class.
        return (area, *wilson(area, min(n_pos, n_neg)))
    half = Z * math.sqrt(variance)
    return area, max(area - half, 0.0), min(area + half, 1.0)


def f1(hits: float, misses: float) -> tuple[float, float, float]:
    """F1 of so many true positives against false ones of both kinds. Of all rows that are
    positive by truth or decision it is a growing function of the share of hits, whose interval is
    Wilson's. NaN where there are none."""
    rows = hits + misses
    if not rows:
        return math.nan, math.nan, math.nan
    share = hits / rows
    low, high = wilson(share, rows)
    return 2 * share / (1 + share), 2 * low / (1 + low), 2 * high / (1 + high)
