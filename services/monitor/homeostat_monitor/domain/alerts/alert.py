"""The life of an alert: opened, perhaps escalated, resolved. One id, no repeats, no flapping.

Pure: a life and what was seen go in, the next life comes out. A new revision is a new event.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from homeostat_monitor.domain.alerts.causes import UNEXPLAINED, Cause
from homeostat_monitor.domain.alerts.clear import is_clear, latest_begin
from homeostat_monitor.domain.alerts.ids import free_id
from homeostat_monitor.domain.alerts.lanes import is_of_truths
from homeostat_monitor.domain.alerts.texts import findings_summary
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Diagnosis
from homeostat_monitor.domain.diagnosis.completing import carried_on
from homeostat_monitor.domain.judges import Finding, Rule

# Rules whose alert tells of every further feature, or threshold: each is another thing to mend.
_NEWS_PER_FEATURE = frozenset(
    {Rule.MISSING_VALUES, Rule.UNSEEN_VALUES, Rule.OUT_OF_RANGE, Rule.STUCK, Rule.POLICY}
)
# Where a person says what is well, it is not the reference that does.
_WITHIN = {Rule.POLICY: "within the policy's thresholds"}
# Judged by truths, not by inputs.
LOSS_RULES = frozenset({Rule.PERFORMANCE, Rule.CONCEPT, Rule.LABEL_DELAY, Rule.LABEL_COVERAGE})
# In i.i.d. mode a detector looks back on up to so many rows. Spans that begin before a shift's end
# go on to breach, so it has ended where the newest so many rows agree with the reference, with room
# to spare; or, where that is in doubt, when so many came after the last breach.
LONGEST_SPAN_ROWS = 4000
# A rate of broken values that no consumer can work with.
_CRITICAL_RATE = 0.5
_BROKEN = frozenset({Rule.MISSING_VALUES, Rule.UNSEEN_VALUES})


class State(StrEnum):
    OPENED = "opened"
    ESCALATED = "escalated"
    # Nothing new happened; more is known of why.
    DIAGNOSED = "diagnosed"
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
class Calm:
    """What ends an alert: so many windows in a row, and so many rows, without a breach."""

    # One may be chance.
    windows: int = 2
    # Panes are short: a detector that looks back on spans of rows must have seen only new ones.
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was found when a feature was first seen to be part of an alert, and at which mark."""

    mark_us: int
    finding: Finding


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
    # A policy's segment; empty for all rows.
    segment: str = ""
    mode: Mode | None = None
    diagnosis: Diagnosis | None = None
    calm_rows: int = 0
    # By feature; unlike shares they do not change, so that the past can be asked about.
    sightings: tuple[Sighting, ...] = ()
    # Rows judged since it opened, its opening window's among them.
    rows: int = 0
    # Open alerts on the inputs by which the present cause of a risen loss was found.
    witnesses: tuple[str, ...] = ()
    # The policy's rule that asked for it; empty for the defaults.
    policy_rule: str = ""
    # False alarms in a month that were signed; None: the rule spends of no budget.
    budget_per_month: float | None = None
    # The mark at which the inputs of the time of a loss's rise will have been judged: then the
    # cause is looked at once more. 0: that was done.
    settled_at_us: int = 0
    # The latest begin of any span that breached; None where none told it.
    begun_us: int | None = None

    @property
    def is_open(self) -> bool:
        return self.state is not State.RESOLVED

    @property
    def is_of_truths(self) -> bool:
        """Whether it is judged at the marks of truths."""
        return self.rule in LOSS_RULES or any(is_of_truths(each) for each in self.shares[:1])

    def seen_at(self, mark_us: int) -> list[Finding]:
        """What was known of it at a watermark, whenever that is asked."""
        return [each.finding for each in self.sightings if each.mark_us <= mark_us]

    @property
    def remedies(self) -> Sequence[str]:
        """What would help, best first."""
        if self.state is State.RESOLVED:
            return ()
        if self.diagnosis is not None and self.diagnosis.steps:
            return [each.text for each in self.diagnosis.steps]
        return (UNEXPLAINED,)


def after_window(
    alert: Alert | None,
    findings: Sequence[Finding],
    *,
    subject: Subject,
    window_start_us: int,
    moment: Moment,
    rows: int = 0,
    calm: Calm = Calm(),
    taken: Collection[str] = (),
) -> Alert | None:
    """The alert of one rule and segment after a window of so many rows.

    ``findings`` are all that was made of it, and all of that rule and segment. ``taken``: ids of
    alerts that may have opened at the same time.
    """
    breaches = sorted(
        (each for each in findings if each.is_breach),
        key=lambda each: (not each.is_critical, -each.excess, each.feature),
    )
    if alert is None or not alert.is_open:
        if not breaches:
            return alert
        opened = _opened(subject, breaches, window_start_us, moment, taken)
        return replace(opened, rows=rows)
    alert = replace(alert, rows=alert.rows + rows) if rows else alert
    if not breaches:
        return _calmed(alert, findings, moment, rows, calm)
    return _continued(alert, breaches, moment)


