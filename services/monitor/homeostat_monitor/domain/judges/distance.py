"""Jensen-Shannon distance between a window and the reference, and how much of it is natural.

Real streams move: in their natural order every test for identical distribution alarms all the
time. A threshold is therefore what contiguous blocks of the reference itself show, with a margin.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.layout import Counts

Floats = NDArray[np.float64]
T = TypeVar("T", float, NDArray[np.float64])

# A distance below this is of no consequence, whatever its significance.
FLOOR = 0.1
# Where the reference is too short to show its own movement.
STRICT_FLOOR = 0.25
# Fewer blocks than this say too little of the worst one.
FEWEST_BLOCKS = 7
_MARGIN_OVER_WORST = 1.25
_DEVIATIONS = 3.0
# A prior period is so many windows, if nobody says otherwise.
PERIOD = 7
# A prior period may end so many blocks ago.
_LAGS = (1, 2, 4, 8, 16, 32)
# Bins expected to hold fewer rows are pooled: thin bins make any distance large.
_THIN = 5.0
# Fewer present values than this are not judged: an almost empty column has no distribution.
FEWEST_VALUES = 50


def distances(reference: Counts, windows: Counts) -> tuple[Floats, Floats]:
    """Distance (base 2, 0..1) of every window (rows of ``windows``) from its reference (a row, or
    one row per window), and the distance that chance alone would hardly exceed."""
    base = np.broadcast_to(reference, windows.shape).astype(np.float64)
    base_rows = np.maximum(base.sum(axis=1, keepdims=True), 1)
    rows = np.maximum(windows.sum(axis=1, keepdims=True), 1)
    p, q = base / base_rows, windows / rows
    thin = p * rows < _THIN
    p, q = _pooled(p, thin), _pooled(q, thin)
    middle = (p + q) / 2
    divergence = (_terms(p, middle) + _terms(q, middle)).sum(axis=1) / 2
    measured = np.sqrt(np.clip(divergence, 0.0, 1.0))
    return measured, _noise((p > 0).sum(axis=1), rows[:, 0], base_rows[:, 0])


def _pooled(shares: Floats, thin: NDArray[np.bool_]) -> Floats:
    rest = np.where(thin, shares, 0.0).sum(axis=1, keepdims=True)
    return np.concatenate([np.where(thin, 0.0, shares), rest], axis=1)


def _terms(p: Floats, middle: Floats) -> Floats:
    ratio = np.divide(p, middle, out=np.ones_like(p), where=p > 0)
    terms: Floats = p * np.log2(ratio)
    return terms


def _noise(bins: NDArray[np.intp], rows: Floats, base_rows: Floats) -> Floats:
    """Mean plus three deviations of the divergence of two samples of one distribution: it is
    chi-squared with bins - 1 degrees of freedom over 8 ln 2, to first order."""
    freedom = np.maximum(bins - 1, 1)
    spread = freedom + _DEVIATIONS * np.sqrt(2.0 * freedom)
    noise: Floats = np.sqrt(expected_divergence(spread) * (1 / rows + 1 / base_rows))
    return noise


def expected_divergence(chi_squared: T) -> T:
    """Divergence (base 2, to first order) of two samples whose statistic is that, times the sum of
    one over each one's rows."""
    return chi_squared / (8 * math.log(2))


@dataclass(frozen=True, slots=True)
class Limits:
    """Thresholds of one feature by the row count of the window."""

    rows: tuple[int, ...]
    thresholds: tuple[float, ...]
    typical: tuple[float, ...]

    def at(self, rows: int) -> tuple[float, float]:
        """Threshold and typical distance for a window of so many rows."""
        if not self.rows:
            return STRICT_FLOOR, 0.0
        place = max(int(np.searchsorted(self.rows, rows, side="right")) - 1, 0)
        return self.thresholds[place], self.typical[place]


