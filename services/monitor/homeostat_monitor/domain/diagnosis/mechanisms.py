"""What could have made a feature look as it does: faults of data and moves of the population.

Every mechanism predicts the feature's histogram (and a number's mean and deviation) from the
reference. They are compared by marginal likelihood: one that predicts exactly what came beats one
that could have predicted anything (Occam's factor; MacKay 2003, chapter 28).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from homeostat_monitor.domain.diagnosis.conversions import (
    CATALOGUE,
    OFFSETS,
    SLOPES,
    Source,
    pushed,
    source_of,
)
from homeostat_monitor.domain.diagnosis.likelihoods import (
    Foreseen,
    Suspect,
    affine,
    likelihoods,
    log_as_before,
    log_moments,
    log_vague,
    old_shares,
)
from homeostat_monitor.domain.diagnosis.views import (
    Floats,
    log_dirichlet,
    log_mean,
    smoothed,
)
from homeostat_monitor.domain.windows.bins import CategoryBins, NumberBins

# Sizes of a drift without any form: rows that its prior is worth around the reference.
_FORMLESS = (3.0, 30.0, 300.0, 3000.0)
# Share of a stuck feature's rows that hold the one value.
_STUCK = 0.995
# Of a value that could have been any, the logarithm of a density per deviation.
_VALUE_UNKNOWN = -2.0
# A swap of columns breaks two features at once: so much less likely than one, in log-odds.
_SECOND_FAULT = 4.0
# Fewest texts of a column whose exchange is tried one by one, by share.
_MOST_TEXTS = 16
# Nodes of a normal deviate, and their weights.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One explanation of one feature."""

    kind: str
    is_fault: bool
    # Log marginal likelihood with the log prior among its like.
    weight: float
    text: str
    partner: str = ""


def mechanisms(suspect: Suspect, others: Mapping[str, Suspect]) -> list[Mechanism]:
    """Every explanation that is tried, the likeliest first. ``others``: columns that the feature
    may have been exchanged with."""
    if isinstance(suspect.view.bins, NumberBins):
        found = _of_number(suspect, suspect.view.bins)
    else:
        found = _of_texts(suspect, suspect.view.bins)
    found += _swaps(suspect, others)
    found.append(Mechanism("formless", False, _formless(suspect), "its distribution moved"))
    return sorted(found, key=lambda each: -each.weight)


def log_odds_of_fault(found: Sequence[Mechanism]) -> float:
    """How much more likely a fault is than a move of the population, by this feature alone."""
    faults = [each.weight for each in found if each.is_fault]
    moves = [each.weight for each in found if not each.is_fault]
    return float(np.logaddexp.reduce(faults) - np.logaddexp.reduce(moves))


def _formless(suspect: Suspect) -> float:
    view = suspect.view
    reference = smoothed(view.values_before)
    flat = np.full(len(reference), 0.5)
    priors = [*(worth * reference for worth in _FORMLESS), flat]
    marginal = log_mean([float(log_dirichlet(each, view.values_after)) for each in priors])
    return (marginal + log_vague(suspect)) / view.dispersion + math.log(0.3)


def _of_number(suspect: Suspect, bins: NumberBins) -> list[Mechanism]:
    source = source_of(bins, suspect.view.values_before)
    if not suspect.view.values_before.sum() or len(bins.edges) < 2:
        return [_stuck(suspect)]
    weights = _affine(suspect, source, SLOPES, OFFSETS)
    # What leaves the reference as it is explains nothing that moved.
    best = int(np.argmax(weights))
    conversion = log_mean(weights) + np.log(0.4)
    text = f"looks like {CATALOGUE[best].text}"
    found = [
        Mechanism("unit", True, conversion, text),
        _stuck(suspect),
    ]
    return found + _moves(suspect, source)


def _affine(suspect: Suspect, source: Source, slopes: Floats, offsets: Floats) -> Floats:
    shares = pushed(source, _edges(suspect), slopes, offsets)
    return likelihoods(suspect, shares, affine(suspect, slopes, offsets))