def _opened(
    subject: Subject,
    breaches: Sequence[Finding],
    window_start_us: int,
    moment: Moment,
    taken: Collection[str],
) -> Alert:
    worst = breaches[0]
    # Both of a person's alerts may begin at one time.
    about = f"{worst.feature}@truths" if is_of_truths(worst) else worst.feature
    return Alert(
        alert_id=free_id(taken, subject, worst.rule, about, window_start_us, segment=worst.segment),
        subject=subject,
        rule=worst.rule,
        feature=worst.feature,
        state=State.OPENED,
        severity=_severity(breaches),
        resolution=None,
        summary=findings_summary(breaches),
        since_us=window_start_us if worst.since_us is None else worst.since_us,
        moment=moment,
        observed=worst.observed,
        reference=worst.reference,
        threshold=worst.threshold,
        shares=tuple(breaches),
        cause=Cause.UNKNOWN,
        revision=1,
        opened_at=moment.watermark_us,
        segment=worst.segment,
        policy_rule=worst.policy_rule,
        begun_us=latest_begin(breaches),
        sightings=tuple(Sighting(moment.watermark_us, each) for each in breaches),
    )


def _continued(alert: Alert, breaches: Sequence[Finding], moment: Moment) -> Alert:
    """Still there. Only what a person has not heard yet is a new event: that it became critical,
    or that data of another feature broke."""
    known = {each.about for each in alert.shares}
    added = [Sighting(moment.watermark_us, each) for each in breaches if each.about not in known]
    alert = replace(alert, calm_windows=0, calm_rows=0, sightings=(*alert.sightings, *added))
    alert = replace(alert, begun_us=latest_begin(breaches, alert.begun_us))
    shares = _joined(alert.shares, breaches)
    is_news = len(shares) > len(alert.shares) and alert.rule in _NEWS_PER_FEATURE
    worsened = alert.severity is Severity.WARNING and _severity(breaches) is Severity.CRITICAL
    if not (is_news or worsened):
        return replace(alert, shares=shares)
    worst = breaches[0]
    return replace(
        alert,
        state=State.ESCALATED,
        severity=Severity.CRITICAL if worsened else alert.severity,
        summary=findings_summary(breaches),
        moment=moment,
        observed=worst.observed,
        reference=worst.reference,
        threshold=worst.threshold,
        shares=shares,
        revision=alert.revision + 1,
    )


def diagnosed(alert: Alert, diagnosis: Diagnosis, witnesses: Sequence[str] = ()) -> Alert:
    """The same event with the reasons for it."""
    since = alert.since_us if alert.rule in LOSS_RULES else diagnosis.since_us
    return replace(
        alert,
        cause=diagnosis.cause,
        since_us=since if alert.revision == 1 else alert.since_us,
        diagnosis=carried_on(alert.diagnosis, diagnosis),
        witnesses=tuple(witnesses),
    )


def _joined(shares: Iterable[Finding], breaches: Iterable[Finding]) -> tuple[Finding, ...]:
    found = {each.about: each for each in shares}
    found.update({each.about: each for each in breaches})
    return tuple(found.values())


def _calmed(
    alert: Alert, findings: Sequence[Finding], moment: Moment, rows: int, calm: Calm
) -> Alert:
    judged = {each.about for each in findings}
    # A detector may say once for all features that none of them breaches.
    if ("", "", "") not in judged and not judged.issuperset(each.about for each in alert.shares):
        # What it is about could not be judged: neither calm nor breach.
        return alert
    alert = replace(alert, calm_windows=alert.calm_windows + 1, calm_rows=alert.calm_rows + rows)
    is_short = alert.calm_windows < calm.windows or alert.calm_rows < calm.rows
    if is_short and not (calm.rows and is_clear(alert.begun_us, findings)):
        return alert
    span = f"{calm.rows} rows" if calm.rows else f"{calm.windows} windows"
    text = f"back {_WITHIN.get(alert.rule, 'to what the reference explains')} for {span}"
    return resolved(alert, Resolution.RECOVERED, text, moment)


def resolved(alert: Alert, resolution: Resolution, why: str, moment: Moment) -> Alert:
    """The end of an alert, once."""
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
    is_critical = any(
        each.is_critical or (each.rule in _BROKEN and each.observed >= _CRITICAL_RATE)
        for each in breaches
    )
    return Severity.CRITICAL if is_critical else Severity.WARNING
