"""Have the scores left the distribution that the version had on honest rows?"""

from collections.abc import Sequence
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
from homeostat_monitor.domain.windows.layout import SCORE, Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import Window


@dataclass(frozen=True, slots=True)
class PredictionJudge:
    """Jensen-Shannon distance of the scores."""

    reference: Counts
    limits: Limits
    remarks: Sequence[str]
    strides: Strides
    rule: Rule = Rule.PREDICTION

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """One finding, under no feature: it is about the whole model."""
        measured = measure(self.reference, layout.histogram(SCORE, window.sums), self.limits)
        if measured is None:
            return []
        return [self._finding(measured)]

    def against(self, layout: Layout, window: Window, name: str, past: Past) -> Finding | None:
        """The distance of the scores from that past."""
        present = layout.histogram(SCORE, window.sums)
        threshold = self.strides.at(int(present.sum()), max(past.lag, 1))
        measured = measure_past(layout.histogram(SCORE, past.sums), present, threshold)
        return None if measured is None else self._finding(measured)

    def _finding(self, measured: tuple[float, float, float]) -> Finding:
        distance, typical, threshold = measured
        breach = distance > threshold
        return Finding(self.rule, "", "js_distance", distance, typical, threshold, breach)


def prediction_judge(counts: ReferenceCounts, period: int = PERIOD) -> PredictionJudge:
    """Calibrated on contiguous blocks of the reference's scores."""
    calibrated = limits(
        counts.score_sums, ((each.rows, each.sums) for each in counts.score_blocks())
    )
    remarks = []
    if not calibrated.rows:
        remarks.append("the reference is too short to calibrate drift of the scores")
    if not counts.scores_are_honest:
        remarks.append("too few hold-out rows: scores are compared with those on training rows")
    moves = strides(((each.rows, each.sums) for each in counts.score_blocks()), period)
    return PredictionJudge(counts.score_sums, calibrated, tuple(remarks), moves)
