"""The life of an alert: opened, perhaps escalated, resolved. One id, no repeats, no flapping.

Pure: a life and what was seen go in, the next life comes out. A new revision is a new event.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from homeostat_monitor.domain.causes import Cause, cause_of_findings, remedies
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses import LossChange, LossSignal

# Windows in a row without a breach end an alert: one may be chance.
_CALM_WINDOWS = 2
# A rate of broken values that no consumer can work with.
_CRITICAL_RATE = 0.5


class State(StrEnum):
    OPENED = "opened"
    ESCALATED = "escalated"
    RESOLVED = "resolved"


class Severity(StrEnum):
    WARNING = "warning"
    CRITICAL = "critical"


class Resolution(StrEnum):
    RECOVERED = "recovered"
    SUPERSEDED = "superseded"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True, order=True)
class Subject:
    """Whom an alert is about."""

    model_name: str
    version: int


@dataclass(frozen=True, slots=True)
class Moment:
    """When something was judged: up to which watermark, and the event time that goes with it."""

    watermark_us: int
    occurred_us: int


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert at one point of its life."""

    alert_id: str
    subject: Subject
    rule: Rule
    feature: str
    state: State
    severity: Severity
    resolution: Resolution | None
    summary: str
    since_us: int
    moment: Moment
    observed: float
    reference: float
    threshold: float
    shares: tuple[Finding, ...]
    cause: Cause
    revision: int
    # At which watermark it was opened, for questions about the past.
    opened_at: int
    calm_windows: int = 0
    # Runs that ended without a better model while it was open.
    runs_without_candidate: int = 0
    # Who said that they have seen it, and who shall look at it; empty: nobody yet.
    acknowledged_by: str = ""
    assigned_to: str = ""
    # Muted or throttled: told on the topic, but to no webhook.
    is_muted: bool = False

    @property
    def is_open(self) -> bool:
        return self.state is not State.RESOLVED

    @property
    def remedies(self) -> Sequence[str]:
        return () if self.state is State.RESOLVED else remedies(self.cause)


def alert_id(subject: Subject, rule: Rule, feature: str, *opening: int) -> str:
    """The same opening gives the same id, also on a second telling.

    ``opening``: the window's start, or the opening loss's time and its number.
    """
    digest = hashlib.sha256()
    for part in (subject.model_name, str(subject.version), rule, feature, *map(str, opening)):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:32]


def after_window(
    alert: Alert | None,
    findings: Sequence[Finding],
    *,
    subject: Subject,
    window_start_us: int,
    moment: Moment,
) -> Alert | None:
    """The alert of one rule after a window; ``findings`` are all that its judge made of it."""
    breaches = sorted(
        (each for each in findings if each.is_breach), key=lambda each: (-each.excess, each.feature)
    )
    if alert is None or not alert.is_open:
        return _opened(subject, breaches, window_start_us, moment) if breaches else alert
    if not breaches:
        return _calmed(alert, findings, moment)
    return _continued(alert, breaches, moment)


def after_losses(
    alert: Alert | None, change: LossChange, *, subject: Subject, cause: Cause, moment: Moment
) -> Alert | None:
    """The performance alert after a signal of the loss watch."""
    if alert is not None and alert.is_open:
        return _after_signal(alert, change, cause, moment)
    if change.signal is not LossSignal.ROSE:
        return alert
    return Alert(
        alert_id=alert_id(subject, Rule.PERFORMANCE, "", change.at_us, change.fed),
        subject=subject,
        rule=Rule.PERFORMANCE,
        feature="",
        state=State.OPENED,
        severity=Severity.CRITICAL if change.is_critical else Severity.WARNING,
        resolution=None,
        summary=_loss_summary(change),
        since_us=change.since_us,
        moment=moment,
        observed=change.observed,
        reference=change.reference,
        threshold=change.reference,
        shares=(),
        cause=cause,
        revision=1,
        opened_at=moment.watermark_us,
    )


def superseded(alert: Alert, *, by_version: int | None, moment: Moment) -> Alert:
    """Another version serves."""
    by = f"version {by_version}" if by_version is not None else "another version"
    return _resolved(alert, Resolution.SUPERSEDED, f"{by} serves now", moment)


def after_run_without_candidate(alert: Alert, *, enough: int, moment: Moment) -> Alert:
    """A retraining found nothing better; after ``enough`` of them the level is the new normal."""
    count = alert.runs_without_candidate + 1
    alert = replace(alert, runs_without_candidate=count)
    if count < enough or not alert.is_open:
        return alert
    text = f"no better model was found in {count} tries; the present level is the new normal"
    return _resolved(alert, Resolution.ACCEPTED, text, moment)


def accepted_levels(alert: Alert) -> Mapping[str, float]:
    """Per feature what an accepted alert had measured."""
    return {each.feature: each.observed for each in alert.shares}


