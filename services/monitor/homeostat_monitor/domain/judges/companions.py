"""Is a number where its companions lead to expect it?

In a stream that wanders a feature may go far, but what belongs together goes together: the
temperature with the dew point, the price with the price next door. Per feature the companion is
chosen whose block means predict its own best (least squares, judged by leaving each block out). A
window whose mean is off that line is a breach, however far either of the two has wandered: one of
them broke, by its unit, its source or its join.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from homeostat_monitor.domain.judges import Finding, Past, Rule
from homeostat_monitor.domain.judges.distance import FEWEST_VALUES
from homeostat_monitor.domain.windows.layout import STEPS, Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window

Floats = NDArray[np.float64]

# Fewer blocks than this give no line.
_FEWEST_BLOCKS = 12
# A companion that explains less of the variance of the blocks' means is none.
_LEAST_EXPLAINED = 0.5
# Twice the worst of the reference, left out of its own line: blocks follow on each other, so that
# the worst of a few dozen is not the worst of a year.
_MARGIN_OVER_WORST = 2.0
# Half a reference deviation off the line is of no consequence, whatever its significance.
_FLOOR = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """How a feature's mean follows its companion's, of blocks of ``rows`` rows; all in deviations
    of the reference."""

    rows: int
    slope: float
    offset: float
    # Of blocks around the line, of the companion's means, their middle, and how many blocks.
    residual: float
    companion_squares: float
    companion_middle: float
    blocks: int
    worst: float

    def expected(self, companion: float) -> float:
        """The feature's mean at that mean of the companion."""
        return self.offset + self.slope * companion

    def threshold(self, companion: float, level: float) -> float:
        """What a further block may be off: a prediction interval, wider where the companion is
        far from where the reference knew it; never less than twice the worst block."""
        far = (companion - self.companion_middle) ** 2 / max(self.companion_squares, 1e-12)
        spread = self.residual * np.sqrt(1 + 1 / self.blocks + far)
        quantile = float(stdtrit(self.blocks - 2, 1 - level / 2))
        wider = np.sqrt(1 + far)
        return max(quantile * float(spread), _MARGIN_OVER_WORST * self.worst * float(wider), _FLOOR)


@dataclass(frozen=True, slots=True)
class CompanionJudge:
    """One line per feature that has a companion, per size of blocks."""

    # Feature to its companion, and lines by ascending rows.
    lines: Mapping[str, tuple[str, tuple[Line, ...]]]
    level: float
    remarks: Sequence[str] = ()
    rule: Rule = Rule.CORRELATION

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding per feature with a companion that the window shows enough of."""
        found = []
        for name in self.lines:
            off = self._off(layout, name, window.sums)
            if off is not None:
                found.append(self._finding(name, *off))
        return found

    def against(self, layout: Layout, window: Window, name: str, past: Past) -> Finding | None:
        """How far the window is off the line from where the past was off it: a relation that
        changes slowly is a season."""
        if name not in self.lines:
            return None
        now, before = (self._off(layout, name, each) for each in (window.sums, past.sums))
        if now is None or before is None:
            return None
        return self._finding(name, now[0] - before[0], now[1])

    def _off(self, layout: Layout, name: str, sums: Counts) -> tuple[float, float] | None:
        companion, lines = self.lines[name]
        rows = min(_present(layout, each, sums) for each in (name, companion))
        fitting = [line for line in lines if line.rows <= rows]
        if rows < FEWEST_VALUES or not fitting:
            return None
        own, other = (float(_means(layout, each, sums[None, :])[0]) for each in (name, companion))
        line = fitting[-1]
        return own - line.expected(other), line.threshold(other, self.level)

    def _finding(self, name: str, off: float, threshold: float) -> Finding:
        return Finding(
            self.rule,
            name,
            "off_companion",
            abs(off),
            0.0,
            threshold,
            is_breach=abs(off) > threshold,
            other_feature=self.lines[name][0],
        )


def companion_judge(counts: ReferenceCounts, level: float) -> CompanionJudge:
    """Lines from blocks of the reference that do not overlap; ``level`` is of all features."""
    layout = counts.layout
    names = list(layout.extras.scales)
    sizes = [
        (each.rows, {name: _block_means(layout, name, each.sums[::2]) for name in names})
        for each in counts.blocks()
        if len(each.sums[::2]) >= _FEWEST_BLOCKS
    ]
    lines = {}
    for name in names:
        chosen = _chosen(name, names, sizes)
        if chosen is not None:
            lines[name] = chosen
    return CompanionJudge(lines, level / max(len(lines), 1))


def _chosen(
    name: str, names: Sequence[str], sizes: Iterable[tuple[int, Mapping[str, Floats]]]
) -> tuple[str, tuple[Line, ...]] | None:
    """The companion that is best at most sizes, and its lines."""
    by_companion: dict[str, list[tuple[float, Line]]] = {}
    for rows, means in sizes:
        for other in names:
            if other == name:
                continue
            fitted = _fitted(rows, means[name], means[other])
            if fitted is not None:
                by_companion.setdefault(other, []).append(fitted)
    if not by_companion:
        return None
    best = max(sorted(by_companion), key=lambda each: sum(gain for gain, _ in by_companion[each]))
    return best, tuple(line for _, line in by_companion[best])


def _fitted(rows: int, own: Floats, other: Floats) -> tuple[float, Line] | None:
    """The share of variance that the companion explains of blocks left out, and the line; None
    where that is too little."""
    known = np.isfinite(own) & np.isfinite(other)
    y, x = own[known], other[known]
    if len(y) < _FEWEST_BLOCKS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    middle = float(x.mean())
    squares = float(((x - middle) ** 2).sum())
    slope = float(((x - middle) * (y - y.mean())).sum()) / squares
    offset = float(y.mean()) - slope * middle
    leverage = 1 / len(x) + (x - middle) ** 2 / squares
    left_out = (y - offset - slope * x) / np.maximum(1 - leverage, 1e-3)
    explained = 1 - float((left_out**2).mean()) / float(y.var())
    if explained < _LEAST_EXPLAINED:
        return None
    residual = float(np.sqrt((left_out**2).mean()))
    worst = float(np.abs(left_out).max())
    return explained, Line(rows, slope, offset, residual, squares, middle, len(x), worst)


def _block_means(layout: Layout, name: str, sums: Counts) -> Floats:
    present = layout.histogram(name, sums).sum(axis=1)
    means = _means(layout, name, sums)
    return np.where(present >= FEWEST_VALUES, means, np.nan)


def _means(layout: Layout, name: str, sums: Counts) -> Floats:
    """In deviations of the reference, from its mean; per row of sums."""
    moments = layout.moments(name, sums)
    present = layout.histogram(name, sums).sum(axis=1)
    if moments is None:
        return np.full(len(sums), np.nan)
    means: Floats = moments[0] / np.maximum(present, 1) / STEPS
    return means


def _present(layout: Layout, name: str, sums: Counts) -> int:
    return int(layout.histogram(name, sums).sum())
