"""One form for all judges of rates: a count of rows per feature against the highest explained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from homeostat_monitor.domain.judges import Finding, Past, Rule
from homeostat_monitor.domain.judges.rates import (
    ALPHA,
    ExplainedRates,
    critical_count,
    rate_after,
)
from homeostat_monitor.domain.windows.layout import SCORE, Counts, Layout
from homeostat_monitor.domain.windows.window import Window


class Counted(Protocol):
    """What is counted: (rows that have it, rows that could have it) of sums of one feature."""

    def __call__(self, layout: Layout, name: str, sums: Counts) -> tuple[int, int]: ...


@dataclass(frozen=True, slots=True)
class RateJudge:
    """Exact binomial test of a rate per feature, Bonferroni over the features."""

    rule: Rule
    statistic: str
    counted: Counted
    rates: Mapping[str, ExplainedRates]
    # Chance of one false finding per window, over all features.
    level: float = ALPHA
    # A lower rate is no finding of this rule, whatever its significance.
    least_rate: float = 0.0
    # Fewer rows that could have it are not judged.
    fewest: int = 1
    # Whether the calendar's past, which keeps histograms alone, can tell the rate.
    has_past: bool = True
    remarks: Sequence[str] = ()

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding per feature that has enough values in this window."""
        found = (
            self._judged(layout, window, name, rates.typical, rates.at(window.rows))
            for name, rates in self.rates.items()
        )
        return [each for each in found if each is not None]

    def against(self, layout: Layout, window: Window, name: str, past: Past) -> Finding | None:
        """The same of one feature where the past had a rate of its own."""
        if not self.has_past:
            return None
        had, could = self.counted(layout, name, past.sums)
        if could < max(self.fewest, 1):
            return None
        rates = self.rates[name]
        highest = rate_after(had / could, rates.at(window.rows))
        return self._judged(layout, window, name, had / could, highest)

    def _judged(
        self, layout: Layout, window: Window, name: str, typical: float, highest: float
    ) -> Finding | None:
        has, could = self.counted(layout, name, window.sums)
        if could < max(self.fewest, 1):
            return None
        limit = critical_count(could, highest, len(self.rates), self.level)
        rate = has / could
        is_breach = has >= limit and rate >= self.least_rate
        threshold = max(limit / could, self.least_rate)
        feature = "" if name == SCORE else name
        return Finding(self.rule, feature, self.statistic, rate, typical, threshold, is_breach)
