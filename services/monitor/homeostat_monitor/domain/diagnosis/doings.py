"""In order of time: did a feature break, or did the world move?

The null model is what the feature does by nature (natural.py). A feature that stands where the days
before and its companion lead to expect moved with the world, however far. One that left its
companion behind, while that did nothing unusual, broke: sensors and feeds break one by one. Where
a known conversion brings it back to where it should be, that is told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.diagnosis.conversions import (
    CATALOGUE,
    OFFSETS,
    SLOPES,
    log_priors,
    pushed,
    source_of,
)
from homeostat_monitor.domain.diagnosis.likelihoods import Suspect, old_shares
from homeostat_monitor.domain.diagnosis.natural import Natural, Wander
from homeostat_monitor.domain.diagnosis.views import Floats, smoothed
from homeostat_monitor.domain.windows.bins import NumberBins

# Tails of moves whose law is not known: Student's t.
_HEAVY = 4.0
# So many deviations of nature a companion may have moved and be calm.
_CALM = 3.0
# Where it accounts for more of the feature's move than this, both moved.
_ALONG = 0.5
# Logarithms of what is thought before: a known conversion, a feed that broke in some other way, a
# feature that moved as it does by nature, one that moved as it never did.
_CONVERTED, _BROKE, _NATURAL, _MOVED = np.log([0.3, 0.1, 0.5, 0.3])
# A conversion that no companion bears witness to: seasons go beyond what the reference knows too.
_CONVERTED_UNSEEN = np.log(0.05)
# A judge found it unnatural while its companion is calm: nature is left one chance in twenty.
_EXCLUDED = np.log(0.05)
# That only one of two that belong together moves as it never did.
_MOVED_ALONE = np.log(0.01)
# A spread of nothing at all.
_NONE = 1e-9


@dataclass(frozen=True, slots=True)
class Doing:
    """The likeliest fault and the likeliest move that made a feature look as it does."""

    feature: str
    # Log-odds of fault against move.
    odds: float
    fault: str
    move: str
    # It left a companion behind that is as it always was.
    is_alone: bool = False


@dataclass(frozen=True, slots=True)
class _Seen:
    """A number's moments in its own unit, what to expect of them, and how surely."""

    suspect: Suspect
    name: str
    unit: float
    expected: float
    sure: float
    # Of its deviation what is expected, and of the logarithm how surely.
    deviation: float
    spread: float
    # The companion's name where it did nothing unusual, or moved along.
    calm: str = ""


def doing_of(
    name: str,
    suspects: Mapping[str, Suspect],
    natural: Natural,
    units: Mapping[str, float],
    *,
    witness: str = "",
) -> Doing:
    """What became of a feature. ``units``: the reference's deviations of the numbers; ``witness``:
    the companion that a judge compared it with, where ``natural`` knows none."""
    if not natural.of(name).companion and witness in suspects:
        # By how much it follows is not known: where the other stays, it should.
        known = replace(natural.of(name), companion=witness, residual=natural.of(name).centre)
        natural = replace(natural, wander={**natural.wander, name: known})
    seen = _seen(name, suspects, natural, units)
    if seen is None:
        return Doing(name, -np.inf, "", f"the distribution of {name} moved")
    return _weighed(seen)


def _seen(
    name: str, suspects: Mapping[str, Suspect], natural: Natural, units: Mapping[str, float]
) -> _Seen | None:
    suspect, wander = suspects[name], natural.of(name)
    if suspect.before is None or suspect.after is None or suspect.before.deviation <= 0:
        return None
    unit = units.get(name) or suspect.before.deviation
    along, calm = _companion(wander, suspects, natural, units)
    own = (suspect.after.mean - suspect.before.mean) / unit
    if abs(along or 0.0) > _ALONG * abs(own):
        calm = ""
    sure = wander.residual if along is not None else wander.centre
    chance = np.sqrt(1 / suspect.after.rows + 1 / suspect.before.rows)
    return _Seen(
        suspect=suspect,
        name=name,
        unit=unit,
        expected=suspect.before.mean + (along or 0.0) * unit,
        sure=float(np.hypot(sure, chance)) * unit,
        deviation=suspect.before.deviation * float(np.exp(wander.wider)),
        spread=float(np.hypot(wander.spread, chance)),
        calm=calm,
    )


