"""Has a feature's distribution left its reference?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.judges.distance import Limits, limits, measure
from homeostat_monitor.domain.reference import ReferenceCounts
from homeostat_monitor.domain.sums import Counts, Layout
from homeostat_monitor.domain.windows import Window


@dataclass(frozen=True, slots=True)
class CovariateJudge:
    """Jensen-Shannon distance per feature, nulls left out: they have a judge of their own."""

    reference: Counts
    limits: Mapping[str, Limits]
    remarks: Sequence[str]
    rule: Rule = Rule.COVARIATE

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding per feature with enough values."""
        found = []
        for name, calibrated in self.limits.items():
            base = layout.histogram(name, self.reference)
            measured = measure(base, layout.histogram(name, window.sums), calibrated)
            if measured is None:
                continue
            distance, typical, threshold = measured
            outside = layout.out_of_range(name, window.sums) / window.rows
            found.append(
                Finding(
                    self.rule,
                    name,
                    "js_distance",
                    distance,
                    typical,
                    threshold,
                    is_breach=distance > threshold,
                    out_of_range=outside,
                )
            )
        return found


def covariate_judge(counts: ReferenceCounts) -> CovariateJudge:
    """Calibrated on contiguous blocks of the reference, per feature and row count."""
    blocks = list(counts.blocks())
    by_feature = {
        name: limits(
            counts.layout.histogram(name, counts.sums),
            ((each.rows, counts.layout.histogram(name, each.sums)) for each in blocks),
        )
        for name in counts.features
    }
    short = sorted(name for name, each in by_feature.items() if not each.rows)
    remarks = (
        [f"the reference is too short or too empty to calibrate drift of {', '.join(short)}"]
        if short
        else []
    )
    return CovariateJudge(counts.sums, by_feature, tuple(remarks))
