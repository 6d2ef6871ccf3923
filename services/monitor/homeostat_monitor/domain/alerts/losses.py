"""The life of a performance alert: opened by a rise of the loss, ended by its recovery.

Pure, as alerts.py is.
"""

from collections.abc import Sequence
from dataclasses import replace

from homeostat_monitor.domain.alerts.alert import (
    Alert,
    Moment,
    Resolution,
    Severity,
    State,
    Subject,
    resolved,
)
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.alerts.ids import alert_id
from homeostat_monitor.domain.alerts.texts import loss_summary
from homeostat_monitor.domain.diagnosis import Diagnosis
from homeostat_monitor.domain.diagnosis.completing import carried_on
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.losses.watch import LossChange, LossSignal


def after_losses(
    alert: Alert | None,
    change: LossChange,
    *,
    subject: Subject,
    cause: Cause,
    moment: Moment,
    segment: str = "",
) -> Alert | None:
    """The performance alert of one segment after a signal of its loss watch."""
    if alert is not None and alert.is_open:
        return _after_signal(alert, change, cause, moment)
    if change.signal is not LossSignal.ROSE:
        return alert
    return Alert(
        alert_id=alert_id(subject, Rule.PERFORMANCE, "", change.at_us, change.fed, segment=segment),
        subject=subject,
        rule=Rule.PERFORMANCE,
        feature="",
        state=State.OPENED,
        severity=Severity.CRITICAL if change.is_critical else Severity.WARNING,
        resolution=None,
        summary=loss_summary(change, segment),
        since_us=change.since_us,
        moment=moment,
        observed=change.observed,
        reference=change.reference,
        threshold=change.reference,
        shares=(),
        cause=cause,
        revision=1,
        opened_at=moment.watermark_us,
        segment=segment,
    )


def after_new_cause(
    alert: Alert,
    cause: Cause,
    diagnosis: Diagnosis | None,
    witnesses: Sequence[str],
    moment: Moment,
) -> Alert:
    """What the inputs show has changed since the loss's alert was told last; that the cause is
    another one is an event of its own."""
    if cause in (alert.cause, Cause.UNKNOWN):
        return replace(alert, witnesses=tuple(witnesses))
    return replace(
        alert,
        state=State.ESCALATED,
        summary=f"The cause is another one now: {_spoken(cause)}, before {_spoken(alert.cause)}.",
        moment=moment,
        cause=cause,
        diagnosis=None if diagnosis is None else carried_on(alert.diagnosis, diagnosis),
        witnesses=tuple(witnesses),
        revision=alert.revision + 1,
    )


def settled_at_us(since_us: int, mark_us: int, length_us: int) -> int:
    """When windows of that length tell whether the inputs broke as the loss rose; 0: they do.

    The end of the first window of which at least half came since: a break that raised the loss at
    once then shows in half of its rows. Truths come late, never early: what they tell of came no
    later, so the half is one at least.
    """
    half = since_us + length_us // 2
    end_us = -(-half // length_us) * length_us
    return end_us if end_us > mark_us else 0


def _spoken(cause: Cause) -> str:
    return cause.replace("_", " ")


def _after_signal(alert: Alert, change: LossChange, cause: Cause, moment: Moment) -> Alert:
    if change.signal is LossSignal.RECOVERED:
        text = f"the loss is back at {change.observed:.4g}, the reference is {change.reference:.4g}"
        recovered = resolved(alert, Resolution.RECOVERED, text, moment)
        return replace(recovered, observed=change.observed)
    if change.signal is LossSignal.PERSISTS and alert.severity is Severity.CRITICAL:
        return alert
    return replace(
        alert,
        state=State.ESCALATED,
        severity=Severity.CRITICAL,
        summary=loss_summary(change, alert.segment),
        moment=moment,
        observed=change.observed,
        cause=alert.cause if cause is Cause.UNKNOWN else cause,
        revision=alert.revision + 1,
    )
