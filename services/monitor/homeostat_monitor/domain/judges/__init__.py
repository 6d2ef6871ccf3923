"""Judges of closed windows: one file per judge, all of one form.

A judge is calibrated on a version's reference once and then says of every window, per feature,
what it measured and whether that is more than the reference explains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from homeostat_monitor.domain.windows.layout import Counts, Layout
from homeostat_monitor.domain.windows.window import Window


class Rule(StrEnum):
    """Which judge speaks. The names are stored."""

    PERFORMANCE = "performance"
    COVARIATE = "covariate"
    MISSING_VALUES = "missing_values"
    UNSEEN_VALUES = "unseen_values"
    PREDICTION = "prediction"
    OUT_OF_RANGE = "out_of_range"
    STUCK = "stuck"
    DUPLICATES = "duplicates"
    ARRIVAL_RATE = "arrival_rate"
    CORRELATION = "correlation"
    CONCEPT = "concept"
    ESTIMATED_PERFORMANCE = "estimated_performance"
    LABEL_DELAY = "label_delay"
    LABEL_COVERAGE = "label_coverage"
    POLICY = "policy"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one judge measured of one feature in one window."""

    rule: Rule
    feature: str
    # For example "js_distance", "null_rate".
    statistic: str
    observed: float
    # What the reference shows typically, and the most that it explains.
    reference: float
    threshold: float
    is_breach: bool
    # Share of rows outside of the range of numbers that the reference knows.
    out_of_range: float = 0.0
    # A policy's segment; empty for all rows.
    segment: str = ""
    # Of a correlation the other feature.
    other_feature: str = ""
    # Where the span that was judged begins, where that is not the window's own start.
    since_us: int | None = None
    # All rows since then agree with the reference, with room to what would breach.
    clear_since_us: int | None = None
    # How likely chance alone makes as much of it; None where that is not known.
    p_value: float | None = None
    # Of a policy's threshold: the name of its rule, and whether it is the critical one.
    policy_rule: str = ""
    is_critical: bool = False

    @property
    def about(self) -> tuple[str, str, str]:
        """What of a rule it is that breaches: a feature, a pair, a person's threshold."""
        return self.feature, self.other_feature, self.policy_rule

    @property
    def excess(self) -> float:
        """Observed over threshold: which of several findings matters most."""
        return self.observed / self.threshold if self.threshold > 0 else float(self.observed > 0)


@dataclass(frozen=True, slots=True)
class Past:
    """What some of the past looked like: the same phase of the calendar, or the prior period."""

    # A row of sums in which only the feature that is asked about is sure to be filled.
    sums: Counts
    # How many windows ago the past ends, from 1; 0 where that does not matter.
    lag: int = 0


class Judge(Protocol):
    """Says what it thinks of a window; the same window gives the same findings."""

    @property
    def rule(self) -> Rule: ...

    @property
    def remarks(self) -> Sequence[str]:
        """What could not be calibrated as it should, one sentence each."""
        ...

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding for every feature that this window can be judged on."""
        ...

    def against(self, layout: Layout, window: Window, name: str, past: Past) -> Finding | None:
        """The finding of one feature by that past instead; None where it says too little."""
        ...
