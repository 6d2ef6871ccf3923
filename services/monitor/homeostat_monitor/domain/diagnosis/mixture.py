"""Label shift: are the inputs since the change the reference's classes in other shares?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from homeostat_monitor.domain.diagnosis.views import Floats, View, log_dirichlet, log_mean, smoothed

_STEPS = 200
_STILL = 1e-7
_RARE = 1e-3
# Rows that a prior around the reference is worth.
_DISTANCES = (3.0, 30.0, 300.0, 3000.0)


@dataclass(frozen=True, slots=True)
class Mixture:
    """Class shares that fit the inputs best, and how well."""

    before: Floats
    after: Floats
    # Log-odds against "every feature by itself: as before, or moved anyhow".
    log_odds: float
    # Share of what moved that other class shares explain.
    explained: float


def mixture(views: Sequence[View], by_class: Sequence[Floats]) -> Mixture | None:
    """``by_class``: for every view the reference's rows per class and bin, [classes, bins].

    The class shares are fitted to all features and scores at once by expectation and maximisation
    (Saerens, Latinne and Decaestecker 2002), features taken as independent. None where there are no
    classes or no rows.
    """
    known = [each.sum(axis=1) for each in by_class]
    if not known or any((each <= 0).any() for each in known[:1]) or len(known[0]) < 2:
        return None
    usable = [
        (view, smoothed(counts))
        for view, counts, rows in zip(views, by_class, known, strict=True)
        if (rows > 0).all() and view.after.sum() > 0
    ]
    if not usable:
        return None
    prior = known[0] / known[0].sum()
    shares = _fitted(usable, prior)
    rows = max(float(view.after.sum()) for view, _ in usable)
    mixed = sum(_log(view, shares @ each) / view.dispersion for view, each in usable)
    plain = [_log(view, prior @ each) / view.dispersion for view, each in usable]
    free = [_free(view, len(usable)) for view, _ in usable]
    apart = sum(max(pair) for pair in zip(plain, free, strict=True))
    # What chance alone lets the best shares gain is nothing that moved.
    best = sum(_best(view) - 0.5 * (_bins(view) - 1) for view, _ in usable)
    moved = best - sum(plain)
    explained = (mixed - sum(plain)) / moved if moved > 0 else 0.0
    penalty = 0.5 * (len(prior) - 1) * np.log(max(rows, 2.0)) + _surprise(prior, shares)
    return Mixture(prior, shares, float(mixed - penalty - apart), float(np.clip(explained, 0, 1)))


def _surprise(prior: Floats, shares: Floats) -> float:
    """Classes hardly ever vanish: their log-odds are thought to move by about one."""
    before, after = (np.clip(each, _RARE, 1 - _RARE) for each in (prior, shares))
    moved = np.log(after / (1 - after)) - np.log(before / (1 - before))
    return float(0.5 * (moved**2).max())


def _fitted(usable: Sequence[tuple[View, Floats]], prior: Floats) -> Floats:
    shares = prior
    for _ in range(_STEPS):
        total = np.zeros_like(prior)
        for view, each in usable:
            mixed = shares @ each
            total += (shares[:, None] * each / mixed * view.after).sum(axis=1) / view.dispersion
        renewed: Floats = total / total.sum()
        if np.abs(renewed - shares).max() < _STILL:
            return renewed
        shares = renewed
    return shares


def _log(view: View, shares: Floats) -> float:
    return float(view.after @ np.log(shares))


def _best(view: View) -> float:
    held = view.after[view.after > 0]
    return float((held * np.log(held / view.after.sum())).sum()) / view.dispersion


def _bins(view: View) -> int:
    return int((view.after + view.before > 0).sum())


def _free(view: View, features: int) -> float:
    """The feature moved anyhow: shares around the reference's by an unknown distance, and that it
    is this one among all features."""
    each = [float(log_dirichlet(worth * view.expected, view.after)) for worth in _DISTANCES]
    return log_mean(each) / view.dispersion - float(np.log(max(features, 1)))
