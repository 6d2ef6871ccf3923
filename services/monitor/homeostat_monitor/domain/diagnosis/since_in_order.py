"""Since when, in order of time: back from the window that was told while it looks like that one.

Every window before was judged and found natural, and what seasons do between them is no change. So
only windows right before are looked at, by the one thing that was told of: a rate, or how far the
values' histogram is from the days before.
"""

from collections.abc import Sequence

import numpy as np

from homeostat_monitor.domain.diagnosis import Case
from homeostat_monitor.domain.diagnosis.natural import FEWEST_RECENT
from homeostat_monitor.domain.diagnosis.since import Change
from homeostat_monitor.domain.diagnosis.views import distance, extended
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.layout import SCORE, Counts
from homeostat_monitor.domain.windows import Window

# So many windows a break may go unseen.
_UNSEEN = 7
# A window that shows at least this part of what the last one shows is of the same kind.
_ALIKE = 0.5
_WEEK_US = 7 * 86_400_000_000


def change_in_order(case: Case, told: Sequence[Finding], windows: Sequence[Window]) -> Change:
    """``told``: breaches, the one that matters most first. ``windows`` end with the last judged."""
    if not windows:
        return Change(case.at_us, case.at_us, case.at_us, 0)
    last = len(windows) - 1
    first = last
    if told and told[0].since_us is not None:
        since = told[0].since_us
        first = next((at for at, each in enumerate(windows) if each.end_us > since), last)
    elif told and (told[0].feature or told[0].rule is Rule.PREDICTION):
        first = _first_alike(case, told[0], windows)
    begin = windows[first].start_us
    # A change in the later half of a window shows from the next one on.
    from_us = (windows[first - 1].start_us + begin) // 2 if first else begin
    return Change(begin, from_us, windows[first].end_us, first)


def _first_alike(case: Case, finding: Finding, windows: Sequence[Window]) -> int:
    last = len(windows) - 1
    earliest = max(last - _UNSEEN, 0)
    base = _base(case, windows[:earliest], windows[earliest].start_us)
    least = _ALIKE * _shown(case, finding, base, windows[last].sums)
    at = last
    while at > earliest and _shown(case, finding, base, windows[at - 1].sums) >= least > 0:
        at -= 1
    return at


def _base(case: Case, before: Sequence[Window], until_us: int) -> Counts:
    recent = [each.sums for each in before if each.start_us >= until_us - _WEEK_US]
    if not recent or sum(int(each[0]) for each in recent) < FEWEST_RECENT:
        return case.reference
    sums: Counts = np.sum(recent, axis=0)
    return sums


def _shown(case: Case, finding: Finding, base: Counts, sums: Counts) -> float:
    """How much of what was told of a window shows."""
    name, layout = finding.feature or SCORE, case.layout
    rows = max(int(sums[0]), 1)
    if finding.rule is Rule.MISSING_VALUES:
        return float(layout.nulls(name, sums)) / rows
    if finding.rule is Rule.UNSEEN_VALUES:
        return float(layout.unseen(name, sums)) / rows
    if finding.rule is Rule.OUT_OF_RANGE:
        return layout.out_of_range(name, sums) / rows
    if finding.rule is Rule.STUCK:
        return float(layout.histogram(name, sums).max()) / rows
    apart = 0.0
    for one in filter(None, (name, finding.other_feature)):
        was, now = (extended(layout, one, each)[:-1] for each in (base, sums))
        apart = max(apart, distance(was, now).excess / rows)
    return apart