def _edges(suspect: Suspect) -> Floats:
    bins = suspect.view.bins
    if not isinstance(bins, NumberBins):
        raise TypeError(f"{suspect.name} holds texts")
    return bins.edges.astype(np.float64)


def _centre(suspect: Suspect, source: Source) -> tuple[float, float]:
    """Mean and deviation of the reference, from its bins where nothing better is known."""
    if suspect.before is not None and suspect.before.deviation > 0:
        return suspect.before.mean, suspect.before.deviation
    middles = np.concatenate([(source.edges[1:] + source.edges[:-1]) / 2, source.atoms])
    shares = np.concatenate([np.diff(source.spread), source.atom_shares])
    mean = float(middles @ shares)
    return mean, float(np.sqrt(max(((middles - mean) ** 2) @ shares, 1e-300)))


def _moves(suspect: Suspect, source: Source) -> list[Mechanism]:
    """All values further up or down, wider or narrower, or noisier."""
    mean, deviation = _centre(suspect, source)
    sizes = np.geomspace(0.03, 4, 24)
    shifts = np.concatenate([-sizes, sizes]) * deviation
    ones = np.ones(len(shifts))
    scales = np.concatenate([np.geomspace(0.2, 0.93, 12), np.geomspace(1.07, 5, 12)])
    around = mean * (1 - scales)
    wide = np.repeat(scales[::3], 16)
    far = np.tile(np.concatenate([-np.geomspace(0.1, 3, 8), np.geomspace(0.1, 3, 8)]), 8)
    both = mean * (1 - wide) + far * deviation
    shifted, scaled = (
        _affine(suspect, source, ones, shifts),
        _affine(suspect, source, scales, around),
    )
    moved = _affine(suspect, source, wide, both)
    best = shifts[int(np.argmax(shifted))] / deviation
    wider = scales[int(np.argmax(scaled))]
    by = f"all values moved by about {best:+.2g} deviations, their shape is kept"
    spread = f"its spread is about {wider:.2g} times the reference's, its centre is kept"
    return [
        Mechanism("shift", False, log_mean(shifted) + np.log(0.3), by),
        Mechanism("scale", False, log_mean(scaled) + np.log(0.1), spread),
        Mechanism("affine", False, log_mean(moved) + np.log(0.1), "its centre and spread moved"),
        _noise(suspect, source, deviation),
    ]


def _noise(suspect: Suspect, source: Source, deviation: float) -> Mechanism:
    sizes = np.geomspace(0.2, 4, 10) * deviation
    offsets = (sizes[:, None] * _NODES[None, :]).ravel()
    shares = pushed(source, _edges(suspect), np.ones(len(offsets)), offsets)
    each = shares.reshape(len(sizes), len(_NODES), -1)
    predicted = np.einsum("n,snb->sb", _WEIGHTS / _WEIGHTS.sum(), each)
    before = suspect.before
    foreseen = before and Foreseen(
        np.full(len(sizes), before.mean), np.hypot(before.deviation, sizes)
    )
    weights = likelihoods(suspect, predicted, foreseen)
    size = sizes[int(np.argmax(weights))] / deviation
    text = f"noise of about {size:.2g} deviations was added, its centre is kept"
    return Mechanism("noise", False, log_mean(weights) + np.log(0.2), text)


def _stuck(suspect: Suspect) -> Mechanism:
    """One value only; which one is not known before."""
    view = suspect.view
    bins = len(view.values_after)
    predicted = np.full((bins, bins), (1 - _STUCK) / max(bins - 1, 1))
    np.fill_diagonal(predicted, _STUCK)
    found = [
        likelihoods(replace(suspect, blur=0.0), _with_old(suspect, predicted, old), None)
        + _moments_of_stuck(suspect, float(old))
        for old in old_shares(suspect)
    ]
    weight = log_mean(np.concatenate(found)) + math.log(0.2)
    share = float(view.values_after.max() / max(view.values_after.sum(), 1))
    return Mechanism("stuck", True, weight, f"stuck: {share:.0%} of its values are alike")