def _companion(
    wander: Wander,
    suspects: Mapping[str, Suspect],
    natural: Natural,
    units: Mapping[str, float],
) -> tuple[float | None, str]:
    """How far the feature should have moved with its companion, in deviations; and its name where
    it did nothing unusual itself."""
    other = suspects.get(wander.companion)
    if other is None or other.before is None or other.after is None:
        return None, ""
    moved = (other.after.mean - other.before.mean) / (units.get(other.name) or 1.0)
    is_calm = abs(moved) <= _CALM * natural.of(other.name).centre
    return wander.slope * moved, other.name if is_calm else ""


def _weighed(seen: _Seen) -> Doing:
    conversions = _conversions(seen)
    best = int(np.argmax(conversions))
    fits = np.isfinite(conversions).any()
    prior = _CONVERTED if seen.calm else _CONVERTED_UNSEEN
    faults = [float(np.logaddexp.reduce(conversions)) + prior if fits else -np.inf]
    text = f"{seen.name} looks like {CATALOGUE[best].text}"
    by_nature = _EXCLUDED if seen.calm else _NATURAL
    moves = [float(_log(seen, np.ones(1), np.zeros(1))[0]) + by_nature]
    anyhow = _anyhow(seen)
    if seen.calm:
        faults.append(anyhow + _BROKE)
        if faults[1] > faults[0]:
            text = f"{seen.name} is no longer where it should be"
        text += f", while {seen.calm}, which goes with it, is as it always was"
    moves.append(anyhow + (_MOVED_ALONE if seen.calm else _MOVED))
    odds = float(np.logaddexp.reduce(faults) - np.logaddexp.reduce(moves))
    return Doing(seen.name, odds, text, _moved(seen), bool(seen.calm))


def _moved(seen: _Seen) -> str:
    before, after = seen.suspect.before, seen.suspect.after
    if before is None or after is None:
        return f"the distribution of {seen.name} moved"
    return (
        f"{seen.name} is {after.mean:.4g} on average, {before.mean:.4g} in the days before: more"
        " than the reference's own days differ, and no conversion of a unit explains it"
    )


def _log(seen: _Seen, slopes: Floats, offsets: Floats) -> Floats:
    """Log density of the mean and of the logarithm of the deviation where values became slope x
    value + offset; the first window may hold older rows."""
    before, after = seen.suspect.before, seen.suspect.after
    if before is None or after is None:
        return np.full(len(slopes), -np.inf)
    each = []
    for old in old_shares(seen.suspect):
        apart = slopes * seen.expected + offsets - seen.expected
        kept = (1 - old) * slopes + old
        mean = seen.expected + (1 - old) * apart
        squares = ((1 - old) * slopes**2 + old) * seen.deviation**2 + old * (1 - old) * apart**2
        sure = np.maximum(np.abs(kept), 0.05) * seen.sure
        density = _student((after.mean - mean) / sure) - np.log(sure / seen.unit)
        wider = np.log(max(after.deviation, _NONE * seen.unit)) - 0.5 * np.log(squares)
        each.append(density + _student(wider / seen.spread) - np.log(seen.spread))
    found: Floats = np.logaddexp.reduce(np.array(each), axis=0) - np.log(len(each))
    return found


def _anyhow(seen: _Seen) -> float:
    """Log density of the same where nothing is expected: some deviations away, by Cauchy."""
    before, after = seen.suspect.before, seen.suspect.after
    if before is None or after is None:
        return -np.inf
    away = (after.mean - seen.expected) / seen.unit
    wider = np.log(max(after.deviation, _NONE * seen.unit) / seen.deviation)
    return float(-2 * np.log(np.pi) - np.log1p(away**2) - np.log1p(wider**2))


def _student(deviates: Floats) -> Floats:
    density: Floats = -0.5 * (_HEAVY + 1) * np.log1p(deviates**2 / _HEAVY) - 0.98
    return density


def _conversions(seen: _Seen) -> Floats:
    """Log density under each of the catalogue, with its prior; one that does not bring the
    histogram nearer than none is no explanation."""
    weights = _log(seen, SLOPES, OFFSETS) + log_priors(seen.name)
    return np.where(_is_nearer(seen.suspect), weights, -np.inf)


def _is_nearer(suspect: Suspect) -> NDArray[np.bool_]:
    bins, view = suspect.view.bins, suspect.view
    if not isinstance(bins, NumberBins) or len(bins.edges) < 2 or not view.values_before.sum():
        return np.ones(len(SLOPES), dtype=bool)
    source = source_of(bins, view.values_before)
    shares = pushed(source, bins.edges.astype(np.float64), SLOPES, OFFSETS)
    rows = float(view.values_before.sum())
    predicted = smoothed(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-12) * rows)
    plain = smoothed(view.values_before)
    gains = (np.log(predicted) - np.log(plain)) @ view.values_after
    return np.asarray(gains > 0)
