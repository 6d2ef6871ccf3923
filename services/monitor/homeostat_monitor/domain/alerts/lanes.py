"""At which of two rows of marks a person's threshold is held: at windows', or at truths'.

The two run beside each other, and how they meet depends on how marks come. So each has an alert of
its own: what it tells is the same live, after a backlog, and played again.
"""

from collections.abc import Sequence

from homeostat_monitor.domain.judges import Finding, Rule

# Metrics that a closed window tells; all others come with truths.
_OF_WINDOWS = frozenset(
    {"mean_score", "null_rate", "js_distance", "arrival_rate", "estimated_loss"}
)


def is_of_truths(finding: Finding) -> bool:
    """Whether it is a threshold on what truths tell."""
    return finding.rule is Rule.POLICY and finding.statistic not in _OF_WINDOWS


def of_lane(findings: Sequence[Finding], *, of_truths: bool) -> list[Finding]:
    """Only those of windows, or only those of truths."""
    return [each for each in findings if is_of_truths(each) is of_truths]
