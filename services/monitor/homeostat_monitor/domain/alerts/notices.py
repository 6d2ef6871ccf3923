"""Which of an alert's events webhooks hear of: mutes, throttle, and what was heard before."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from homeostat_monitor.domain.alerts.alert import Alert, Severity
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.policies.policy import Mute, Policy, Webhook

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Silence:
    """What keeps webhooks quiet about a model."""

    mutes: Sequence[Mute] = ()
    # 0: nothing is throttled.
    throttle_us: int = 0
    # By rule and segment, when a new alert was last told, in event time.
    last_told_us: Mapping[Place, int] = field(default_factory=dict)
    # Alerts of which an event was told before.
    heard: Collection[str] = ()


def quieted(alerts: Sequence[Alert], silence: Silence) -> tuple[list[Alert], dict[Place, int]]:
    """The alerts, each saying whether webhooks hear of it, and where and when a new one was told.

    A mute keeps everything quiet. The throttle is in event time, like all that a policy says: it
    keeps a new alert quiet, and what becomes of it, until it is critical. Webhooks hear the end of
    what they heard the beginning of, and of nothing else.
    """
    heard, told = set(silence.heard), dict[Place, int]()
    said: list[Alert] = []
    for each in alerts:
        is_of_truths = each.rule is Rule.POLICY and each.is_of_truths
        place = (f"{each.rule}@truths" if is_of_truths else str(each.rule), each.segment)
        last_us = told.get(place, silence.last_told_us.get(place))
        is_new = each.alert_id not in heard
        is_muted = _is_muted(each, silence.mutes) or (
            is_new and _is_kept_back(each, last_us, silence.throttle_us)
        )
        if is_new and not is_muted:
            heard.add(each.alert_id)
            told[place] = each.moment.occurred_us
        said.append(each if each.is_muted == is_muted else replace(each, is_muted=is_muted))
    return said, told


def listeners(policy: Policy, alert: Alert) -> list[Webhook]:
    """The webhooks that hear of an alert."""
    if alert.is_muted:
        return []
    return [each for each in policy.webhooks if each.wants(alert.severity, alert.segment)]


def _is_muted(alert: Alert, mutes: Sequence[Mute]) -> bool:
    features = [each.feature for each in alert.shares if each.feature] or [
        each for each in (alert.feature,) if each
    ]
    return any(each.covers(alert.rule, features, alert.segment) for each in mutes)


def _is_kept_back(alert: Alert, last_us: int | None, throttle_us: int) -> bool:
    """Of an alert that webhooks have not heard of."""
    if not alert.is_open:
        return True
    if alert.revision > 1:
        return throttle_us > 0 and alert.severity is not Severity.CRITICAL
    return last_us is not None and alert.moment.occurred_us - last_us < throttle_us
