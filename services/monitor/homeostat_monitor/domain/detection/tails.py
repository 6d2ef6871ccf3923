"""How likely chance alone makes as much of it: logarithms of p-values, for arrays.

All compare a window with a finite reference that is itself a sample, so nothing here takes the
reference's rates for the truth. Bounds err towards too large a p-value.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Small ones are looked up.
_TABLE = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, 16_384)))])
_HALF_LOG_TAU = 0.5 * np.log(2 * np.pi)


def log_factorial(values: Floats) -> Floats:
    """Natural logarithm of values!, whole numbers from 0, to 1e-9: Stirling's series."""
    top = len(_TABLE) - 1
    small = _TABLE[np.minimum(values, top).astype(np.intp)]
    if values.max(initial=0.0) <= top:
        return small
    large = np.maximum(values, top)
    stirling = (large + 0.5) * np.log(large) - large + _HALF_LOG_TAU + 1 / (12 * large)
    found: Floats = np.where(values <= top, small, stirling)
    return found


def log_tail(k: Floats, m: Floats, r: Floats, n: Floats, more: NDArray[np.bool_]) -> Floats:
    """At least (``more``) or at most k of m window rows where r of n reference rows are of a kind,
    given r + k in all.

    Fisher's exact test, one-sided, bounded by a geometric series over the first term (the terms
    fall faster than that), so never below the exact p-value. Valid too for a kind whose borders
    are order statistics of the reference.
    """
    up = (m - k) * r / ((k + 1) * (n - r + 1))
    down = k * (n - r) / ((m - k + 1) * (r + 1))
    ratio = np.where(more, up, down)
    in_tail = ratio < 1
    first = _log_hypergeometric(k, m, r, n) - np.log1p(-np.where(in_tail, ratio, 0.0))
    found: Floats = np.where(in_tail, np.minimum(first, 0.0), 0.0)
    return found


def _log_hypergeometric(k: Floats, m: Floats, r: Floats, n: Floats) -> Floats:
    rest_m, rest_n = m - k, n - r
    logs = log_factorial(np.stack([m, n, k + r, rest_m + rest_n, k, rest_m, r, rest_n, m + n]))
    found: Floats = logs[:4].sum(axis=0) - logs[4:].sum(axis=0)
    return found


def log_chi2(statistic: Floats, freedom: Floats) -> Floats:
    """Chernoff's bound of the tail of a chi-squared variable; 0 up to its mean."""
    k = np.maximum(freedom, 1.0)
    ratio = np.maximum(statistic / k, 1.0)
    found: Floats = (k / 2) * (1 - ratio + np.log(ratio))
    return found


def log_mean(deviation: Floats, variance: Floats, m: Floats, skew: Floats, kurt: Floats) -> Floats:
    """Two-sided, of a sum of m rows that deviates so much where its variance is ``variance``.

    The normal tail's bound with the first two terms of the cumulants' expansion, taken only where
    they make the tail heavier. ``skew`` and ``kurt`` (excess) are those of one row.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        z2 = np.where(variance > 0, deviation * deviation / variance, 0.0)
    z = np.sqrt(z2)
    rows = np.maximum(m, 1.0)
    lean = np.maximum(np.where(deviation > 0, skew, -skew), 0.0)
    heavier = 1 + lean * z / (3 * np.sqrt(rows)) + np.maximum(kurt, 0.0) * z2 / (12 * rows)
    found: Floats = np.minimum(np.log(2.0) - z2 / (2 * heavier), 0.0)
    return found
