"""Has a feature's distribution left its reference?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeostat_monitor.domain.judges import Finding, Past, Rule
from homeostat_monitor.domain.judges.distance import (
    PERIOD,
    Limits,
    Strides,
    limits,
    measure,
    measure_past,
    strides,
)
from homeostat_monitor.domain.windows.bins import CategoryBins
from homeostat_monitor.domain.windows.layout import Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window


@dataclass(frozen=True, slots=True)
class CovariateJudge:
    """Jensen-Shannon distance per feature, nulls left out: they have a judge of their own."""

    reference: Counts
    limits: Mapping[str, Limits]
    remarks: Sequence[str]
    strides: Mapping[str, Strides]
    rule: Rule = Rule.COVARIATE

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding per feature with enough values."""
        found = []
        for name, calibrated in self.limits.items():
            base, present = (held(layout, name, each) for each in (self.reference, window.sums))
            measured = measure(base, present, calibrated)
            if measured is not None:
                found.append(self._finding(layout, window, name, measured))
        return found

    def against(self, layout: Layout, window: Window, name: str, past: Past) -> Finding | None:
        """The distance from that past, and how far the reference shows the feature to move."""
        present = held(layout, name, window.sums)
        threshold = self.strides[name].at(int(present.sum()), max(past.lag, 1))
        measured = measure_past(held(layout, name, past.sums), present, threshold)
        return None if measured is None else self._finding(layout, window, name, measured)

    def _finding(
        self, layout: Layout, window: Window, name: str, measured: tuple[float, float, float]
    ) -> Finding:
        distance, typical, threshold = measured
        return Finding(
            self.rule,
            name,
            "js_distance",
            distance,
            typical,
            threshold,
            is_breach=distance > threshold,
            out_of_range=layout.out_of_range(name, window.sums) / window.rows,
        )


def held(layout: Layout, name: str, sums: Counts) -> Counts:
    """The feature's histogram, texts never seen among the rare ones: each of the reference's own
    rare texts was new once, and the next ones are, too (a judge of their own says if they are
    more)."""
    found = layout.histogram(name, sums)
    bins = layout.bins[layout.names.index(name)]
    if not isinstance(bins, CategoryBins):
        return found
    found = found.copy()
    found[..., bins.kept] += found[..., bins.unseen]
    found[..., bins.unseen] = 0
    return found


def covariate_judge(counts: ReferenceCounts, period: int = PERIOD) -> CovariateJudge:
    """Calibrated on contiguous blocks of the reference, per feature and row count."""
    blocks = list(counts.blocks())
    by_feature = {
        name: limits(
            held(counts.layout, name, counts.sums),
            ((each.rows, held(counts.layout, name, each.sums)) for each in blocks),
        )
        for name in counts.features
    }
    short = sorted(name for name, each in by_feature.items() if not each.rows)
    remarks = (
        [f"the reference is too short or too empty to calibrate drift of {', '.join(short)}"]
        if short
        else []
    )
    moves = {
        name: strides(
            ((each.rows, held(counts.layout, name, each.sums)) for each in blocks), period
        )
        for name in counts.features
    }
    return CovariateJudge(counts.sums, by_feature, tuple(remarks), moves)
