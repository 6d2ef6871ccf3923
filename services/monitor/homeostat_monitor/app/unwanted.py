"""Alerts that nobody judges any more: what the policy switched off, and what can't be told.

No detector would ever end them. So they end before anything else is judged.
"""

from collections.abc import Sequence
from dataclasses import replace

from homeostat_monitor.app.passing import Pass
from homeostat_monitor.domain.alerts.alert import Alert, Moment, Resolution, resolved
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.policies.policy import Policy

_SWITCHED_OFF = "the policy no longer asks for it"


def end_unwanted(now: Pass, window_marks: Sequence[int], loss_marks: Sequence[int]) -> None:
    """At the first mark at which an alert would have been judged."""
    for alert in now.book.open():
        marks = loss_marks if alert.is_of_truths else (window_marks or loss_marks)
        if not marks:
            continue
        if not _is_wanted(now.version.policy, alert):
            moment = Moment(marks[0], marks[0])
            now.book.put(resolved(alert, Resolution.ACCEPTED, _SWITCHED_OFF, moment))
        elif not all(_is_judged(now.version.policy, each) for each in alert.shares):
            # The others alone decide when it ends.
            kept = [each for each in alert.shares if _is_judged(now.version.policy, each)]
            now.book.put(replace(alert, shares=tuple(kept)))


def end_withdrawn(now: Pass, mark: int) -> None:
    """The estimate of the loss was wrong: what it led to tell is not known any more."""
    alert = now.book.get(Rule.ESTIMATED_PERFORMANCE)
    if alert is not None and alert.is_open:
        text = "the estimate was withdrawn, for it did not hold the loss that became true"
        now.book.put(resolved(alert, Resolution.ACCEPTED, text, Moment(mark, mark)))


def _is_wanted(policy: Policy, alert: Alert) -> bool:
    if not policy.judges(alert.rule):
        return False
    if alert.segment and alert.segment not in {each.name for each in policy.segments}:
        return False
    return not alert.shares or any(_is_judged(policy, each) for each in alert.shares)


def _is_judged(policy: Policy, finding: Finding) -> bool:
    if finding.rule is Rule.POLICY:
        return any(
            each.name == finding.policy_rule and each.segment == finding.segment
            for each in policy.rules
        )
    return policy.judges_finding(finding)
