"""Policies, mutes and notifications as the contract writes them."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.events.v1 import alert_pb2
from homeostat.monitor.v1 import policy_pb2 as pb
from homeostat_monitor.domain.alerts.alert import Severity
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.policies.checks import BadPolicy, Problem
from homeostat_monitor.domain.policies.policy import (
    LEAST_ROWS,
    Comparison,
    Mute,
    Policy,
    PolicyRule,
    Segment,
    Webhook,
)

_RULES: Mapping[alert_pb2.AlertRule.ValueType, Rule] = MappingProxyType(
    {alert_pb2.AlertRule.Value(f"ALERT_RULE_{each.name}"): each for each in Rule}
)
_MODES: Mapping[alert_pb2.DetectionMode.ValueType, Mode | None] = MappingProxyType(
    {
        alert_pb2.DETECTION_MODE_UNSPECIFIED: None,
        alert_pb2.DETECTION_MODE_IID: Mode.IID,
        alert_pb2.DETECTION_MODE_TIME_ORDERED: Mode.TIME_ORDERED,
    }
)
_COMPARISONS: Mapping[pb.Comparison.ValueType, Comparison | None] = MappingProxyType(
    {
        pb.COMPARISON_UNSPECIFIED: None,
        pb.COMPARISON_ABOVE: Comparison.ABOVE,
        pb.COMPARISON_BELOW: Comparison.BELOW,
        pb.COMPARISON_RELATIVE_ABOVE: Comparison.RELATIVE_ABOVE,
        pb.COMPARISON_RELATIVE_BELOW: Comparison.RELATIVE_BELOW,
    }
)
_SEVERITIES: Mapping[alert_pb2.Severity.ValueType, Severity] = MappingProxyType(
    {
        alert_pb2.SEVERITY_UNSPECIFIED: Severity.WARNING,
        alert_pb2.SEVERITY_WARNING: Severity.WARNING,
        alert_pb2.SEVERITY_CRITICAL: Severity.CRITICAL,
    }
)

Key = TypeVar("Key")
Value = TypeVar("Value")


def policy_of(message: pb.Policy) -> Policy:
    """BadPolicy where an enum's value is not one of this contract."""
    problems = list(_unknown_enums(message))
    if problems:
        raise BadPolicy(problems)
    default = Policy()
    return Policy(
        model_name=message.model_name,
        false_alarms_per_month=(
            message.false_alarms_per_month
            if message.HasField("false_alarms_per_month")
            else default.false_alarms_per_month
        ),
        disabled_rules=frozenset(_RULES[each] for each in message.disabled_rules),
        segments=tuple(Segment(each.name, each.expression) for each in message.segments),
        rules=tuple(map(_rule_of, message.rules)),
        webhooks=tuple(map(_webhook_of, message.webhooks)),
        mode=_MODES[message.mode],
        ignored_features=tuple(message.ignored_features),
        throttle_seconds=message.throttle_seconds if message.HasField("throttle_seconds") else 0.0,
    )


def policy_message(policy: Policy) -> pb.Policy:
    """The policy with every default written out."""
    message = pb.Policy(
        model_name=policy.model_name,
        revision=policy.revision,
        false_alarms_per_month=policy.false_alarms_per_month,
        disabled_rules=[_RULE_NUMBERS[each] for each in sorted(policy.disabled_rules)],
        segments=[
            pb.Segment(name=each.name, expression=each.expression) for each in policy.segments
        ],
        rules=map(_rule_message, policy.rules),
        webhooks=map(_webhook_message, policy.webhooks),
        mode=_number(_MODES, policy.mode),
        ignored_features=policy.ignored_features,
        throttle_seconds=policy.throttle_seconds,
        set_by=policy.set_by,
    )
    if policy.set_at_us:
        message.set_at.FromMicroseconds(policy.set_at_us)
    return message


def rule_of(number: alert_pb2.AlertRule.ValueType) -> Rule | None:
    """A rule; None for UNSPECIFIED and for numbers that this contract has not."""
    return _RULES.get(number)


def mute_of(message: pb.Mute) -> Mute:
    """The mute; ``until_us`` is 0 where none is said."""
    return Mute(
        message.model_name,
        rule_of(message.rule),
        message.feature,
        message.segment,
        message.until.ToMicroseconds() if message.HasField("until") else 0,
        message.muted_by,
        message.reason,
    )


def mute_message(mute: Mute) -> pb.Mute:
    """The mute as the contract has it."""
    until = Timestamp()
    until.FromMicroseconds(mute.until_us)
    return pb.Mute(
        model_name=mute.model_name,
        rule=alert_pb2.ALERT_RULE_UNSPECIFIED if mute.rule is None else _RULE_NUMBERS[mute.rule],
        feature=mute.feature,
        segment=mute.segment,
        until=until,
        muted_by=mute.muted_by,
        reason=mute.reason,
    )


_RULE_NUMBERS: Mapping[Rule, alert_pb2.AlertRule.ValueType] = MappingProxyType(
    {rule: number for number, rule in _RULES.items()}
)


def _rule_of(message: pb.PolicyRule) -> PolicyRule:
    return PolicyRule(
        name=message.name,
        metric=message.metric,
        comparison=_COMPARISONS[message.comparison],
        warning=message.warning if message.HasField("warning") else None,
        critical=message.critical if message.HasField("critical") else None,
        feature=message.feature,
        segment=message.segment,
        windows=message.windows or 1,
        least_rows=message.least_rows or LEAST_ROWS,
    )


def _rule_message(rule: PolicyRule) -> pb.PolicyRule:
    return pb.PolicyRule(
        name=rule.name,
        metric=rule.metric,
        feature=rule.feature,
        segment=rule.segment,
        comparison=_number(_COMPARISONS, rule.comparison),
        warning=rule.warning,
        critical=rule.critical,
        windows=rule.windows,
        least_rows=rule.least_rows,
    )


def _webhook_of(message: pb.Webhook) -> Webhook:
    return Webhook(
        name=message.name,
        url=message.url,
        secret_name=message.secret_name,
        least_severity=_SEVERITIES[message.least_severity],
        segments=tuple(message.segments),
    )


def _webhook_message(webhook: Webhook) -> pb.Webhook:
    is_critical = webhook.least_severity is Severity.CRITICAL
    return pb.Webhook(
        name=webhook.name,
        url=webhook.url,
        secret_name=webhook.secret_name,
        least_severity=alert_pb2.SEVERITY_CRITICAL if is_critical else alert_pb2.SEVERITY_WARNING,
        segments=webhook.segments,
    )


def _number(table: Mapping[Key, Value], value: Value) -> Key:
    return next(number for number, each in table.items() if each == value)


def _unknown_enums(message: pb.Policy) -> Iterator[Problem]:
    for index, number in enumerate(message.disabled_rules):
        if number not in _RULES:
            yield Problem(f"disabled_rules[{index}]", f"there is no rule of number {number}")
    if message.mode not in _MODES:
        yield Problem("mode", f"there is no mode of number {message.mode}")
    for index, rule in enumerate(message.rules):
        if rule.comparison not in _COMPARISONS:
            yield Problem(
                f"rules[{index}].comparison", f"there is no comparison of number {rule.comparison}"
            )
    for index, webhook in enumerate(message.webhooks):
        if webhook.least_severity not in _SEVERITIES:
            yield Problem(
                f"webhooks[{index}].least_severity",
                f"there is no severity of number {webhook.least_severity}",
            )