def _opened(
    subject: Subject, breaches: Sequence[Finding], window_start_us: int, moment: Moment
) -> Alert:
    worst = breaches[0]
    return Alert(
        alert_id=alert_id(subject, worst.rule, worst.feature, window_start_us),
        subject=subject,
        rule=worst.rule,
        feature=worst.feature,
        state=State.OPENED,
        severity=_severity(breaches),
        resolution=None,
        summary=_findings_summary(breaches),
        since_us=window_start_us,
        moment=moment,
        observed=worst.observed,
        reference=worst.reference,
        threshold=worst.threshold,
        shares=tuple(breaches),
        cause=cause_of_findings(worst.rule, breaches),
        revision=1,
        opened_at=moment.watermark_us,
    )


def _continued(alert: Alert, breaches: Sequence[Finding], moment: Moment) -> Alert:
    """Still there. Only what a person has not heard yet is a new event: that it became critical,
    or that data of another feature broke."""
    alert = replace(alert, calm_windows=0)
    shares = _joined(alert.shares, breaches)
    is_news = len(shares) > len(alert.shares) and alert.rule in (
        Rule.MISSING_VALUES,
        Rule.UNSEEN_VALUES,
    )
    worsened = alert.severity is Severity.WARNING and _severity(breaches) is Severity.CRITICAL
    if not (is_news or worsened):
        return replace(alert, shares=shares)
    worst = breaches[0]
    return replace(
        alert,
        state=State.ESCALATED,
        severity=Severity.CRITICAL if worsened else alert.severity,
        summary=_findings_summary(breaches),
        moment=moment,
        observed=worst.observed,
        reference=worst.reference,
        threshold=worst.threshold,
        shares=shares,
        revision=alert.revision + 1,
    )


def _joined(shares: Iterable[Finding], breaches: Iterable[Finding]) -> tuple[Finding, ...]:
    by_feature = {each.feature: each for each in shares}
    by_feature.update({each.feature: each for each in breaches})
    return tuple(by_feature.values())


def _calmed(alert: Alert, findings: Sequence[Finding], moment: Moment) -> Alert:
    judged = {each.feature for each in findings}
    if not judged.issuperset(each.feature for each in alert.shares):
        # What it is about could not be judged: neither calm nor breach.
        return alert
    alert = replace(alert, calm_windows=alert.calm_windows + 1)
    if alert.calm_windows < _CALM_WINDOWS:
        return alert
    text = f"back to what the reference explains for {_CALM_WINDOWS} windows"
    return _resolved(alert, Resolution.RECOVERED, text, moment)


def _after_signal(alert: Alert, change: LossChange, cause: Cause, moment: Moment) -> Alert:
    if change.signal is LossSignal.RECOVERED:
        text = f"the loss is back at {change.observed:.4g}, the reference is {change.reference:.4g}"
        recovered = _resolved(alert, Resolution.RECOVERED, text, moment)
        return replace(recovered, observed=change.observed)
    if change.signal is LossSignal.PERSISTS and alert.severity is Severity.CRITICAL:
        return alert
    return replace(
        alert,
        state=State.ESCALATED,
        severity=Severity.CRITICAL,
        summary=_loss_summary(change),
        moment=moment,
        observed=change.observed,
        cause=alert.cause if cause is Cause.UNKNOWN else cause,
        revision=alert.revision + 1,
    )


def _resolved(alert: Alert, resolution: Resolution, why: str, moment: Moment) -> Alert:
    if not alert.is_open:
        return alert
    return replace(
        alert,
        state=State.RESOLVED,
        resolution=resolution,
        summary=f"Resolved: {why}.",
        moment=moment,
        revision=alert.revision + 1,
    )


def _severity(breaches: Iterable[Finding]) -> Severity:
    """Drift of inputs or scores warns; only broken data on most rows is critical by itself."""
    broken = any(
        each.rule in (Rule.MISSING_VALUES, Rule.UNSEEN_VALUES) and each.observed >= _CRITICAL_RATE
        for each in breaches
    )
    return Severity.CRITICAL if broken else Severity.WARNING


def _loss_summary(change: LossChange) -> str:
    how = {
        LossSignal.ROSE: "The loss rose",
        LossSignal.PERSISTS: "The loss stays high",
    }[change.signal]
    return f"{how}: {change.observed:.4g}, the reference is {change.reference:.4g}."


def _findings_summary(breaches: Sequence[Finding]) -> str:
    worst = breaches[0]
    what = {
        Rule.COVARIATE: f"{worst.feature} left its reference distribution",
        Rule.PREDICTION: "The scores left their reference distribution",
        Rule.MISSING_VALUES: f"{worst.feature} is null more often than the reference explains",
        Rule.UNSEEN_VALUES: f"{worst.feature} has more never-seen values than expected",
    }[worst.rule]
    outside = (
        f" {worst.out_of_range:.0%} of its rows are outside of the range that the reference knows."
        if worst.out_of_range > 0.01
        else ""
    )
    others = f" So do {len(breaches) - 1} more features." if len(breaches) > 1 else ""
    figures = f"{worst.statistic} {worst.observed:.3f}, threshold {worst.threshold:.3f}"
    return f"{what}: {figures}.{outside}{others}"
