"""Whose doing it is: the features' shares in what moved."""

from collections.abc import Mapping, Sequence

from homeostat_monitor.domain.diagnosis import Case, FeatureShare
from homeostat_monitor.domain.diagnosis.dependence import Dependence
from homeostat_monitor.domain.diagnosis.likelihoods import Suspect
from homeostat_monitor.domain.judges import Finding, Rule

# Chance of naming a feature that did not move, over all of them.
_LEVEL = 1e-3
# Alerts of these rules are about the features that they name.
BROKEN = frozenset({Rule.MISSING_VALUES, Rule.UNSEEN_VALUES, Rule.OUT_OF_RANGE, Rule.STUCK})


def breaches(case: Case) -> list[Finding]:
    """The least likely first."""
    return sorted((each for each in case.findings if each.is_breach), key=_rank)


def _rank(finding: Finding) -> tuple[float, float, str]:
    chance = 1.0 if finding.p_value is None else finding.p_value
    return chance, -finding.excess, finding.feature


def broken_pairs(
    case: Case, suspects: Mapping[str, Suspect], pairs: Sequence[Dependence]
) -> list[Dependence]:
    """Pairs that go together less than before though neither feature's own move explains it; none
    where a judge of correlations, who knows their spread, is silent."""
    judged = [each for each in case.findings if each.rule is Rule.CORRELATION]
    if judged and not any(each.is_breach for each in judged):
        return []
    return [
        each
        for each in pairs
        if each.is_weaker
        and each.p_value < _LEVEL / max(len(pairs), 1)
        and each.excess > max(suspects[name].view.distance.excess for name in each.features)
    ]


def shares_of(
    case: Case, suspects: Mapping[str, Suspect], broken: Sequence[Dependence]
) -> list[FeatureShare]:
    """By what chance does not explain. A dependence is the doing of the feature that the most
    broken ones have in common; predictions follow from inputs and have no share."""
    told = {each.feature for each in breaches(case) if each.rule is not Rule.CORRELATION}
    tests = max(len(suspects), 1)
    excess = {
        name: each.view.distance.excess
        for name, each in suspects.items()
        if each.view.distance.p_value < _LEVEL / tests or name in told
    }
    left = list(broken)
    for each in broken:
        movers = [name for name in each.features if name in excess]
        if movers:
            excess[max(movers, key=lambda name: excess[name])] += each.excess
            left.remove(each)
    while left:
        worst = max(sorted(_named(left)), key=lambda name: _blame(name, left))
        excess[worst] = excess.get(worst, 0.0) + sum(
            each.excess for each in left if worst in each.features
        )
        left = [each for each in left if worst not in each.features]
    total = sum(excess.values())
    ranked = sorted(excess, key=lambda name: (-excess[name], name))
    return [
        FeatureShare(name, excess[name] / total, _finding(case, suspects[name]))
        for name in ranked
        if total > 0 and excess[name] > 0
    ]


def own_first(case: Case, shares: Sequence[FeatureShare]) -> list[FeatureShare]:
    """An alert of broken values is about those that are broken, whatever else moved more."""
    if case.rule not in BROKEN:
        return list(shares)
    own = {each.feature for each in case.findings if each.is_breach and each.rule is case.rule}
    return sorted(shares, key=lambda each: each.feature not in own)


def _named(pairs: Sequence[Dependence]) -> set[str]:
    return {name for each in pairs for name in each.features}


def _blame(name: str, left: Sequence[Dependence]) -> float:
    return sum(each.excess for each in left if name in each.features)


def _finding(case: Case, suspect: Suspect) -> Finding:
    """What was measured of the feature; its distance where no judge spoke of it."""
    about = [each for each in case.findings if suspect.name in (each.feature, each.other_feature)]
    if about:
        return min(about, key=lambda each: (not each.is_breach, *_rank(each)))
    far = suspect.view.distance
    return Finding(
        Rule.COVARIATE, suspect.name, "g_excess", far.excess, 0.0, 0.0, False, p_value=far.p_value
    )
