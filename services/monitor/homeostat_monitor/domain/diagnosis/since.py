"""Since when? The posterior over the positions of a single change in a row of windows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.diagnosis import LossEvidence
from homeostat_monitor.domain.diagnosis.views import Floats, log_dirichlet, smoothed
from homeostat_monitor.domain.windows.window import Window

Places = NDArray[np.intp]

# More windows than this are merged two by two: the ends of the interval lose nothing that counts.
_MOST_WINDOWS = 512
# Beginnings of a gradual change that are tried.
_MOST_RAMPS = 48
# Steps of expectation and maximisation for the end of a gradual change.
_STEPS = 8
# Most bins of a histogram whose gradual change is followed; the rarest are pooled.
_MOST_BINS = 24
# How far a change may lead: rows that a prior around the reference is worth.
_DISTANCES = (3.0, 30.0, 300.0)
_LOW, _HIGH = 0.05, 0.95
_TEMPER = 0.6
# 90 % interval of a change in a mean, in rows times (deviation / change) squared (Bai 1997).
_BAI = 7.0
# Of the losses since then, the largest share that may be from before: what is left then rose to
# three times as much.
_DILUTED = 2 / 3
# Of an interval's half, in spans since the best guess.
_WIDEST = 4.0


@dataclass(frozen=True, slots=True)
class Change:
    """When it began: best guess and 90 % interval, in event time."""

    at_us: int
    from_us: int
    to_us: int
    # The first window that lies after the change altogether.
    first: int
    # Log-odds that it came gradually rather than at once.
    gradual: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """A feature's bins in the reference [bins] and in the windows [windows, bins]."""

    before: Floats
    windows: Floats
    dispersion: float = 1.0


@dataclass(frozen=True, slots=True)
class Products:
    """A pair's rows and sums of products in the windows, both [windows]; mean and variance of a
    product in the reference."""

    rows: Floats
    sums: Floats
    mean: float
    variance: float


