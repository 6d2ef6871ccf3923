"""What an alert says to a person in one sentence."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses import LossChange, LossSignal

# {0}: the feature; {1}: the other one of a pair.
_WHAT: Mapping[Rule, str] = MappingProxyType(
    {
        Rule.COVARIATE: "{0} left its reference distribution",
        Rule.PREDICTION: "The scores left their reference distribution",
        Rule.MISSING_VALUES: "{0} is null more often than the reference explains",
        Rule.UNSEEN_VALUES: "{0} has more never-seen values than expected",
        Rule.OUT_OF_RANGE: "{0} is outside of its range more often than the reference explains",
        Rule.STUCK: "{0} shows one and the same value where the reference varies",
        Rule.DUPLICATES: "Rows repeat more often than in the reference",
        Rule.ARRIVAL_RATE: "Predictions come at another rate than expected",
        Rule.CORRELATION: "{0} and {1} no longer go together as in the reference",
        Rule.CONCEPT: "Truth no longer follows from the scores as it did in the hold-out",
        Rule.ESTIMATED_PERFORMANCE: "The scores lead to expect another loss than the hold-out's",
        Rule.LABEL_DELAY: "Truth comes later than it used to",
        Rule.LABEL_COVERAGE: "Fewer predictions get a truth than used to",
        Rule.POLICY: "A threshold of the policy was passed",
        Rule.PERFORMANCE: "The loss rose",
    }
)
# A share of rows outside of the known range that is worth a sentence.
_WORTH_TELLING = 0.01


def findings_summary(breaches: Sequence[Finding]) -> str:
    """``breaches``: worst first, at least one, of one rule."""
    worst = breaches[0]
    where = f" in the segment {worst.segment}" if worst.segment else ""
    what = _WHAT[worst.rule].format(worst.feature or "A feature", worst.other_feature) + where
    outside = (
        f" {worst.out_of_range:.0%} of its rows are outside of the range that the reference knows."
        if worst.out_of_range > _WORTH_TELLING
        else ""
    )
    others = f" So do {len(breaches) - 1} more features." if len(breaches) > 1 else ""
    figures = f"{worst.statistic} {worst.observed:.3f}, threshold {worst.threshold:.3f}"
    return f"{what}: {figures}.{outside}{others}"


def loss_summary(change: LossChange, segment: str) -> str:
    """Of a rise or of one that persists."""
    where = f" in the segment {segment}" if segment else ""
    how = {
        LossSignal.ROSE: "The loss rose",
        LossSignal.PERSISTS: "The loss stays high",
    }[change.signal]
    return f"{how}{where}: {change.observed:.4g}, the reference is {change.reference:.4g}."
