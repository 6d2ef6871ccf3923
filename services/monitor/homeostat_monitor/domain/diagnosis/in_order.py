"""Shares and evidence in order of time: what the judges found unnatural, and nothing else.

The judges know from the reference's own blocks and from the calendar how far each feature goes by
nature. What they did not find is not told again by tests that take rows for independent.
"""

from collections.abc import Iterator, Mapping, Sequence

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.diagnosis import Case, Evidence, FeatureShare
from homeostat_monitor.domain.diagnosis.doings import Doing
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.layout import Counts, Layout

# Rules that are about how often something is sent, not about where values stand.
_OF_RATES = frozenset({Rule.MISSING_VALUES, Rule.UNSEEN_VALUES, Rule.STUCK})
# What is sent instead of the feature's values.
_REPLACING = frozenset({Rule.UNSEEN_VALUES, Rule.STUCK})
_OF_VALUES = frozenset({Rule.COVARIATE, Rule.OUT_OF_RANGE, Rule.CORRELATION})
_OF_SCORES = frozenset({Rule.PREDICTION, Rule.ESTIMATED_PERFORMANCE})
OFF_COMPANION = "off_companion"
# Times its threshold beyond which a finding is not more telling.
_MOST_EXCESS = 5.0
# What other rules found has together at most half the part of what the alert is about.
_BESIDE = 0.5
# Features whose doing is looked at.
_LOOKED_AT = 3
_SURE, _MOVED, _MOST = 4.0, 2.0, 4.0
# Of the windows before: what stood still in so many of them, each at its own value, may do so.
_STANDS, _FEWEST_BEFORE = 0.5, 3
# Below these log-odds the other is told as well.
_IN_DOUBT = 1.5
_WHAT: Mapping[Rule, str] = {
    Rule.MISSING_VALUES: "{0:.1%} of {1} are missing",
    Rule.UNSEEN_VALUES: "{0:.1%} of {1} are texts that the reference never had",
    Rule.STUCK: "{1} shows one and the same value where the reference varies",
}


def told_features(case: Case) -> list[str]:
    """Every feature that some judge found unnatural."""
    named = [one for each in ranked(case) for one in (each.feature, each.other_feature)]
    return list(dict.fromkeys(one for one in named if one in case.layout.names))


def witness_of(case: Case, name: str) -> str:
    """The other one of a pair of which a judge found that one left the other; empty: none."""
    for each in ranked(case):
        pair = {each.feature, each.other_feature}
        if each.statistic == OFF_COMPANION and name in pair:
            return next(iter(pair - {name}), "")
    return ""


def shares_in_order(case: Case, doings: Mapping[str, Doing]) -> list[FeatureShare]:
    """By how far beyond nature the judges found each, squared. Two that no longer go together are
    the doing of the one that left."""
    own: dict[str, float] = {}
    beside: dict[str, float] = {}
    about: dict[str, Finding] = {}
    for each in ranked(case):
        name = blamed(each, doings)
        if name not in case.layout.names:
            continue
        part = min(each.excess, _MOST_EXCESS) ** 2
        into = own if each.rule is case.rule else beside
        into[name] = max(into.get(name, 0.0), part)
        about.setdefault(name, each)
    if own and beside:
        factor = min(_BESIDE * sum(own.values()) / sum(beside.values()), 1.0)
        beside = {name: part * factor for name, part in beside.items()}
    parts = {name: own.get(name, 0.0) + beside.get(name, 0.0) for name in {**own, **beside}}
    total = sum(parts.values())
    names = sorted(parts, key=lambda name: (-parts[name], name))
    return [FeatureShare(name, parts[name] / total, about[name]) for name in names]


def blamed(finding: Finding, doings: Mapping[str, Doing]) -> str:
    """Of two that no longer go together the one that left while the other stayed."""
    pair = [doings[each] for each in (finding.feature, finding.other_feature) if each in doings]
    if not finding.other_feature or not pair:
        return finding.feature
    return max(pair, key=lambda each: (each.is_alone, each.odds)).feature


def ranked(case: Case) -> list[Finding]:
    """Of the alert's own rule first, then the furthest beyond nature."""
    found = [each for each in case.findings if each.is_breach and not _is_its_way(case, each)]
    return sorted(found, key=lambda each: (each.rule is not case.rule, -each.excess, each.feature))