def change_in(
    windows: Sequence[Window],
    histories: Sequence[History],
    products: Sequence[Products] = (),
) -> Change:
    """The one change in all of these features and pairs. At least one window."""
    step = -(-len(windows) // _MOST_WINDOWS)
    starts = np.arange(0, len(windows), step)
    positions = len(starts)
    at_once, ramped = np.zeros(positions), np.zeros(positions)
    tried = np.unique(np.linspace(0, positions - 1, min(positions, _MOST_RAMPS)).astype(int))
    for each in histories:
        counts = np.add.reduceat(each.windows, starts, axis=0)
        shares, counts = _fewest_bins(smoothed(each.before), counts)
        ahead = _ahead(shares * (each.before.sum() + 1), counts)
        likely, cost = _steps(shares, counts)
        at_once += (ahead + likely) / each.dispersion
        late = _ramps(shares, counts, tried) - cost[tried]
        ramped[tried] += (ahead[tried] + late) / each.dispersion
    for pair in products:
        sums, rows = (np.add.reduceat(each, starts) for each in (pair.sums, pair.rows))
        at_once += _mean_steps(sums, rows, pair)
        ramped[:] = -np.inf
    # A gradual change needs some windows to be told from a sudden one.
    ramped[np.setdiff1d(np.arange(positions), tried[:-2])] = -np.inf
    return _read(windows, starts, at_once, ramped, tried)


def _read(
    windows: Sequence[Window], starts: Places, at_once: Floats, ramped: Floats, tried: Places
) -> Change:
    log_once, log_ramp = at_once - np.log(len(starts)), ramped - np.log(len(tried))
    # One alarms where chance helps: the likelihood of its moment is that much too sure.
    log_once, log_ramp = log_once * _TEMPER, log_ramp * _TEMPER
    top = max(float(log_once.max()), float(log_ramp.max()))
    once, ramp = np.exp(log_once - top), np.exp(log_ramp - top)
    mass = once + ramp
    cumulated = np.cumsum(mass) / mass.sum()
    best = int(np.argmax(mass))
    low = min(int(np.searchsorted(cumulated, _LOW)), best)
    high = max(min(int(np.searchsorted(cumulated, _HIGH)), len(starts) - 1), best)
    at = windows[int(starts[best])].start_us
    begin = windows[0].start_us
    # A change in the later half of a window shows from the next one on.
    from_us = _span(windows, starts, low - 1)[1] if low else begin
    # A few rows at the end of a window can be enough to see it.
    to_us = _span(windows, starts, high)[2]
    odds = float(np.log(max(ramp.sum(), 1e-12)) - np.log(max(once.sum(), 1e-12)))
    return Change(at, min(from_us, at), max(to_us, at), int(starts[best]), odds)


def _span(windows: Sequence[Window], starts: Places, position: int) -> tuple[int, int, int]:
    """Start, middle and end of what was merged to one."""
    first = windows[int(starts[position])].start_us
    last = int(starts[position + 1]) - 1 if position + 1 < len(starts) else len(windows) - 1
    end = windows[last].end_us
    return first, (first + end) // 2, end


def _fewest_bins(shares: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """The fullest bins, the rest in one."""
    if len(shares) <= _MOST_BINS:
        return shares, counts
    weight = np.maximum(shares, counts.sum(axis=0) / max(counts.sum(), 1.0))
    kept = np.argsort(-weight)[: _MOST_BINS - 1]
    rest = np.setdiff1d(np.arange(len(shares)), kept)
    return (
        np.append(shares[kept], shares[rest].sum()),
        np.column_stack([counts[:, kept], counts[:, rest].sum(axis=1)]),
    )


def _steps(shares: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Marginal log-likelihood of the windows from each on, after a change at once to shares that
    lie around the reference's by an unknown distance. And how much less that is than with the
    shares that fit best: what their freedom costs."""
    after = np.cumsum(counts[::-1], axis=0)[::-1]
    share = after / np.maximum(after.sum(axis=1), 1.0)[:, None]
    fitted = (after * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    each = np.array([log_dirichlet(worth * shares, after) for worth in _DISTANCES])
    marginal = np.logaddexp.reduce(each, axis=0) - np.log(len(_DISTANCES))
    return marginal, fitted - marginal


def _ahead(known: Floats, counts: Floats) -> Floats:
    """Marginal log-likelihood of the windows ahead of each; ``known`` rows per bin are all that
    the reference knows of its shares, so what it errs by is no change."""
    before = np.cumsum(counts, axis=0) - counts
    return log_dirichlet(known, before)


def _mean_steps(sums: Floats, rows: Floats, pair: Products) -> Floats:
    """Log-likelihood ratio of a change in a mean: normal, of known variance."""
    after, total = (np.cumsum(each[::-1])[::-1] for each in (sums, rows))
    total = np.maximum(total, 1.0)
    gain = (after - total * pair.mean) ** 2 / (2 * pair.variance * total)
    steps: Floats = gain - 0.5 * np.log(total)
    return steps


def _ramps(shares: Floats, counts: Floats, tried: Places) -> Floats:
    """Log-likelihood of the windows from some on, if a change goes on evenly until the last."""
    ends = np.cumsum(counts.sum(axis=1))
    middles = ends - counts.sum(axis=1) / 2
    return np.array(
        [_ramp(shares, counts[each:], middles[each:], float(ends[-1])) for each in tried]
    )


def _ramp(shares: Floats, counts: Floats, middles: Floats, end: float) -> float:
    """With the shares at its end that fit best, by expectation and maximisation."""
    rows = float(counts.sum())
    if not rows:
        return -np.inf
    part = ((middles - (end - rows)) / rows)[:, None]
    late = smoothed((counts * part).sum(axis=0))
    for _ in range(_STEPS):
        mixed = (1 - part) * shares + part * late
        late = smoothed((counts * part * late / mixed).sum(axis=0))
    mixed = (1 - part) * shares + part * late
    return float((counts * np.log(mixed)).sum())


def change_of_loss(loss: LossEvidence, at_us: int) -> Change:
    """From the loss watch's own guess; the interval is Bai's for a change in a mean."""
    since = at_us if loss.since_us is None else min(loss.since_us, at_us)
    rise = abs(loss.observed - loss.reference)
    # Of 0/1 losses; squared losses of normal residuals have twice their squared mean.
    is_share = max(loss.observed, loss.reference) <= 1
    level = max(loss.observed, loss.reference)
    variance = max(level * (1 - level), 0.0) if is_share else 2 * level * level
    rows = _BAI * variance / rise**2 if rise else float(loss.rows)
    spread = round((at_us - since) * min(rows / max(loss.rows, 1), _WIDEST))
    # The watch's window may hold rows from before: the rise is then larger, and later.
    latest = since + max(spread, round((at_us - since) * _DILUTED))
    return Change(since, since - spread, min(latest, at_us), 0)
