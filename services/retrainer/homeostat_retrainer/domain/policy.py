"""When to try for a better model: alerts, follow-ups while trouble lasts, truth volume, schedule.

All spans are shares of the model's reference length W (rows that its first version was built on),
counted in new truths, so that the same policy fits a stream of any speed. Time is event time.

The run of an alert whose inputs are not judged yet waits until they are: they may be broken.

What is due by count (follow-ups, volume, schedule) is seen at one mark of the truth and acted upon
at the next: whatever alert was judged at the former has arrived by then, so the order in which
topics are read changes nothing.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

# A data break that is named with less is no reason to wait.
_SURE = 0.8
# The longest window and a half, rounded up: what inputs show is waited for no longer.
_LONGEST_WAIT_US = 14 * 86_400_000_000
# More than a broker's topic repeats of one model when it was lost.
_REMEMBERED_ALERTS = 1000


class Trigger(StrEnum):
    """Why a run is due."""

    ALERT = "alert"
    FOLLOW_UP = "follow_up"
    TRUTH_VOLUME = "truth_volume"
    SCHEDULE = "schedule"
    REQUEST = "request"


@dataclass(frozen=True, slots=True)
class Policy:
    """The parameters; defaults chosen on public streams (docs/decisions, retraining policy)."""

    # New truths between two runs, as a share of W.
    cool_down_share: float = 0.1
    # New truths since the last run after which a trial is due though nothing alarms.
    volume_share: float | None = 0.25
    # So much longer that trial waits while data are broken: rows to come may be whole again.
    break_wait_share: float = 0.25
    # New truths after an alert's opening at which to try again while it is open.
    follow_up_shares: tuple[float, ...] = (0.05, 0.2, 0.5)
    # Event time between two runs after which a trial is due; None: no schedule.
    schedule_us: int | None = None
    # At most so many runs begin within the period (event time).
    budget_runs: int = 24
    budget_period_us: int = 24 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Due:
    """A run that the policy wants."""

    trigger: Trigger
    alert_id: str = ""
    follow_up_number: int = 0


@dataclass(frozen=True, slots=True)
class Skipped:
    """A run that an alert asked for and the policy forbids."""

    alert_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AlertSeen:
    """What the policy needs of an alert's event."""

    alert_id: str
    version: int
    is_resolved: bool
    watermark_us: int
    # Of performance; the others say that inputs moved or broke and ask for nothing.
    is_of_performance: bool = True
    # Its cause: broken data are to be repaired, not learnt.
    is_data_break: bool = False
    # How sure the monitor is of the cause, 0 to 1.
    confidence: float = 0.0
    # Nothing new happened, more is known of why: it asks for nothing now.
    is_diagnosis: bool = False
    # The watermark at which the inputs show whether data broke; 0: they do already.
    settled_at_us: int = 0

    @property
    def waits_until_us(self) -> int:
        """0: for nothing."""
        if self.settled_at_us <= self.watermark_us:
            return 0
        return min(self.settled_at_us, self.watermark_us + _LONGEST_WAIT_US)


@dataclass(slots=True)
class OpenAlert:
    """A trouble that lasts."""

    version: int
    opened_at_truths: int
    follow_ups_begun: int = 0
    # As the newest event says: until another one says otherwise nothing follows.
    is_data_break: bool = False
    # Its run waits until the mark at which its inputs have been judged; 0: it does not.
    waits_until_us: int = 0
    # That mark has passed with new truths, upon which the monitor looked at the cause once more.
    is_settled: bool = False


