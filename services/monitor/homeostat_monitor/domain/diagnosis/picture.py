"""A case put in order: since when, which features moved and by how much, what still fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Case, FeatureShare
from homeostat_monitor.domain.diagnosis.dependence import Dependence, dependences, products_of
from homeostat_monitor.domain.diagnosis.doings import Doing, doing_of
from homeostat_monitor.domain.diagnosis.in_order import (
    ranked,
    shares_in_order,
    told_features,
    witness_of,
)
from homeostat_monitor.domain.diagnosis.likelihoods import Measured, Suspect
from homeostat_monitor.domain.diagnosis.natural import FEWEST_RECENT, Natural, before, natural_of
from homeostat_monitor.domain.diagnosis.shares import breaches, broken_pairs, own_first, shares_of
from homeostat_monitor.domain.diagnosis.since import (
    Change,
    History,
    change_in,
    change_of_loss,
)
from homeostat_monitor.domain.diagnosis.since_in_order import change_in_order
from homeostat_monitor.domain.diagnosis.views import View, dispersion, extended
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.windows.layout import SCORE, Counts
from homeostat_monitor.domain.windows.window import Window

LOSS_RULES = frozenset({Rule.PERFORMANCE, Rule.CONCEPT})
# So many features tell together since when.
_WITNESSES = 3
# Of them those that moved at least so much of what the first moved.
_WEIGHTY = 0.2
# Where the first window after the change may hold older rows, it is left out if so many rest.
_ENOUGH_AFTER = 0.75
# Windows that show how much days differ: two of each weekday.
_ENOUGH_WINDOWS = 14
# Rows that the reference is worth beside the windows of a segment.
_HINT = 50.0


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
    # In time order: what became of each feature that some judge found unnatural, and the part of
    # the rows since the loss rose that came after the inputs had changed.
    doings: Mapping[str, Doing] = field(default_factory=dict)
    covered: float = 1.0
    # How well the reference knows what days are like, 0 to 1.
    known: float = 1.0

    @property
    def inputs_moved(self) -> bool:
        return bool(self.shares)


def picture_of(case: Case) -> Picture:
    """Everything that the diagnosis looks at."""
    windows = list(case.windows)
    if case.mode is Mode.TIME_ORDERED:
        return _picture_in_order(case, windows)
    spreads = _dispersions(case, windows)
    first = _first_guess(case, windows)
    change = _change(case, windows, spreads, first)
    if windows and case.rule not in LOSS_RULES:
        change = _change(case, windows, spreads, _first_after(windows, change))
    return _picture(case, windows, spreads, change)


def _picture_in_order(case: Case, windows: Sequence[Window]) -> Picture:
    """With nature as the null model. What rose with the loss is looked at from where the inputs
    changed, as far as the judges found that they did."""
    of_loss = None
    if case.rule in LOSS_RULES and case.loss is not None:
        of_loss = change_of_loss(case.loss, case.at_us)
    natural = _natural(case, windows)
    spreads = {name: natural.of(name).dispersion for name in case.layout.names}
    change = of_loss
    if change is None or told_features(case):
        change = change_in_order(case, ranked(case), windows, natural)
    picture = _picture(case, windows, spreads, change)
    units = {name: scale for name, (_, scale) in case.layout.extras.scales.items()}
    doings = {
        name: doing_of(name, picture.suspects, natural, units, witness=witness_of(case, name))
        for name in told_features(case)
    }
    return replace(
        picture,
        change=of_loss or change,
        shares=own_first(case, shares_in_order(case, doings)),
        doings=doings,
        known=min(natural.windows / _ENOUGH_WINDOWS, 1.0),
        covered=1.0 if of_loss is None else _covered(windows, of_loss, change),
    )


def _natural(case: Case, windows: Sequence[Window]) -> Natural:
    if case.natural is not None and case.natural.is_known:
        return case.natural
    return natural_of(case.layout, windows[: _first_guess(case, windows)])


def _covered(windows: Sequence[Window], of_loss: Change, of_inputs: Change) -> float:
    """Of the rows since the loss rose the part that came after the inputs had changed; 0 where no
    window shows any of them yet."""
    since = [each for each in windows if each.end_us > of_loss.at_us]
    changed = sum(each.rows for each in since if each.end_us > of_inputs.at_us)
    return changed / max(sum(each.rows for each in since), 1)


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
    broken = broken_pairs(case, suspects, pairs)
    return Picture(
        change=change,
        rows=int(after[0]),
        suspects=suspects,
        score=_view(case, SCORE, after, spreads.get(SCORE, 1.0)),
        pairs=pairs,
        broken=broken,
        shares=own_first(case, shares_of(case, suspects, broken)),
        after=after,
    )


def _values(spreads: Mapping[str, float]) -> list[float]:
    return [float(np.median(list(spreads.values())))] if spreads else []


def _sums(case: Case, windows: Sequence[Window]) -> Counts:
    if not windows:
        return case.layout.empty()
    sums: Counts = np.sum([each.sums for each in windows], axis=0)
    return sums


def _is_like_reference(case: Case) -> bool:
    """Rows before a change are drawn like the reference's: of all rows in i.i.d. mode."""
    return case.mode is Mode.IID and not case.segment


def _dispersions(case: Case, windows: Sequence[Window]) -> dict[str, float]:
    """From the windows of the older half: the newer may hold the change."""
    older = windows[: len(windows) // 2]
    if not older:
        return {}
    stacked = np.stack([each.sums for each in older])
    whole = case.reference if _is_like_reference(case) else stacked.sum(axis=0)
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
    if _is_like_reference(case) or not rest:
        return case.reference
    span = rest[-1].end_us - rest[0].start_us
    recent = before(
        [each for each in windows if each.end_us <= change.at_us], rest[0].start_us, span
    )
    sums = _sums(case, recent)
    return sums if int(sums[0]) >= FEWEST_RECENT else case.reference


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
    since = [each.since_us for each in breaches(case) if each.since_us is not None][:1]
    if case.rule in LOSS_RULES and case.loss is not None and case.loss.since_us is not None:
        since = [case.loss.since_us]
    last = len(windows) - 1
    if not since:
        return max(last, 0)
    return min(next((at for at, each in enumerate(windows) if each.end_us > since[0]), last), last)


def _change(
    case: Case, windows: Sequence[Window], spreads: Mapping[str, float], first: int
) -> Change:
    if case.rule in LOSS_RULES and case.loss is not None:
        return change_of_loss(case.loss, case.at_us)
    if not windows:
        return Change(case.at_us, case.at_us, case.at_us, 0)
    after = _sums(case, windows[first:])
    views = [_view(case, each, after, spreads.get(each, 1.0)) for each in case.layout.names]
    told = {each.feature or SCORE for each in breaches(case)}
    ranked = sorted(views, key=lambda each: (each.name not in told, -each.distance.excess))
    strongest = sorted(views, key=lambda each: -each.distance.excess)
    witnesses = _witnesses(strongest if not told else ranked)
    stacked = np.stack([each.sums for each in windows])
    # Of a segment the reference is a hint only of what the windows before were like.
    doubt = 1.0 if _is_like_reference(case) else max(float(case.reference[0]) / _HINT, 1.0)
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
    return change_in(windows, histories)


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
