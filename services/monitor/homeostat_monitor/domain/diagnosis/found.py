"""Segments that nobody named: where the loss rose most, and where traffic became denser.

One tree on the loss (now against before), one on the traffic. A segment is told if the half of the
rows that did not choose it shows it too, at a level that is shared by all branches of both trees.
Where neighbouring rows resemble each other, a segment that rests on few stretches of time is none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.diagnosis import SegmentShare
from homeostat_monitor.domain.diagnosis.jackknife import runs_of, z_of
from homeostat_monitor.domain.diagnosis.rows import Codes, Cut, Mask, PastRows, cut_of
from homeostat_monitor.domain.diagnosis.trees import (
    Branch,
    Coded,
    Measure,
    coded_columns,
    grown,
    sums,
)
from homeostat_monitor.domain.windows.bins import ColumnValues

Floats = NDArray[np.float64]

# Chance finds a segment in one of twenty diagnoses of nothing.
_LEVEL = 0.05
_TREES = 2
# Stretches of time that a half is cut into. Fewer say little of a variance, more are shorter than
# what lasts. Where inputs wander so does the traffic of a region, much more than the loss.
_RUNS_OF_LOSS = 7
_RUNS_OF_TRAFFIC = 3
# Fewer rows in a half say nothing of a mean by a normal approximation.
_LEAST_ROWS = 50
_LEAST_SHARE = 0.01
# What is sure but smaller is no news for a person: deviations of the loss, times as dense.
_LEAST_RISE = 0.1
_LEAST_DENSER = 1.25


@dataclass(frozen=True, slots=True)
class LossRise:
    """How much more the mean loss rose inside than in the rest of ``total``."""

    # Of the losses before, pooled: a leaf whose losses agree by chance is not surer than that.
    variance: float
    least_rows: int

    def z(self, inside: Floats, total: Floats) -> Floats:
        """[...]; see Measure."""
        parts = [np.broadcast_to(each, inside.shape) for each in (inside, total - inside)]
        enough = np.all([part[..., 0].min(axis=-1) >= self.least_rows for part in parts], axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            (rise, error), (of_rest, error_of_rest) = (self._rise(part) for part in parts)
            z = (rise - of_rest) / np.sqrt(error + error_of_rest)
        return np.where(enough & np.isfinite(z), z, 0.0)

    def contrast(self, inside: Floats, rest: Floats) -> Floats:
        """[..., 2]: by how much the mean loss is higher inside."""
        return inside[..., 1] / inside[..., 0] - rest[..., 1] / rest[..., 0]

    def _rise(self, part: Floats) -> tuple[Floats, Floats]:
        rows, mean = part[..., 0], part[..., 1] / part[..., 0]
        variance = np.maximum(part[..., 2] / rows - mean**2, self.variance)
        return mean[..., 1] - mean[..., 0], (variance / rows).sum(axis=-1)


@dataclass(frozen=True, slots=True)
class Denser:
    """How much more of the traffic lies inside than before (two proportions)."""

    least_rows: int

    def z(self, inside: Floats, total: Floats) -> Floats:
        """[...]; see Measure."""
        rows, of = inside[..., 0], np.broadcast_to(total[..., 0], inside[..., 0].shape)
        enough = (rows[..., 1] >= self.least_rows) & (of - rows >= self.least_rows).all(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = rows / of
            pooled = rows.sum(axis=-1) / of.sum(axis=-1)
            error = np.sqrt(pooled * (1 - pooled) * (1 / of).sum(axis=-1))
            z = (share[..., 1] - share[..., 0]) / error
        return np.where(enough & np.isfinite(z), z, 0.0)

    def contrast(self, inside: Floats, rest: Floats) -> Floats:
        """[..., 2]: the share of the rows that lies inside."""
        return inside[..., 0] / (inside[..., 0] + rest[..., 0])


def found_segments(now: PastRows, before: PastRows, *, most: int = 5) -> list[SegmentShare]:
    """The hotspots, heaviest first; the same rows give the same.

    The weight of a segment is distance x traffic x impact. On the loss: the rise beyond the rest's
    in deviations, its share of the rows, 1. On the traffic: the logarithm of how many times denser
    it is, its share of the rows, and 1 plus its rise of the loss in deviations.
    """
    found = [*_by_loss(now, before), *_by_traffic(now, before)]
    return sorted(found, key=lambda each: -each.weight)[:most]


def _by_loss(now: PastRows, before: PastRows) -> Iterator[SegmentShare]:
    known = [np.isfinite(each.losses) for each in (before, now)]
    if min(int(each.sum()) for each in known) < 4 * _LEAST_ROWS:
        return
    coded = _coded(now, before, known)
    variance = float(coded.values[~coded.is_now].var())
    if variance <= 0:
        variance = float(coded.values.var())
    measure = LossRise(variance, _least(coded))
    deviation = max(float(np.sqrt(variance)), 1e-12)
    for branch in _sure(coded, measure, _RUNS_OF_LOSS):
        inside, rest = sums(coded, branch.rows), sums(coded, ~branch.rows)
        mean, of_rest = inside[:, 1] / inside[:, 0], rest[:, 1] / rest[:, 0]
        rise = float((mean[1] - mean[0]) - (of_rest[1] - of_rest[0])) / deviation
        share = float(inside[1, 0] / coded.is_now.sum())
        if rise >= _LEAST_RISE:
            yield _share(branch, share, float(mean[1]), float(mean[0]), rise * share, "loss")


def _by_traffic(now: PastRows, before: PastRows) -> Iterator[SegmentShare]:
    if min(len(now), len(before)) < 4 * _LEAST_ROWS:
        return
    everything = [np.ones(len(each), dtype=bool) for each in (before, now)]
    coded = _coded(now, before, everything)
    measure = Denser(_least(coded))
    for branch in _sure(coded, measure, _RUNS_OF_TRAFFIC):
        inside = sums(coded, branch.rows)[:, 0]
        before_share, share = (inside / [len(before), len(now)]).tolist()
        # A region that was empty before: as if it had held half a row.
        denser = share / max(before_share, 0.5 / len(before))
        if denser >= _LEAST_DENSER:
            weight = float(np.log(denser)) * share * (1 + _rise_of(coded, branch))
            yield _share(branch, share, share, before_share, weight, "row_share")


def _rise_of(coded: Coded, branch: Branch) -> float:
    """Of the loss within the branch, in deviations; 0 where truths are unknown or it fell."""
    known = branch.rows & np.isfinite(coded.values)
    now, before = coded.values[known & coded.is_now], coded.values[known & ~coded.is_now]
    if min(len(now), len(before)) < _LEAST_ROWS or before.std() <= 0:
        return 0.0
    return max(0.0, float((now.mean() - before.mean()) / before.std()))


def _sure(coded: Coded, measure: Measure, count: int) -> list[Branch]:
    """Branches that the half shows too that did not choose them, surest first, none within
    another. Each half chooses once and judges once."""
    runs = runs_of(coded, count)
    judged = [
        (z_of(coded, branch.rows, ~half, runs, measure), branch)
        for half in (runs < count, runs >= count)
        for branch in grown(coded, half, measure)
    ]
    # Of each pair of sides one at most is the worse one.
    least = _quantile(_LEVEL / _TREES / max(1, len(judged) // 2))
    chosen: list[Branch] = []
    for z, branch in sorted(judged, key=lambda each: -each[0]):
        if z >= least and not any((branch.rows & each.rows).any() for each in chosen):
            chosen.append(branch)
    return chosen


def _quantile(level: float) -> float:
    """How many standard errors chance alone passes with that probability (one side)."""
    from scipy.special import ndtri  # noqa: PLC0415 - not at start; scipy.stats takes 2 s

    return -float(ndtri(level))


def _least(coded: Coded) -> int:
    return max(_LEAST_ROWS, int(_LEAST_SHARE * min(coded.is_now.sum(), (~coded.is_now).sum()) / 2))


def _coded(now: PastRows, before: PastRows, known: Sequence[Mask]) -> Coded:
    """Both samples, before first."""
    cuts: dict[str, Cut] = {}
    codes: dict[str, Codes] = {}
    for name in now.columns:
        if name in before.columns:
            columns = [each.columns[name] for each in (before, now)]
            cut = cut_of(columns)
            if cut is not None:
                cuts[name] = cut
                codes[name] = _both(cut, columns, known)
    values = np.concatenate(
        [each.losses[rows] for each, rows in zip((before, now), known, strict=True)]
    )
    is_now = np.repeat([False, True], [int(each.sum()) for each in known])
    return coded_columns(cuts, codes, is_now, values)


def _both(cut: Cut, columns: Sequence[ColumnValues], known: Sequence[Mask]) -> Codes:
    return np.concatenate(
        [cut.codes(column, len(rows))[rows] for column, rows in zip(columns, known, strict=True)]
    )


def _share(
    branch: Branch, row_share: float, observed: float, reference: float, weight: float, what: str
) -> SegmentShare:
    return SegmentShare("", branch.expression.text, row_share, observed, reference, weight, what)
