"""A case put in order: since when, which features moved and by how much, what still fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Case, FeatureShare
from homeostat_monitor.domain.diagnosis.dependence import Dependence, dependences, products_of
from homeostat_monitor.domain.diagnosis.likelihoods import Measured, Suspect
from homeostat_monitor.domain.diagnosis.since import (
    Change,
    History,
    change_in,
    change_of_loss,
)
from homeostat_monitor.domain.diagnosis.views import Floats, View, dispersion, extended
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.layout import SCORE, Counts
from homeostat_monitor.domain.windows import Window

LOSS_RULES = frozenset({Rule.PERFORMANCE, Rule.CONCEPT})
# Chance of naming a feature that did not move, over all of them.
_LEVEL = 1e-3
# So many features tell together since when.
_WITNESSES = 3
# Of them those that moved at least so much of what the first moved.
_WEIGHTY = 0.2
# Where the first window after the change may hold older rows, it is left out if so many rest.
_ENOUGH_AFTER = 0.75
# In time order: spans before the change that are compared with it, a week at the least; rows of
# them that are enough; and rows that the reference is worth beside them.
_SPANS = 4
_WEEK_US = 7 * 86_400_000_000
_FEWEST_RECENT = 500
_HINT = 50.0
# Log-odds that a window after the change was found natural, and how many ever are.
_CALM, _MISSED = 3.0, 3


@dataclass(frozen=True, slots=True)
class Picture:
    """What the sums say, before anybody says why."""

    change: Change
    rows: int
    # Of every feature, and the scores' own.
    suspects: Mapping[str, Suspect]
    score: View | None
    pairs: Sequence[Dependence]
    broken: Sequence[Dependence]
    shares: Sequence[FeatureShare]
    after: Counts

    @property
    def inputs_moved(self) -> bool:
        return bool(self.shares)


def picture_of(case: Case) -> Picture:
    """Everything that the diagnosis looks at."""
    windows = list(case.windows)
    spreads = _dispersions(case, windows)
    first = _first_guess(case, windows)
    change = _change(case, windows, spreads, first)
    if windows and case.rule not in LOSS_RULES:
        change = _change(case, windows, spreads, _first_after(windows, change))
    return _picture(case, windows, spreads, change)


def _picture(
    case: Case, windows: Sequence[Window], spreads: Mapping[str, float], change: Change
) -> Picture:
    rest = windows[_first_after(windows, change) :]
    case = replace(case, reference=_base(case, windows, change, rest))
    after, blur = _sums(case, rest), _blur(rest, change)
    suspects = {
        name: suspect_of(case, name, after, spreads.get(name, 1.0), blur)
        for name in case.layout.names
        if name != SCORE
    }
    pairs = dependences(case.layout, case.reference, after, max([1.0, *_values(spreads)]))
    broken = _broken(suspects, pairs)
    return Picture(
        change=change,
        rows=int(after[0]),
        suspects=suspects,
        score=_view(case, SCORE, after, spreads.get(SCORE, 1.0)),
        pairs=pairs,
        broken=broken,
        shares=_shares(case, suspects, broken),
        after=after,
    )


def _values(spreads: Mapping[str, float]) -> list[float]:
    return [float(np.median(list(spreads.values())))] if spreads else []


def _sums(case: Case, windows: Sequence[Window]) -> Counts:
    if not windows:
        return case.layout.empty()
    sums: Counts = np.sum([each.sums for each in windows], axis=0)
    return sums


def _dispersions(case: Case, windows: Sequence[Window]) -> dict[str, float]:
    """From the windows of the older half: the newer may hold the change."""
    older = windows[: len(windows) // 2]
    if not older:
        return {}
    stacked = np.stack([each.sums for each in older])
    whole = case.reference if case.mode is Mode.IID else stacked.sum(axis=0)
    return {
        name: dispersion(extended(case.layout, name, whole), extended(case.layout, name, stacked))
        for name in case.layout.names
    }


def _view(case: Case, name: str, after: Counts, spread: float) -> View:
    at = case.layout.names.index(name)
    before = extended(case.layout, name, case.reference)
    return View(name, case.layout.bins[at], before, extended(case.layout, name, after), spread)


def _base(case: Case, windows: Sequence[Window], change: Change, rest: Sequence[Window]) -> Counts:
    """What is compared with: the reference; in time order the days before the change, as what
    moves with the season is neither a fault nor a population of its own."""
    if case.mode is Mode.IID or not rest:
        return case.reference
    span = max(_SPANS * (rest[-1].end_us - rest[0].start_us), _WEEK_US)
    begin = rest[0].start_us - span
    recent = [each for each in windows if each.end_us <= change.at_us and each.start_us >= begin]
    sums = _sums(case, recent)
    return sums if int(sums[0]) >= _FEWEST_RECENT else case.reference


def _blur(rest: Sequence[Window], change: Change) -> float:
    """The largest share of these rows that may be from before the change."""
    if not rest or rest[0].start_us > change.at_us:
        return 0.0
    return rest[0].rows / max(sum(each.rows for each in rest), 1)


def suspect_of(
    case: Case, name: str, after: Counts, spread: float = 1.0, blur: float = 0.0
) -> Suspect:
    """A feature with its moments before and after."""
    measured = []
    for sums in (case.reference, after):
        moments = case.layout.mean_and_deviation(name, sums)
        rows = float(case.layout.histogram(name, sums).sum())
        measured.append(None if moments is None else Measured(rows, *moments))
    return Suspect(_view(case, name, after, spread), measured[0], measured[1], blur)


def _first_guess(case: Case, windows: Sequence[Window]) -> int:
    """The window from which on the strongest breach was measured."""
    since = [each.since_us for each in _breaches(case) if each.since_us is not None][:1]
    if case.rule in LOSS_RULES and case.loss is not None and case.loss.since_us is not None:
        since = [case.loss.since_us]
    last = len(windows) - 1
    if not since:
        return max(last, 0)
    return min(next((at for at, each in enumerate(windows) if each.end_us > since[0]), last), last)


def _breaches(case: Case) -> list[Finding]:
    return sorted((each for each in case.findings if each.is_breach), key=_rank)


def _rank(finding: Finding) -> tuple[float, float, str]:
    chance = 1.0 if finding.p_value is None else finding.p_value
    return chance, -finding.excess, finding.feature


def _change(
    case: Case, windows: Sequence[Window], spreads: Mapping[str, float], first: int
) -> Change:
    if case.rule in LOSS_RULES and case.loss is not None:
        return change_of_loss(case.loss, case.at_us)
    if not windows:
        return Change(case.at_us, case.at_us, case.at_us, 0)
    after = _sums(case, windows[first:])
    views = [_view(case, each, after, spreads.get(each, 1.0)) for each in case.layout.names]
    told = {each.feature or SCORE for each in _breaches(case)}
    ranked = sorted(views, key=lambda each: (each.name not in told, -each.distance.excess))
    strongest = sorted(views, key=lambda each: -each.distance.excess)
    witnesses = _witnesses(strongest if not told else ranked)
    stacked = np.stack([each.sums for each in windows])
    # In time order the reference is a hint only of what the windows before were like.
    doubt = 1.0 if case.mode is Mode.IID else max(float(case.reference[0]) / _HINT, 1.0)
    histories = [
        History(each.before / doubt, extended(case.layout, each.name, stacked), each.dispersion)
        for each in witnesses
    ]
    pairs = dependences(case.layout, case.reference, after, 1.0)
    if case.rule is Rule.CORRELATION and pairs:
        worst = max(pairs, key=lambda each: each.excess)
        if worst.excess > max(each.distance.excess for each in witnesses):
            history = products_of(case.layout, worst, case.reference, list(windows))
            return change_in(windows, [], [history])
    return change_in(windows, histories, log_prior=_log_prior(case, windows))


def _log_prior(case: Case, windows: Sequence[Window]) -> Floats | None:
    """In time order every window before was judged and found natural: seasons that one change
    would explain best are not what the alert is about."""
    if case.mode is Mode.IID:
        return None
    away = np.arange(len(windows)) - _first_guess(case, windows)
    prior: Floats = np.where(np.abs(away) <= _MISSED, -_CALM * np.abs(away), -np.inf)
    return prior


def _witnesses(ranked: Sequence[View]) -> list[View]:
    first = ranked[0]
    also = [
        each
        for each in ranked[1:_WITNESSES]
        if each.distance.excess >= _WEIGHTY * first.distance.excess > 0
    ]
    return [first, *also]


def _first_after(windows: Sequence[Window], change: Change) -> int:
    """The first window that surely lies after the change."""
    at = next((n for n, each in enumerate(windows) if each.end_us > change.at_us), len(windows) - 1)
    if at + 1 >= len(windows) or at < 0:
        return max(at, 0)
    rest = sum(each.rows for each in windows[at + 1 :])
    return at + 1 if rest >= _ENOUGH_AFTER * (rest + windows[at].rows) else at


def _broken(suspects: Mapping[str, Suspect], pairs: Sequence[Dependence]) -> list[Dependence]:
    """Pairs that are not as before though neither feature's own move explains it."""
    return [
        each
        for each in pairs
        if each.is_weaker
        and each.p_value < _LEVEL / max(len(pairs), 1)
        and each.excess > max(suspects[name].view.distance.excess for name in each.features)
    ]


def _shares(
    case: Case, suspects: Mapping[str, Suspect], broken: Sequence[Dependence]
) -> list[FeatureShare]:
    """By what chance does not explain. A dependence is the doing of the feature that the most
    broken ones have in common; predictions follow from inputs and have no share."""
    told = {each.feature for each in _breaches(case) if each.rule is not Rule.CORRELATION}
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
