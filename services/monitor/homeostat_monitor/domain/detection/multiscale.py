"""The i.i.d. mode: sliding spans of several row counts under one budget of false alarms."""

import math
from collections.abc import Sequence

import numpy as np

from homeostat_monitor.domain.detection import Detector
from homeostat_monitor.domain.detection.looking import Looker
from homeostat_monitor.domain.detection.plan import SCALES, plan_of
from homeostat_monitor.domain.detection.spans import Looks, Spans
from homeostat_monitor.domain.detection.telling import Teller
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.state import pack, unpack, unreadable
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window

_FORM = "multiscale-1"
# Of spans like the reference at most so many are doubted at all; breaches are far rarer. The tests
# of one scale alone share it.
_LOG_DOUBT = math.log(0.1 * len(SCALES))
# Panes looked at together; bounds the memory that a backlog takes.
_PORTION = 256


class MultiScale:
    """Fed with panes, looks at spans that end with each of them.

    The chance of a false alarm at a pane is at most ``level_per_look``, by a union bound over
    spans, features and tests, whatever the dependence between them; over time it adds up. A longer
    span is looked at less often and spends then what it saved. That holds for rows that are drawn
    like the reference's, independently of each other.
    """

    name = "multiscale"

    def __init__(self, counts: ReferenceCounts, level_per_look: float, segment: str) -> None:
        plan = plan_of(counts)
        self._looker = Looker(plan)
        self._spans = Spans(SCALES, self._looker.width)
        self._log_level = math.log(level_per_look)
        self._teller = Teller(self._looker, segment, self._log_level)
        self._layout = counts.layout.fingerprint

    def feed(self, windows: Sequence[Window]) -> list[list[Finding]]:
        """Per pane the findings of the spans that end with it: every breach, and one that says
        so of every rule that is quiet. None before the first span is full."""
        found: list[list[Finding]] = []
        for start in range(0, len(windows), _PORTION):
            found.extend(self._feed(windows[start : start + _PORTION]))
        return found

    def _feed(self, windows: Sequence[Window]) -> list[list[Finding]]:
        starts = np.array([each.start_us for each in windows], dtype=np.int64)
        ends = np.array([each.end_us for each in windows], dtype=np.int64)
        rows = self._looker.row_of(np.array([each.sums for each in windows], dtype=np.int64))
        looks = self._spans.add(rows, starts, ends)
        if not len(looks.panes):
            return [[] for _ in windows]
        levels = np.minimum(self._log_level + np.log(looks.saved), 0.0)
        looked = self._looker.look(looks.sums, levels)
        return self._teller.told(len(windows), looks, looked, self._doubts(looks))

    def _doubts(self, looks: Looks) -> list[frozenset[Rule]]:
        """Of each look at the longest span the rules whose things may not be as they were."""
        sums = looks.sums[looks.longest]
        if not len(sums):
            return []
        looked = self._looker.look(sums, np.full(len(sums), _LOG_DOUBT))
        return self._teller.rules_of(looked, len(sums))

    def to_bytes(self) -> bytes:
        """The spans' sums; exact."""
        return pack(_FORM, {"layout": self._layout}, self._spans.arrays())

    def restore(self, state: bytes) -> None:
        """CorruptState where the bytes are not a state of this reference's detector."""
        stored = unpack(_FORM, state)
        if stored.values.get("layout") != self._layout:
            raise CorruptState("the spans are of another reference")
        with unreadable("the spans' state"):
            self._spans.restore(dict(stored.arrays))


def multiscale(counts: ReferenceCounts, *, level_per_look: float, segment: str = "") -> Detector:
    """A fresh detector; ``level_per_look`` as the budget says (Budget.level_per_look)."""
    return MultiScale(counts, level_per_look, segment)
