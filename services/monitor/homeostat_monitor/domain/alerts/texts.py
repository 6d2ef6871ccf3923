"""What an alert says to a person in one sentence."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.watch import LossChange, LossSignal

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
# Of a finding that is about no single feature: what there is more than one of.
_COUNTED: Mapping[Rule, str] = MappingProxyType(
    {
        Rule.POLICY: "threshold",
        Rule.CORRELATION: "pair",
        Rule.CONCEPT: "range of scores",
    }
)
# Shares of rows whose name does not say so.
_SHARES = frozenset({"null_rate", "unseen_rate", "out_of_range_rate", "label_coverage"})
# Looks of which nobody takes so many, as a power of ten.
_NEVER = 15
# A share of rows outside of the known range that is worth a sentence.
_WORTH_TELLING = 0.01


def findings_summary(breaches: Sequence[Finding]) -> str:
    """``breaches``: worst first, at least one, of one rule."""
    worst = breaches[0]
    where = f" in the segment {worst.segment}" if worst.segment else ""
    outside = (
        f" {worst.out_of_range:.0%} of its rows are outside of the range that the reference knows."
        if worst.out_of_range > _WORTH_TELLING
        else ""
    )
    return f"{_what(worst, where)}: {_figures(worst)}.{outside}{_others(breaches)}"


def _what(worst: Finding, where: str) -> str:
    if worst.rule is Rule.POLICY and worst.policy_rule:
        of = f" of {worst.feature}" if worst.feature else ""
        level = "critical" if worst.is_critical else "warning"
        metric = _spoken(worst.statistic)
        return f"{worst.policy_rule}: {metric}{of}{where} passed the policy's {level} threshold"
    if worst.rule is Rule.MISSING_VALUES and not worst.feature:
        return f"The score is no finite number more often than the reference explains{where}"
    return _WHAT[worst.rule].format(worst.feature or "A feature", worst.other_feature) + where


def _figures(worst: Finding) -> str:
    """Observed and threshold, in the unit that a person reads them in."""
    name, figures = worst.statistic, (worst.observed, worst.threshold)
    if name.endswith("surprise"):
        rare = f"10^{worst.observed:.1f}" if worst.observed < _NEVER else f"over 10^{_NEVER}"
        return f"by chance once in {rare} looks, told from 10^{worst.threshold:.1f} on"
    observed, threshold = (_figure(name, each) for each in figures)
    spoken = "" if worst.rule is Rule.POLICY else _spoken(name)
    return f"{spoken} {observed}, threshold {threshold}".lstrip()


def change_text(name: str, observed: float, reference: float) -> str:
    """A statistic before and now, in the unit that a person reads it in."""
    was = f", was {_figure(name, reference)}" if math.isfinite(reference) else ""
    return f"{_spoken(name)} {_figure(name, observed)}{was}"


def _spoken(name: str) -> str:
    return name.removesuffix("_seconds").replace("_", " ")


def _figure(name: str, value: float) -> str:
    if name == "arrival_rate":
        return f"{value:.4g} per hour"
    if name.endswith("_seconds"):
        return _span(value)
    return _percent(value) if name in _SHARES or name.endswith("_share") else f"{value:.4g}"


def _percent(share: float) -> str:
    """Three digits, so that a small one is not 0."""
    return f"{100 * share:.3g} %"


def _span(seconds: float) -> str:
    for unit, name in ((86_400.0, "days"), (3_600.0, "h"), (60.0, "min")):
        if abs(seconds) >= unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def _others(breaches: Sequence[Finding]) -> str:
    """Of one thing several may be told: its rows out of range and its histogram."""
    count = len({each.about for each in breaches})
    if count < 2:
        return ""
    what = _COUNTED.get(breaches[0].rule, "feature")
    return f" So does 1 more {what}." if count == 2 else f" So do {count - 1} more {what}s."


def loss_summary(change: LossChange, segment: str) -> str:
    """Of a rise or of one that persists."""
    where = f" in the segment {segment}" if segment else ""
    how = {
        LossSignal.ROSE: "The loss rose",
        LossSignal.PERSISTS: "The loss stays high",
    }[change.signal]
    return f"{how}{where}: {change.observed:.4g}, the reference is {change.reference:.4g}."
