"""How far windows go from the days before them by themselves: the null model in order of time.

Thousands of rows a day make every difference from yesterday certain; it says something only where
it is large beside what one day differs from the days before it anyway. That is measured on the
reference's own windows, each against the days before it, and told per feature: of its histogram,
its mean, its spread, and of its mean beside the feature that it goes with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from homeostat_monitor.domain.diagnosis.views import Floats, distance, extended
from homeostat_monitor.domain.windows.layout import SCORE, STEPS, Counts, Layout
from homeostat_monitor.domain.windows.window import FEWEST_ROWS, Window

_WEEK_US = 7 * 86_400_000_000
# Windows that are compared with at the least, and rows of them that are enough.
SPANS = 4
FEWEST_RECENT = 500
# Fewer comparisons say nothing by themselves.
_FEWEST = 5
# And fewer give no lines: smaller blocks do.
_FEW = 12
# Before any window is seen: deviations by which means and logarithms of spreads wander, and how
# many windows that guess is worth.
_CENTRE, _SPREAD, _GUESS = 0.3, 0.25, 4.0
_DISPERSION = 50.0
# A feature that explains less of another's moves is no companion.
_LEAST_EXPLAINED = 0.5
# A line is not surer than that, in deviations of the reference.
_LEAST_RESIDUAL = 0.1


@dataclass(frozen=True, slots=True)
class Wander:
    """What a feature does by nature from the days before to a window."""

    # Of the histogram: the G statistic over its degrees of freedom, at least 1.
    dispersion: float = _DISPERSION
    # Root mean square of the mean's move, in reference deviations.
    centre: float = 2 * _CENTRE
    # Of the logarithm of the deviation over that of the days before: its mean (a day holds less
    # than a week) and its deviation.
    wider: float = 0.0
    spread: float = 2 * _SPREAD
    # The feature whose moves it follows best, by how much, and what is left then.
    companion: str = ""
    slope: float = 0.0
    residual: float = 0.0


@dataclass(frozen=True, slots=True)
class Natural:
    """Of every feature and the scores, measured in so many windows."""

    windows: int = 0
    wander: Mapping[str, Wander] = field(default_factory=dict)

    def of(self, name: str) -> Wander:
        """What is known of it, or a wide guess."""
        return self.wander.get(name, Wander())

    @property
    def is_known(self) -> bool:
        return self.windows >= _FEWEST


def before(windows: Sequence[Window], start_us: int, span_us: int) -> list[Window]:
    """The days that a span of windows beginning there is compared with: a week at the least."""
    begin = start_us - max(SPANS * span_us, _WEEK_US)
    return [each for each in windows if each.end_us <= start_us and each.start_us >= begin]


def natural_of(layout: Layout, windows: Sequence[Window], blocks: Counts | None = None) -> Natural:
    """From windows in the order of time, each compared with the days before it. ``blocks``: sums of
    smaller parts, for the companions where windows are few."""
    pairs = []
    for each in windows:
        past = before(windows, each.start_us, each.end_us - each.start_us)
        if each.rows >= FEWEST_ROWS and sum(one.rows for one in past) >= FEWEST_RECENT:
            pairs.append((np.sum([one.sums for one in past], axis=0), each.sums))
    if len(pairs) < _FEWEST:
        return Natural(len(pairs))
    past_sums, sums = (np.stack(side) for side in zip(*pairs, strict=True))
    moves = {name: _moves(layout, name, past_sums, sums) for name in layout.extras.scales}
    centres = {name: each[0] for name, each in moves.items()}
    if len(pairs) < _FEW and blocks is not None:
        # From the reference's mean, which is 0.
        centres = {name: _moments(layout, name, blocks)[0] for name in layout.extras.scales}
    found = {
        name: replace(_wander(layout, name, past_sums, sums, moves), **_companion(name, centres))
        for name in layout.names
    }
    return Natural(len(pairs), found)


def _moves(layout: Layout, name: str, past: Counts, sums: Counts) -> Floats:
    """[2, windows]: of the mean in reference deviations, of the logarithm of the deviation."""
    (mean, spread), (was, spread_was) = (_moments(layout, name, each) for each in (sums, past))
    held = (spread > 0) & (spread_was > 0)
    wider = np.log(np.where(held, spread, 1.0)) - np.log(np.where(held, spread_was, 1.0))
    return np.stack([mean - was, np.where(held, wider, np.nan)])


def _moments(layout: Layout, name: str, sums: Counts) -> tuple[Floats, Floats]:
    moments = layout.moments(name, sums)
    rows = layout.histogram(name, sums).sum(axis=-1).astype(np.float64)
    if moments is None:
        return np.full(len(sums), np.nan), np.zeros(len(sums))
    known = np.where(rows > 0, rows, np.nan)
    mean = moments[0] / known / STEPS
    square = moments[1] / known / STEPS**2
    spread = np.sqrt(np.maximum(np.nan_to_num(square - mean**2), 0.0))
    return mean, spread


def _wander(
    layout: Layout, name: str, past: Counts, sums: Counts, moves: Mapping[str, Floats]
) -> Wander:
    spread = _dispersion(layout, name, past, sums)
    if name == SCORE or name not in moves:
        return Wander(dispersion=spread)
    centre, wider = moves[name]
    known = wider[np.isfinite(wider)]
    middle = float(known.mean()) if len(known) else 0.0
    return Wander(
        dispersion=spread,
        centre=_size(centre, _CENTRE),
        wider=middle,
        spread=_size(wider - middle, _SPREAD),
    )


def _size(moves: Floats, guess: float) -> float:
    """Root mean square, drawn towards the guess."""
    known = moves[np.isfinite(moves)]
    return float(np.sqrt(((known**2).sum() + _GUESS * guess**2) / (len(known) + _GUESS)))


def _dispersion(layout: Layout, name: str, past: Counts, sums: Counts) -> float:
    """Mean of G over its degrees of freedom, of the known values."""
    befores, afters = (extended(layout, name, each)[:, :-1] for each in (past, sums))
    found = [1.0]
    for was, now in zip(befores, afters, strict=True):
        freedom = int(((was + now) > 0).sum()) - 1
        if freedom > 0 and was.sum() and now.sum():
            found.append(distance(was, now).excess / freedom + 1.0)
    return float(np.mean(found))


def _companion(name: str, centres: Mapping[str, Floats]) -> dict[str, Any]:
    """Whose moves explain the feature's best: least squares through no move at all, each window
    judged by the others."""
    best: dict[str, Any] = {}
    most, own = _LEAST_EXPLAINED, centres.get(name, np.empty(0))
    for other, moves in centres.items():
        if other == name or not len(own):
            continue
        known = np.isfinite(own) & np.isfinite(moves)
        y, x = own[known], moves[known]
        squares = float((x**2).sum())
        if len(y) < _FEWEST or not squares or not (y**2).sum():
            continue
        slope = float((x * y).sum()) / squares
        left_out = (y - slope * x) / np.maximum(1 - x**2 / squares, 1e-3)
        explained = 1 - float((left_out**2).sum() / (y**2).sum())
        if explained > most:
            residual = max(float(np.sqrt((left_out**2).mean())), _LEAST_RESIDUAL)
            best, most = {"companion": other, "slope": slope, "residual": residual}, explained
    return best
