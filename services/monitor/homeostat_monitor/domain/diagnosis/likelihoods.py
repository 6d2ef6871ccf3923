"""How likely is what came of a feature, if a mechanism had foreseen it?"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from homeostat_monitor.domain.diagnosis.views import Floats, View, log_dirichlet, smoothed

# A prediction from ten quantiles is as good as one from so many rows.
_TRUST = 200.0
# Shares of the prediction for what no mechanism foresees.
_SPILL = 0.005
# Rows of the window in which it began may be from before: shares that are tried.
_OLD_SHARES = np.array([0.0, 0.2, 0.4, 0.6, 0.8])
# A deviation below this, in deviations of the reference, is none.
_NONE = 1e-9
# Degrees of freedom of moments whose tails are not known.
_HEAVY = 4.0


class Measured(NamedTuple):
    """Mean and deviation of a number, and of how many rows."""

    rows: float
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """A feature that moved, with its moments where it has any."""

    view: View
    before: Measured | None = None
    after: Measured | None = None
    # The largest share of the rows after that may be from before the change.
    blur: float = 0.0

    @property
    def name(self) -> str:
        return self.view.name


class Foreseen(NamedTuple):
    """Mean and deviation that a mechanism foresees, in the feature's unit; [mechanisms]."""

    means: Floats
    deviations: Floats


def log_as_before(suspect: Suspect) -> float:
    """Log marginal likelihood of no change at all."""
    shares = smoothed(suspect.view.values_before)[None, :]
    trust = float(suspect.view.values_before.sum())
    return float(likelihoods(suspect, shares, affine(suspect, np.ones(1), 0.0), trust=trust)[0])


def affine(suspect: Suspect, slopes: Floats, offsets: Floats | float) -> Foreseen | None:
    """Moments of slope x value + offset; None where those of the reference are not known."""
    if suspect.before is None:
        return None
    means = slopes * suspect.before.mean + offsets
    return Foreseen(means, np.abs(slopes) * suspect.before.deviation)


def old_shares(suspect: Suspect) -> Floats:
    """Shares of rows from before the change that are thought possible."""
    return _OLD_SHARES * suspect.blur if suspect.blur else _OLD_SHARES[:1]


def likelihoods(
    suspect: Suspect, predicted: Floats, foreseen: Foreseen | None, *, trust: float = _TRUST
) -> Floats:
    """Log marginal likelihood of what came, for predicted shares [mechanisms, bins] and moments."""
    view = suspect.view
    reference = smoothed(view.values_before)
    worth = max(min(trust, float(view.values_before.sum())), 1.0)
    spill = _SPILL / predicted.shape[1]
    each = []
    for old in old_shares(suspect):
        mixed = (1 - _SPILL) * ((1 - old) * predicted + old * reference) + spill
        marginal = log_dirichlet(worth * mixed, view.values_after[None, :])
        each.append(marginal + log_moments(suspect, foreseen, float(old)))
    found: Floats = np.logaddexp.reduce(np.array(each), axis=0) - np.log(len(each))
    return found / view.dispersion


def log_moments(suspect: Suspect, foreseen: Foreseen | None, old: float = 0.0) -> Floats:
    """Log density of mean and log deviation, in reference deviations, where a share of the rows
    is as before; Student's t with 4 degrees, as the tails are not known."""
    before, after = suspect.before, suspect.after
    if foreseen is None or before is None or after is None or before.deviation <= 0:
        return np.zeros(1)
    unit = before.deviation
    means = (foreseen.means - before.mean) / unit
    squares = (1 - old) * ((foreseen.deviations / unit) ** 2 + means**2) + old
    means = (1 - old) * means
    deviations = np.sqrt(np.maximum(squares - means**2, _NONE**2))
    if after.deviation <= _NONE * unit:
        return np.where(deviations <= 2 * _NONE, 0.0, -0.5 * after.rows)
    chance = suspect.view.dispersion * (1 / after.rows + 1 / before.rows)
    certain, certain_log = deviations * np.sqrt(chance), np.sqrt(1.25 * chance)
    off = (after.mean - before.mean) / unit - means
    wider = np.log(after.deviation / unit) - np.log(deviations)
    # Of a deviation with a kurtosis as of a Laplace distribution.
    return _student(off / certain, certain) + _student(wider / certain_log, certain_log)


def _student(deviates: Floats, scale: Floats | float) -> Floats:
    density: Floats = -0.5 * (_HEAVY + 1) * np.log1p(deviates**2 / _HEAVY) - np.log(scale) - 0.98
    return density


def log_vague(suspect: Suspect) -> float:
    """Log density of the moments where nothing is foreseen: some deviations away, by Cauchy."""
    before, after = suspect.before, suspect.after
    if before is None or after is None or before.deviation <= 0:
        return 0.0
    if after.deviation <= _NONE * before.deviation:
        return -0.5 * after.rows
    away = (after.mean - before.mean) / before.deviation
    wider = np.log(after.deviation / before.deviation)
    return float(-2 * np.log(np.pi) - np.log1p(away**2) - np.log1p(wider**2))