@dataclass(slots=True)
class ModelState:
    """What the policy remembers of one model. Verbs change it; each gives what follows."""

    champion_version: int = 0
    # The highest version ever heard of.
    newest_version: int = 0
    # Of the registry; what a new life of the broker repeats is older.
    revision: int = 0
    # W; 0 while unknown.
    reference_rows: int = 0
    truths: int = 0
    watermark_us: int = 0
    truths_at_last_run: int = 0
    last_run_us: int | None = None
    # Event times at which the runs within the budget's period began.
    run_times_us: list[int] = field(default_factory=list)
    open_alerts: dict[str, OpenAlert] = field(default_factory=dict)
    # Every alert that ever asked, the newest last: a repeat asks for nothing.
    seen_alerts: list[str] = field(default_factory=list)
    # Open alerts that surely are data breaks, of any rule, with the version that they are about.
    data_breaks: dict[str, int] = field(default_factory=dict)

    def champion_changed(self, version: int, reference_rows: int | None) -> None:
        """Another version serves: its predecessor's troubles are over. ``reference_rows`` is given
        where a person brought the version, and W with it.
        """
        if reference_rows is not None:
            self.reference_rows = reference_rows
        if version != self.champion_version:
            self.champion_version = version
            self.open_alerts = {
                alert_id: alert
                for alert_id, alert in self.open_alerts.items()
                if alert.version == version
            }
            self.data_breaks = {
                alert_id: about for alert_id, about in self.data_breaks.items() if about == version
            }

    def truths_known(self, count: int, watermark_us: int, policy: Policy) -> Due | None:
        """So many more truths up to the mark. First acts on what was due at the mark before."""
        wanted = self._due_by_count(policy)
        self.truths += count
        self.watermark_us = max(watermark_us, self.watermark_us)
        self._settle(count)
        if wanted is None or self.forbidden(policy, self.watermark_us) is not None:
            return None
        self.run_began(self.watermark_us, policy)
        if wanted.trigger is Trigger.ALERT:
            self._remember(wanted.alert_id)
            self.open_alerts[wanted.alert_id].waits_until_us = 0
        if wanted.trigger is Trigger.FOLLOW_UP:
            self._follow_up_began(wanted.alert_id, policy)
        return wanted

    def _settle(self, count: int) -> None:
        for alert in self.open_alerts.values():
            if count and alert.waits_until_us and self.watermark_us >= alert.waits_until_us:
                alert.is_settled = True

    def alert_changed(self, alert: AlertSeen, policy: Policy) -> Due | Skipped | None:
        """An alert opened, went on or ended. Only the first event of a performance alert that names
        another cause than broken data can ask for a run."""
        self._note_break(alert)
        if alert.is_resolved:
            self.open_alerts.pop(alert.alert_id, None)
            return None
        if not alert.is_of_performance:
            return None
        known = self.open_alerts.get(alert.alert_id)
        if known is not None:
            known.is_data_break = alert.is_data_break
        if alert.is_data_break or alert.alert_id in self.seen_alerts:
            return None
        if alert.is_diagnosis:
            # It was a data break until now, or its beginning was lost: follow-ups may come.
            if known is None and alert.version == self.champion_version:
                self.open_alerts[alert.alert_id] = OpenAlert(alert.version, self.truths)
            return None
        if alert.waits_until_us and alert.version == self.champion_version:
            self._opened(alert).waits_until_us = alert.waits_until_us
            return None
        return self._asked(alert, policy)

    def _opened(self, alert: AlertSeen) -> OpenAlert:
        return self.open_alerts.setdefault(alert.alert_id, OpenAlert(alert.version, self.truths))

    def _remember(self, alert_id: str) -> None:
        self.seen_alerts = [*self.seen_alerts[1 - _REMEMBERED_ALERTS :], alert_id]

    def _asked(self, alert: AlertSeen, policy: Policy) -> Due | Skipped:
        self._remember(alert.alert_id)
        if alert.version != self.champion_version:
            return Skipped(alert.alert_id, "the alert is about a version that no longer serves")
        self._opened(alert).waits_until_us = 0
        reason = self.forbidden(policy, alert.watermark_us)
        if reason is not None:
            return Skipped(alert.alert_id, reason)
        self.run_began(alert.watermark_us, policy)
        return Due(Trigger.ALERT, alert.alert_id)

    def _note_break(self, alert: AlertSeen) -> None:
        is_sure = alert.is_data_break and alert.confidence >= _SURE
        if is_sure and not alert.is_resolved and alert.version == self.champion_version:
            self.data_breaks[alert.alert_id] = alert.version
        else:
            self.data_breaks.pop(alert.alert_id, None)

    def run_began(self, at_us: int, policy: Policy) -> None:
        """Counts a run against cool-down and budget, by whatever it was triggered."""
        self.truths_at_last_run = self.truths
        self.last_run_us = at_us
        since_us = at_us - policy.budget_period_us
        self.run_times_us = [each for each in self.run_times_us if each > since_us] + [at_us]

    def forbidden(self, policy: Policy, at_us: int) -> str | None:
        """Why no run may begin now; None if one may."""
        if not self.champion_version:
            return "no version serves"
        new = self.truths - self.truths_at_last_run
        needed = policy.cool_down_share * self.reference_rows
        if self.last_run_us is not None and new < needed:
            return f"cool-down: {new} new truths since the last run, {needed:.0f} are needed"
        since_us = at_us - policy.budget_period_us
        begun = sum(each > since_us for each in self.run_times_us)
        if begun >= policy.budget_runs:
            hours = policy.budget_period_us / 3.6e9
            return f"budget: {begun} runs within {hours:g} hours of event time"
        return None

    def _due_by_count(self, policy: Policy) -> Due | None:
        if not self.champion_version or not self.reference_rows:
            return None
        return self._settled_due() or self._follow_up_due(policy) or self._trial_due(policy)

    def _settled_due(self) -> Due | None:
        """A run that waited, of an alert that is no data break now that its inputs were judged."""
        for alert_id, alert in sorted(self.open_alerts.items()):
            if alert.waits_until_us and alert.is_settled and not alert.is_data_break:
                return Due(Trigger.ALERT, alert_id)
        return None

    def _follow_up_due(self, policy: Policy) -> Due | None:
        shares = policy.follow_up_shares
        for alert_id, alert in sorted(self.open_alerts.items()):
            begun = alert.follow_ups_begun
            if alert.is_data_break or alert.waits_until_us:
                continue
            if begun < len(shares) and self._since(alert) >= shares[begun] * self.reference_rows:
                return Due(Trigger.FOLLOW_UP, alert_id, begun + 1)
        return None

    def _trial_due(self, policy: Policy) -> Due | None:
        new = self.truths - self.truths_at_last_run
        if policy.volume_share is not None:
            is_unsettled = any(each.waits_until_us for each in self.open_alerts.values())
            wait_share = policy.break_wait_share if self.data_breaks or is_unsettled else 0.0
            if new >= (policy.volume_share + wait_share) * self.reference_rows:
                return Due(Trigger.TRUTH_VOLUME)
        if policy.schedule_us is not None and new:
            since_us = self.watermark_us - (self.last_run_us or 0)
            if since_us >= policy.schedule_us:
                return Due(Trigger.SCHEDULE)
        return None

    def _follow_up_began(self, alert_id: str, policy: Policy) -> None:
        """Follow-ups that a cool-down held up are one, not a row of them."""
        alert = self.open_alerts[alert_id]
        reached = sum(
            self._since(alert) >= share * self.reference_rows for share in policy.follow_up_shares
        )
        alert.follow_ups_begun = max(alert.follow_ups_begun + 1, reached)

    def _since(self, alert: OpenAlert) -> int:
        return self.truths - alert.opened_at_truths

    def to_plain(self) -> dict[str, Any]:
        """For JSON; ``from_plain`` gives the state back."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The state that ``to_plain`` gave."""
        alerts = {alert_id: OpenAlert(**alert) for alert_id, alert in plain["open_alerts"].items()}
        return cls(**{**plain, "open_alerts": alerts})