def _with_old(suspect: Suspect, predicted: Floats, old: float) -> Floats:
    return (1 - old) * predicted + old * smoothed(suspect.view.values_before)


def _moments_of_stuck(suspect: Suspect, old: float) -> Floats:
    """With the value that makes the mean what it is, if it lies in the bin; [bins]."""
    before, after, bins = suspect.before, suspect.after, suspect.view.bins
    if before is None or after is None or not isinstance(bins, NumberBins):
        return np.zeros(1)
    value = (after.mean - old * before.mean) / (1 - old)
    edges = np.concatenate([[-np.inf], bins.edges.astype(np.float64), [np.inf]])
    means = np.clip(value, edges[:-1], edges[1:])
    means = np.where(np.isfinite(means), means, value)
    foreseen = Foreseen(means, np.zeros(len(means)))
    # Any value at all was possible.
    return (log_moments(suspect, foreseen, old) + _VALUE_UNKNOWN) / suspect.view.dispersion


def _of_texts(suspect: Suspect, bins: CategoryBins) -> list[Mechanism]:
    """Two texts that are sent for one another; else the population moved in its own way."""
    reference = smoothed(suspect.view.values_before)
    found = [_stuck(suspect)]
    kept = np.argsort(-reference[: bins.kept], kind="stable")[:_MOST_TEXTS]
    pairs = [(a, b) for at, a in enumerate(kept) for b in kept[at + 1 :]]
    if not pairs:
        return found
    predicted = np.tile(reference, (len(pairs), 1))
    for row, (a, b) in enumerate(pairs):
        predicted[row, [a, b]] = reference[[b, a]]
    weights = likelihoods(suspect, predicted, None, trust=1000.0)
    a, b = pairs[int(np.argmax(weights))]
    names = {place: text for text, place in bins.table.items() if place < bins.kept}
    text = f"{names[int(a)]!r} and {names[int(b)]!r} look exchanged"
    found.append(Mechanism("exchange", True, log_mean(weights) + np.log(0.5), text))
    return found


def _swaps(suspect: Suspect, others: Mapping[str, Suspect]) -> list[Mechanism]:
    """The feature's window fits another column's reference, and the other's fits its own."""
    found = []
    fitting = [each for each in others.values() if _is_alike(suspect, each)]
    for other in fitting:
        mine, theirs = _as_if(suspect, other), _as_if(other, suspect)
        alone = np.logaddexp(log_as_before(other), _formless(other) - _SECOND_FAULT)
        # That the other fits as well speaks for the swap, as far as nothing simpler explains it.
        weight = mine + min(theirs - float(alone), 3 * _SECOND_FAULT)
        text = f"{suspect.name} and {other.name} look exchanged: each has the other's values"
        prior = np.log(0.3 / len(fitting))
        found.append(Mechanism("swap", True, weight + prior, text, other.name))
    return found


def _is_alike(suspect: Suspect, other: Suspect) -> bool:
    return other.name != suspect.name and other.view.is_category == suspect.view.is_category


def _as_if(suspect: Suspect, source: Suspect) -> float:
    """Log-likelihood of the feature's window as if another column's values were in it."""
    bins, from_bins = suspect.view.bins, source.view.bins
    if isinstance(bins, NumberBins) and isinstance(from_bins, NumberBins):
        one, none = np.ones(1), np.zeros(1)
        foreseen = affine(source, one, none)
        shares = pushed(source_of(from_bins, source.view.values_before), bins.edges, one, none)
        return float(likelihoods(suspect, shares, foreseen)[0])
    if not isinstance(bins, CategoryBins) or not isinstance(from_bins, CategoryBins):
        raise TypeError(f"{suspect.name} and {source.name} are of different kinds")
    shares = np.zeros((1, bins.width))
    reference = smoothed(source.view.values_before)
    held = np.bincount(list(from_bins.table.values()), minlength=from_bins.width)
    for text, place in from_bins.table.items():
        shares[0, bins.table.get(text, bins.unseen)] += reference[place] / held[place]
    shares /= max(shares.sum(), 1e-12)
    return float(likelihoods(suspect, shares, None, trust=1000.0)[0])
