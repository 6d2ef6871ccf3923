"""Evidence for and against each class of causes, in log-odds, and the posterior that it adds up to.

A weight is at most a few units: evidence from sums can be wrong in ways that no likelihood knows.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Case, Evidence, FeatureShare
from homeostat_monitor.domain.diagnosis.in_order import evidence_in_order
from homeostat_monitor.domain.diagnosis.mechanisms import Mechanism, log_odds_of_fault
from homeostat_monitor.domain.diagnosis.mixture import Mixture
from homeostat_monitor.domain.diagnosis.picture import LOSS_RULES, Picture
from homeostat_monitor.domain.diagnosis.since import change_of_loss
from homeostat_monitor.domain.diagnosis.surroundings import (
    loss_explained,
    of_loss,
    of_surroundings,
)
from homeostat_monitor.domain.diagnosis.views import distance
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.windows.bins import CategoryBins

# Before any evidence: most alerts are of data and populations; UNKNOWN wins where nothing is told.
PRIORS: Mapping[Cause, float] = MappingProxyType(
    {
        Cause.UNKNOWN: 0.0,
        Cause.DATA_BREAK: -1.0,
        Cause.COVARIATE: -1.0,
        Cause.CONCEPT: -1.5,
        Cause.LABEL_SHIFT: -1.5,
        Cause.NEW_VERSION: -1.5,
        Cause.INFRASTRUCTURE: -1.5,
    }
)
_MOST = 5.0
# Nulls and texts that were never there before are seldom the population's doing.
_BROKEN_VALUES = 4.0
# With fewer broken rows than this share it is not they that raised the mean loss of all.
_ENOUGH_BROKEN = 0.05
# Shares of rows that judges tell of, from which on they are blamed for a loss; and what they are.
_BROKEN: Mapping[Rule, float] = MappingProxyType(
    {
        Rule.MISSING_VALUES: _ENOUGH_BROKEN,
        Rule.UNSEEN_VALUES: _ENOUGH_BROKEN,
        Rule.OUT_OF_RANGE: 0.5,
    }
)
_SAID: Mapping[Rule, str] = MappingProxyType(
    {
        Rule.MISSING_VALUES: "null",
        Rule.UNSEEN_VALUES: "texts that the reference never had",
        Rule.OUT_OF_RANGE: "outside of all that the reference knows",
    }
)
_MOVED = 2.0
# Log-odds of fault against move below which both are told.
_IN_DOUBT = 1.5
# Chance of as much movement; the larger is enough where a judge has told of it.
_CERTAIN, _DOUBTFUL = 1e-3, 0.05
_OF_VALUES = frozenset({Rule.COVARIATE, Rule.OUT_OF_RANGE, Rule.STUCK})
# Features whose doing is looked at in detail.
LOOKED_AT = 3
# A dependence as strong as this binds two features: one does not move without the other.
_BOUND = 0.7
# Shares of what moved: below the first a mixture explains nothing, from the second on all.
_HARDLY, _WELL = 0.3, 0.6

Explained = Mapping[str, Sequence[Mechanism]]


def posterior(evidence: Iterable[Evidence]) -> dict[Cause, float]:
    """Priors and weights to probabilities that add up to 1."""
    scores = dict(PRIORS)
    for each in evidence:
        scores[each.cause] += each.weight
    top = max(scores.values())
    raised = {cause: float(np.exp(score - top)) for cause, score in scores.items()}
    total = sum(raised.values())
    return {cause: value / total for cause, value in raised.items()}


def evidence_of(
    case: Case, picture: Picture, explained: Explained, mixed: Mixture | None
) -> list[Evidence]:
    """All that speaks for or against a cause, the weightiest first."""
    if case.mode is Mode.TIME_ORDERED:
        inputs = evidence_in_order(
            case, picture.shares, picture.doings, loss_explained(case, picture), picture.known
        )
        others = [*_of_pace(picture), *_of_mixture(mixed, picture)]
        found = [*inputs, *others, *of_loss(case, picture), *of_surroundings(case, picture)]
        return sorted(found, key=lambda each: -abs(each.weight))
    found = [
        *_of_values(case, picture),
        *_of_told(case),
        *_of_mechanisms(case, picture, explained),
        *_of_pairs(picture),
        *_of_pace(picture),
        *_of_company(picture),
        *_of_mixture(mixed, picture),
        *of_loss(case, picture),
        *of_surroundings(case, picture),
    ]
    return sorted(found, key=lambda each: -abs(each.weight))


def _share(picture: Picture, name: str) -> float:
    return next((each.share for each in picture.shares if each.feature == name), 0.0)


def _of_values(case: Case, picture: Picture) -> list[Evidence]:
    """Nulls, texts never seen, numbers far outside: what a source sends when it breaks."""
    found = []
    for each in picture.shares[:LOOKED_AT]:
        view = picture.suspects[each.feature].view
        rows = max(view.after.sum(), 1.0)
        nulls, were = view.after[-1] / rows, view.expected[-1]
        told = _told(case, each.feature)
        if _is_surplus(view.after[-1], were * rows) or Rule.MISSING_VALUES in told:
            text = f"{nulls:.1%} of {each.feature} are null, {were:.2%} in the reference"
            weight = _BROKEN_VALUES * _about_it(case, each) * _enough(case, nulls - were)
            found.append(Evidence(Cause.DATA_BREAK, weight, text))
        unseen = float(case.layout.unseen(each.feature, picture.after)) / rows
        if Rule.UNSEEN_VALUES in told or (view.is_category and unseen > 0.05):
            text = f"{unseen:.1%} of {each.feature} are texts that the reference never had"
            weight = _BROKEN_VALUES * _about_it(case, each) * _enough(case, unseen)
            found.append(Evidence(Cause.DATA_BREAK, weight, text))
        outside = case.layout.out_of_range(each.feature, picture.after) / rows
        if outside > 0.5:
            text = f"{outside:.0%} of {each.feature} are outside of all that the reference knows"
            found.append(Evidence(Cause.DATA_BREAK, 2.0 * each.share, text))
    return found


def _of_told(case: Case) -> Iterator[Evidence]:
    """Why a loss rose is asked of whole blocks of windows, which may end before a break that a
    judge has told of by now: then what that judge measured speaks, if it began with the loss."""
    loss = case.loss
    if case.rule not in LOSS_RULES or loss is None:
        return
    shown_us = case.windows[-1].end_us if case.windows else 0
    until_us = change_of_loss(loss, case.at_us).to_us
    told = {(each.rule, each.feature): each for each in case.findings if each.is_breach}
    for (rule, feature), each in told.items():
        if rule not in _BROKEN or each.since_us is None or not feature:
            continue
        broken = each.observed - each.reference
        if shown_us <= each.since_us <= until_us and broken >= _BROKEN[rule]:
            text = f"{broken:.0%} of {feature} are {_SAID[rule]} since then, as its own alert tells"
            yield Evidence(Cause.DATA_BREAK, _BROKEN_VALUES, text)


def _told(case: Case, feature: str) -> set[Rule]:
    return {each.rule for each in case.findings if each.is_breach and each.feature == feature}


def _about_it(case: Case, share: FeatureShare) -> float:
    """An alert about nulls or new texts is about them, whatever else moved."""
    return 1.0 if case.rule in (Rule.MISSING_VALUES, Rule.UNSEEN_VALUES) else share.share


def _enough(case: Case, broken: float) -> float:
    """A source may break while the loss is high for another reason: how much of a mean loss that
    rose such a share of rows can answer for."""
    if case.rule not in LOSS_RULES:
        return 1.0
    return min(max(broken, 0.0) / _ENOUGH_BROKEN, 1.0)


def _is_surplus(count: float, expected: float) -> bool:
    """More than chance makes of it: beyond four deviations of a Poisson count, and three rows."""
    return bool(count > expected + 4 * np.sqrt(expected + 0.25) and count >= 3)


def _values_moved(case: Case, picture: Picture, name: str) -> bool:
    """The known values moved, not only how often they are missing or never seen before."""
    view = picture.suspects[name].view
    before, after = view.values_before, view.values_after
    if isinstance(view.bins, CategoryBins):
        before, after = before[: view.bins.unseen], after[: view.bins.unseen]
    chance = distance(before, after, view.dispersion).p_value
    return chance < (_DOUBTFUL if _told(case, name) & _OF_VALUES else _CERTAIN)


def _of_mechanisms(case: Case, picture: Picture, explained: Explained) -> list[Evidence]:
    """What would make the moved features look as they do."""
    found: list[Evidence] = []
    seen: set[str] = set()
    for each in picture.shares[:LOOKED_AT]:
        if each.feature in seen or not _values_moved(case, picture, each.feature):
            continue
        tried = explained[each.feature]
        best = next(m for m in tried if m.is_fault == (log_odds_of_fault(tried) > 0))
        seen.update({each.feature, best.partner})
        share = each.share + _share(picture, best.partner)
        found += _of_feature(each.feature, share, tried)
    return found


def _of_feature(name: str, share: float, tried: Sequence[Mechanism]) -> Iterator[Evidence]:
    """The likelier of fault and move; in doubt the other as well."""
    odds = log_odds_of_fault(tried)
    for is_fault, for_it in ((True, odds), (False, -odds)):
        best = next((each for each in tried if each.is_fault == is_fault), None)
        if best is not None and for_it > -_IN_DOUBT:
            cause = Cause.DATA_BREAK if is_fault else Cause.COVARIATE
            weight = (_MOVED + min(max(for_it, 0.0), _MOST - _MOVED)) * share
            yield Evidence(cause, weight, _about(name, best))


def _about(name: str, mechanism: Mechanism) -> str:
    is_named = mechanism.text.startswith(name)
    return mechanism.text if is_named else f"{name}: {mechanism.text}"


def _of_pairs(picture: Picture) -> list[Evidence]:
    """Each feature alone is as before, but no longer in step with the other: rows were joined or
    ordered wrongly."""
    if not picture.broken:
        return []
    worst = max(picture.broken, key=lambda each: each.excess)
    a, b = worst.features
    text = (
        f"{a} and {b} no longer go together (correlation {worst.after:+.2f}, was"
        f" {worst.before:+.2f}) though each alone is as before"
    )
    marginal = max(picture.suspects[name].view.distance.excess for name in (a, b))
    part = worst.excess / max(worst.excess + marginal, 1e-9)
    share = _share(picture, a) + _share(picture, b)
    return [Evidence(Cause.DATA_BREAK, 4.0 * part * share, text)]


def _of_pace(picture: Picture) -> list[Evidence]:
    """Feeds break at once, populations move."""
    if not picture.inputs_moved or picture.change.gradual < 1.0:
        return []
    weight = min(picture.change.gradual, 3.0) * 0.7
    text = f"it came gradually (log-odds {picture.change.gradual:.1f} against at once)"
    return [Evidence(Cause.COVARIATE, weight, text)]


def _of_company(picture: Picture) -> list[Evidence]:
    """Features that depend on each other move together when the population does."""
    moved = {each.feature for each in picture.shares if each.share >= 0.05}
    bound = [each for each in picture.pairs if abs(each.before) >= _BOUND]
    for each in bound:
        if moved >= set(each.features) and each not in picture.broken and abs(each.after) >= _BOUND:
            a, b = each.features
            text = f"{a} and {b} moved and still go together (correlation {each.after:+.2f})"
            return [Evidence(Cause.COVARIATE, 1.0, text)]
    first = picture.shares[0].feature if picture.shares else ""
    alone = [
        name
        for each in bound
        if first in each.features
        for name in each.features
        if name not in moved
    ]
    if alone and picture.change.gradual < 1.0:
        text = f"{first} moved at once and {alone[0]}, which goes with it, did not"
        return [Evidence(Cause.DATA_BREAK, 0.7, text)]
    return []


def _of_mixture(mixed: Mixture | None, picture: Picture) -> list[Evidence]:
    if mixed is None or not (picture.inputs_moved or mixed.log_odds > 0):
        return []
    most = int(np.argmax(np.abs(mixed.after - mixed.before)))
    text = (
        f"class {most} at {mixed.after[most]:.0%} instead of {mixed.before[most]:.0%} explains"
        f" {mixed.explained:.0%} of what moved in inputs and scores"
    )
    moved = _MOVED if picture.inputs_moved else 0.0
    weight = (moved + min(mixed.log_odds, 6.0)) * _mostly(mixed.explained)
    if mixed.log_odds <= 0 or mixed.explained < _HARDLY:
        text = f"other shares of the classes explain only {mixed.explained:.0%} of what moved"
        return [Evidence(Cause.LABEL_SHIFT, float(np.clip(mixed.log_odds, -3.0, -1.0)), text)]
    return [Evidence(Cause.LABEL_SHIFT, weight, text)]


def _mostly(explained: float) -> float:
    """A cause explains most of what moved, or it is another's."""
    return min((explained - _HARDLY) / (_WELL - _HARDLY), 1.0)
