"""How likely is what came of a feature, if a mechanism had foreseen it?"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from homeostat_monitor.domain.diagnosis.views import Floats, View, log_dirichlet, smoothed

# A prediction from ten quantiles is as good as one from so many rows.
_TRUST = 200.0
# Shares of the prediction for what no mechanism foresees.
_SPILL = 0.005
# Some of the rows may be from before the change: shares that are tried, and their priors.
_OLD_SHARES = (0.0, 0.25, 0.5)
_OLD_PRIORS = np.log(np.array([0.9, 0.05, 0.05]))
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

    @property
    def name(self) -> str:
        return self.view.name


def log_as_before(suspect: Suspect) -> float:
    """Log marginal likelihood of no change at all."""
    moments = log_moments(suspect, np.ones(1), np.zeros(1), np.zeros(1))
    return float(likelihoods(suspect, suspect.view.expected[None, :-1], moments, trust=0.0)[0])


def likelihoods(
    suspect: Suspect, predicted: Floats, moments: Floats, *, trust: float = _TRUST
) -> Floats:
    """Of predicted shares [mechanisms, bins] with the log-likelihood of the moments."""
    view = suspect.view
    reference = smoothed(view.values_before)
    bins = predicted.shape[1]
    worth = min(trust, float(view.values_before.sum())) or float(view.values_before.sum())
    each = []
    for old, prior in zip(_OLD_SHARES, _OLD_PRIORS, strict=True):
        mixed = (1 - old) * predicted + old * reference
        mixed = (1 - _SPILL) * mixed + _SPILL / bins
        marginal = log_dirichlet(worth * mixed, view.values_after[None, :])
        # Old rows among the new ones blur the moments, which then say nothing.
        shift = moments if not old else np.minimum(moments, log_vague(suspect))
        each.append(marginal + shift + prior)
    found: Floats = np.logaddexp.reduce(np.array(each), axis=0) / view.dispersion
    return found


def log_moments(suspect: Suspect, slopes: Floats, offsets: Floats, noises: Floats) -> Floats:
    """Log density of mean and log deviation, in reference deviations, under slope x value +
    offset + noise; Student's t with 4 degrees, as the tails are not known."""
    before, after = suspect.before, suspect.after
    if before is None or after is None or before.deviation <= 0:
        return np.zeros(len(slopes))
    unit = before.deviation
    if after.deviation <= 1e-9 * unit:
        # Not one value differs: told by the mechanism of a stuck feature.
        return np.full(len(slopes), -0.5 * after.rows)
    mean = (slopes * before.mean + offsets) / unit
    deviation = np.maximum(np.hypot(slopes, noises / unit), 1e-9)
    certain = deviation * np.sqrt(1 / after.rows + 1 / before.rows)
    # Of a deviation, with a kurtosis as of a Laplace distribution.
    certain_log = np.sqrt(1.25 * (1 / after.rows + 1 / before.rows))
    return _student((after.mean / unit - mean) / certain, certain) + _student(
        (np.log(after.deviation / unit) - np.log(deviation)) / certain_log, certain_log
    )


def _student(deviates: Floats, scale: Floats | float) -> Floats:
    density: Floats = -0.5 * (_HEAVY + 1) * np.log1p(deviates**2 / _HEAVY) - np.log(scale) - 0.98
    return density


def log_vague(suspect: Suspect) -> float:
    """Log density of the moments where nothing is foreseen: some deviations away, by Cauchy."""
    before, after = suspect.before, suspect.after
    if before is None or after is None or before.deviation <= 0:
        return 0.0
    if after.deviation <= 1e-9 * before.deviation:
        return -0.5 * after.rows
    away = (after.mean - before.mean) / before.deviation
    wider = np.log(after.deviation / before.deviation)
    return float(-2 * np.log(np.pi) - np.log1p(away**2) - np.log1p(wider**2))