def limits(reference: Counts, blocks: Iterable[tuple[int, Counts]]) -> Limits:
    """Thresholds from the reference's own blocks, each compared with the rest of the reference."""
    sizes: list[int] = []
    thresholds: list[float] = []
    typical: list[float] = []
    for rows, histograms in blocks:
        full = histograms[histograms.sum(axis=1) >= FEWEST_VALUES]
        if len(full) < FEWEST_BLOCKS:
            continue
        measured, _ = distances(reference[None, :] - full, full)
        sizes.append(rows)
        thresholds.append(max(FLOOR, natural(measured)))
        typical.append(float(measured.mean()))
    return Limits(tuple(sizes), tuple(thresholds), tuple(typical))


@dataclass(frozen=True, slots=True)
class Strides:
    """How far a feature moves in time: thresholds of the distance from a prior period, by the row
    count of the window and by how many windows ago that period ends."""

    rows: tuple[int, ...]
    lags: tuple[tuple[int, ...], ...]
    thresholds: tuple[tuple[float, ...], ...]

    def at(self, rows: int, lag: int) -> float:
        """Threshold for a window of so many rows; what is not known is not excused."""
        if not self.rows:
            return FLOOR
        place = max(int(np.searchsorted(self.rows, rows, side="right")) - 1, 0)
        nearest = max(int(np.searchsorted(self.lags[place], lag, side="right")) - 1, 0)
        return self.thresholds[place][nearest]


def strides(blocks: Iterable[tuple[int, Counts]], period: int) -> Strides:
    """From the reference's own half-overlapping blocks, each compared with up to ``period`` blocks
    before it. In a world that wanders the distance grows with the lag; in one that stands it does
    not, and a step stays a step however long ago it was."""
    sizes: list[int] = []
    lags: list[tuple[int, ...]] = []
    thresholds: list[tuple[float, ...]] = []
    for rows, histograms in blocks:
        known: dict[int, float] = {}
        for lag in _LAGS:
            measured = _apart(histograms, lag, period)
            if len(measured) < FEWEST_BLOCKS:
                break
            known[lag] = max(FLOOR, natural(measured))
        if known:
            sizes.append(rows)
            lags.append(tuple(known))
            thresholds.append(tuple(np.maximum.accumulate(list(known.values())).tolist()))
    return Strides(tuple(sizes), tuple(lags), tuple(thresholds))


def _apart(histograms: Counts, lag: int, period: int) -> Floats:
    """Distances of blocks from the ``period`` blocks that end ``lag`` blocks before."""
    found = []
    # Every second block follows on the last but one; the others lie half a block later.
    for row in (histograms[::2], histograms[1::2]):
        ends = np.arange(1, len(row) - lag + 1)
        total = np.concatenate([np.zeros_like(row[:1]), np.cumsum(row, axis=0)])
        past, present = total[ends] - total[np.maximum(ends - period, 0)], row[lag:]
        full = (past.sum(axis=1) >= FEWEST_VALUES) & (present.sum(axis=1) >= FEWEST_VALUES)
        if full.any():
            found.append(distances(past[full], present[full])[0])
    return np.concatenate(found) if found else np.empty(0)


def natural(measured: Floats) -> float:
    """The worst, with a margin, or mean plus three deviations."""
    return max(
        _MARGIN_OVER_WORST * float(measured.max()),
        float(measured.mean() + _DEVIATIONS * measured.std()),
    )


def measure(reference: Counts, window: Counts, limits: Limits) -> tuple[float, float, float] | None:
    """Distance, typical distance and threshold; None where there are too few values to judge."""
    rows = int(window.sum())
    if rows < FEWEST_VALUES or int(reference.sum()) < FEWEST_VALUES:
        return None
    measured, noise = distances(reference[None, :], window[None, :])
    threshold, typical = limits.at(rows)
    return float(measured[0]), typical, max(threshold, float(noise[0]))


def measure_past(
    past: Counts, window: Counts, threshold: float
) -> tuple[float, float, float] | None:
    """Distance from a past, nothing typical, and the threshold that also covers chance; None
    where there are too few values to say."""
    if int(window.sum()) < FEWEST_VALUES or int(past.sum()) < FEWEST_VALUES:
        return None
    measured, noise = distances(past[None, :], window[None, :])
    return float(measured[0]), 0.0, max(threshold, float(noise[0]))
