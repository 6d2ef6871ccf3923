"""Since when, in order of time: back from the window that was told while it looks like that one.

Every window before was judged and found natural, and what seasons do between them is no change. So
only windows right before are looked at, by the one thing that was told of: a rate, how far a mean
is from where the days before and its companion lead to expect it, or a histogram's distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from homeostat_monitor.domain.diagnosis import Case
from homeostat_monitor.domain.diagnosis.natural import FEWEST_RECENT, Natural
from homeostat_monitor.domain.diagnosis.since import Change
from homeostat_monitor.domain.diagnosis.views import distance, extended
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.layout import SCORE, Counts, Layout
from homeostat_monitor.domain.windows.window import Window

# So many windows a break may go unseen.
_UNSEEN = 7
# A window that shows at least this part of what the last one shows is of the same kind.
_ALIKE = 0.5
_WEEK_US = 7 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class _Look:
    """What is looked back by: of one finding, against the days before."""

    case: Case
    finding: Finding
    natural: Natural
    base: Counts


def change_in_order(
    case: Case, told: Sequence[Finding], windows: Sequence[Window], natural: Natural
) -> Change:
    """``told``: breaches, the one that matters most first. ``windows`` end with the last judged."""
    if not windows:
        return Change(case.at_us, case.at_us, case.at_us, 0)
    last = len(windows) - 1
    first = last
    if told and told[0].since_us is not None:
        since = told[0].since_us
        first = next((at for at, each in enumerate(windows) if each.end_us > since), last)
    elif told and (told[0].feature or told[0].rule is Rule.PREDICTION):
        first = _first_alike(case, told[0], windows, natural)
    begin = windows[first].start_us
    # A change in the later half of a window shows from the next one on.
    from_us = (windows[first - 1].start_us + begin) // 2 if first else begin
    return Change(begin, from_us, windows[first].end_us, first)


def _first_alike(case: Case, finding: Finding, windows: Sequence[Window], natural: Natural) -> int:
    last = len(windows) - 1
    earliest = max(last - _UNSEEN, 0)
    base = _base(case, windows[:earliest], windows[earliest].start_us)
    look = _Look(case, finding, natural, base)
    names = [each for each in (finding.feature or SCORE, finding.other_feature) if each]
    # Of two that no longer go together the one that shows it more.
    name = max(names, key=lambda each: abs(_off(look, each, windows[last].sums)))
    least = _ALIKE * _shown(look, name, windows[last].sums)
    at = last
    while at > earliest and _shown(look, name, windows[at - 1].sums) / (least or np.inf) >= 1:
        at -= 1
    return at


def _base(case: Case, before: Sequence[Window], until_us: int) -> Counts:
    recent = [each.sums for each in before if each.start_us >= until_us - _WEEK_US]
    if not recent or sum(int(each[0]) for each in recent) < FEWEST_RECENT:
        return case.reference
    sums: Counts = np.sum(recent, axis=0)
    return sums


def _shown(look: _Look, name: str, sums: Counts) -> float:
    """How much of what was told of a window shows; of another sign where it is the opposite."""
    layout, rule = look.case.layout, look.finding.rule
    rows = max(int(sums[0]), 1)
    if rule is Rule.MISSING_VALUES:
        return float(layout.nulls(name, sums)) / rows
    if rule is Rule.UNSEEN_VALUES:
        return float(layout.unseen(name, sums)) / rows
    if rule is Rule.OUT_OF_RANGE:
        return layout.out_of_range(name, sums) / rows
    if rule is Rule.STUCK:
        return float(layout.histogram(name, sums).max()) / rows
    off = _off(look, name, sums)
    if off:
        return off
    was, now = (extended(layout, name, each)[:-1] for each in (look.base, sums))
    return distance(was, now).excess / rows


def _off(look: _Look, name: str, sums: Counts) -> float:
    """The move of a number's mean beyond its companion's, in deviations; 0 for others."""
    layout, wander = look.case.layout, look.natural.of(name)
    own = _moved(layout, name, look.base, sums)
    along = _moved(layout, wander.companion, look.base, sums) if wander.companion else 0.0
    return own - wander.slope * along


def _moved(layout: Layout, name: str, base: Counts, sums: Counts) -> float:
    now, was = (layout.mean_and_deviation(name, each) for each in (sums, base))
    if now is None or was is None:
        return 0.0
    return (now[0] - was[0]) / (layout.extras.scales[name][1] or 1.0)