def _is_its_way(case: Case, finding: Finding) -> bool:
    """What is one value a window and another the next (a weekday, a tariff of the day) does not
    stand still: the windows before show it, where the reference's blocks went across days."""
    if finding.rule is not Rule.STUCK or finding.feature not in case.layout.names:
        return False
    values = [_only_value(case.layout, finding.feature, each.sums) for each in case.windows]
    *before, now = values or [None]
    others = sum(each is not None and each != now for each in before)
    return len(before) >= _FEWEST_BEFORE and others >= _STANDS * len(before)


def _only_value(layout: Layout, name: str, sums: Counts) -> float | None:
    """The one value of all rows, or its bin; None where rows differ."""
    # Judges bring scipy, which the process does without until it judges.
    from homeostat_monitor.domain.judges.stuck import still  # noqa: PLC0415

    alike, rows = still(layout, name, sums)
    if not rows or alike < rows:
        return None
    moments = layout.mean_and_deviation(name, sums)
    return float(layout.histogram(name, sums).argmax()) if moments is None else moments[0]


def evidence_in_order(
    case: Case,
    shares: Sequence[FeatureShare],
    doings: Mapping[str, Doing],
    explained: Mapping[str, float],
    known: float,
) -> list[Evidence]:
    """``explained``: the part of a risen loss that a break of the feature can explain, 0 to 1; of
    other alerts empty. ``known``: how well the reference knows what days are like, 0 to 1."""
    parts = {each.feature: each.share for each in shares}
    found = [*_of_rates(case, parts, explained), *_of_pairs(case, doings, parts, known)]
    for each in shares[:_LOOKED_AT]:
        if _values_told(case, each.feature, doings):
            found += _of_doing(doings[each.feature], each.share, explained)
    if not shares and case.rule in _OF_SCORES:
        text = "the scores moved, and they follow from the inputs alone: so did these"
        found.append(Evidence(Cause.COVARIATE, _MOVED, text))
    return found


def _of_rates(
    case: Case, parts: Mapping[str, float], explained: Mapping[str, float]
) -> Iterator[Evidence]:
    """Nulls, texts never seen and stuck values are never the season's doing."""
    told = [each for each in ranked(case) if each.rule in _OF_RATES]
    for each in told[:_LOOKED_AT]:
        # Scores that are missing say nothing of what the model is fed.
        own = float(bool(each.feature))
        share = own if case.rule in _OF_RATES else parts.get(each.feature, 0.0)
        text = _WHAT[each.rule].format(each.observed, each.feature or "the scores")
        if each.rule is not Rule.STUCK:
            text += f", {each.reference:.2%} in the reference"
        yield _broken(each.feature, _SURE * share, text, explained)


def _broken(feature: str, weight: float, text: str, explained: Mapping[str, float]) -> Evidence:
    part = explained.get(feature, 1.0)
    if part < 1.0:
        text += f"; that explains {part:.0%} of the rise at most"
    return Evidence(Cause.DATA_BREAK, weight * part, text)


def _of_pairs(
    case: Case, doings: Mapping[str, Doing], parts: Mapping[str, float], known: float
) -> Iterator[Evidence]:
    """Correlations within windows: rows were joined or ordered wrongly."""
    for each in ranked(case):
        is_pair = each.rule is Rule.CORRELATION and each.statistic != OFF_COMPANION
        if is_pair and each.other_feature:
            share = sum(parts.get(one, 0.0) for one in {blamed(each, doings), each.feature})
            text = f"{each.feature} and {each.other_feature} no longer go together within a window"
            yield Evidence(Cause.DATA_BREAK, _SURE * share * known, text)
            return


def _values_told(case: Case, feature: str, doings: Mapping[str, Doing]) -> bool:
    """Its values moved, and not only because of texts never seen or one that is always the same."""
    if any(each.feature == feature and each.rule in _REPLACING for each in ranked(case)):
        return False
    return any(
        each.rule in _OF_VALUES
        and (each.rule is not Rule.CORRELATION or each.statistic == OFF_COMPANION)
        and blamed(each, doings) == feature
        for each in ranked(case)
    )


def _of_doing(doing: Doing, share: float, explained: Mapping[str, float]) -> Iterator[Evidence]:
    """The likelier of fault and move; in doubt the other as well."""
    for_fault, for_move = doing.odds, -doing.odds
    if doing.fault and for_fault > -_IN_DOUBT:
        weight = (_MOVED + min(max(for_fault, 0.0), _MOST)) * share
        yield _broken(doing.feature, weight, doing.fault, explained)
    if for_move > -_IN_DOUBT:
        weight = (_MOVED + min(max(for_move, 0.0), _MOST)) * share
        yield Evidence(Cause.COVARIATE, weight * explained.get(doing.feature, 1.0), doing.move)
