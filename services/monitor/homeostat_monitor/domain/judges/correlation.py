"""Have two features that belong together come apart, or two others come together?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Finding, Past, Rule
from homeostat_monitor.domain.judges.distance import FEWEST_BLOCKS, FEWEST_VALUES, natural
from homeostat_monitor.domain.windows.layout import Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window

Floats = NDArray[np.float64]
Pair = tuple[str, str]

# A change of correlation below this is of no consequence, whatever its significance.
_FLOOR = 0.2
# A correlation that moves by more than this part of itself between blocks of the reference is no
# relation that could break.
_STEADY = 0.5
# Of a window in which a feature hardly moves no correlation can be told.
_LEAST_SPREAD = 0.25
# Deviations of a sample's correlation, by Fisher's transformation, that chance does not reach.
_NOISE_DEVIATIONS = 5.0


@dataclass(frozen=True, slots=True)
class CorrelationJudge:
    """Rank correlation of watched pairs, with the window's own margins: a feature that moves as
    a whole leaves it as it is. The calendar excuses nothing here; blocks of the reference do."""

    # Per pair the reference's correlation.
    expected: Mapping[Pair, float]
    # Per pair: row counts of blocks, ascending, and the greatest change that they explain.
    limits: Mapping[Pair, tuple[tuple[int, float], ...]]
    # Per feature the deviation of its scores in the reference.
    deviations: Mapping[str, float]
    remarks: Sequence[str] = ()
    rule: Rule = Rule.CORRELATION

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding per pair that the window shows enough of."""
        found = []
        for number, pair in enumerate(layout.extras.pairs):
            if pair not in self.limits:
                continue
            rows = int(layout.pair(number, window.sums)[0])
            now = float(correlations(layout, number, window.sums[None, :], self.deviations)[0])
            if np.isnan(now) or rows < self.limits[pair][0][0]:
                continue
            found.append(self._finding(pair, rows, now))
        return found

    def against(self, layout: Layout, window: Window, name: str, past: Past) -> Finding | None:
        """Nothing: the past keeps no pairs."""
        return None

    def _finding(self, pair: Pair, rows: int, now: float) -> Finding:
        expected = self.expected[pair]
        limit = [limit for size, limit in self.limits[pair] if size <= rows][-1]
        change = abs(now - expected)
        threshold = max(limit, _noise(expected, rows))
        return Finding(
            self.rule,
            pair[0],
            "correlation_change",
            change,
            0.0,
            threshold,
            is_breach=change > threshold,
            other_feature=pair[1],
        )


def correlation_judge(counts: ReferenceCounts) -> CorrelationJudge:
    """Calibrated on blocks of the reference; pairs that none of them shows enough of are left."""
    layout = counts.layout
    whole = counts.sums[None, :]
    deviations = {name: float(_moments(layout, name, whole)[1][0]) for name in layout.extras.scores}
    expected: dict[Pair, float] = {}
    limits: dict[Pair, tuple[tuple[int, float], ...]] = {}
    blocks = list(counts.blocks())
    for number, pair in enumerate(layout.extras.pairs):
        value = float(correlations(layout, number, whole, deviations)[0])
        found = []
        for each in blocks:
            shown = correlations(layout, number, each.sums, deviations)
            changes = np.abs(shown[np.isfinite(shown)] - value)
            if len(changes) >= FEWEST_BLOCKS:
                found.append((each.rows, max(_FLOOR, natural(changes))))
        steady = tuple(each for each in found if each[1] <= max(_STEADY * abs(value), _FLOOR))
        if steady and np.isfinite(value):
            expected[pair], limits[pair] = value, steady
    return CorrelationJudge(expected, limits, deviations)


def correlations(
    layout: Layout, number: int, sums: Counts, deviations: Mapping[str, float]
) -> Floats:
    """Of rows of sums the correlation of a pair's scores; NaN where a feature hardly moves."""
    a, b = layout.extras.pairs[number]
    (mean_a, spread_a), (mean_b, spread_b) = (_moments(layout, name, sums) for name in (a, b))
    both, products = layout.pair(number, sums)
    together = products / np.maximum(both, 1) - mean_a * mean_b
    moves = (spread_a > _LEAST_SPREAD * deviations[a]) & (spread_b > _LEAST_SPREAD * deviations[b])
    is_known = moves & (both >= FEWEST_VALUES) & (spread_a > 0) & (spread_b > 0)
    found: Floats = np.full(len(sums), np.nan)
    np.divide(together, spread_a * spread_b, out=found, where=is_known)
    return np.clip(found, -1.0, 1.0)


def _moments(layout: Layout, name: str, sums: Counts) -> tuple[Floats, Floats]:
    """Mean and deviation of a feature's scores per row of sums."""
    histograms = layout.histogram(name, sums).astype(np.float64)
    scores = np.array(layout.extras.scores[name], dtype=np.float64)
    rows = np.maximum(histograms.sum(axis=1), 1)
    mean = histograms @ scores / rows
    spread = np.sqrt(np.maximum(histograms @ scores**2 / rows - mean**2, 0.0))
    return mean, spread


def _noise(expected: float, rows: int) -> float:
    """How far chance moves the correlation of so many rows."""
    middle = np.arctanh(np.clip(expected, -0.999, 0.999))
    step = _NOISE_DEVIATIONS / np.sqrt(max(rows - 3, 1))
    return float(max(np.tanh(middle + step) - expected, expected - np.tanh(middle - step)))
