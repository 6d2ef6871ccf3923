"""Alerts as the contract writes them."""

from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.events.v1 import alert_pb2 as pb
from homeostat_monitor.domain.alerts import Alert, Resolution, Severity, State
from homeostat_monitor.domain.causes import Cause
from homeostat_monitor.domain.judges import Finding, Rule

_RULES = MappingProxyType(
    {
        Rule.PERFORMANCE: pb.ALERT_RULE_PERFORMANCE,
        Rule.COVARIATE: pb.ALERT_RULE_COVARIATE,
        Rule.MISSING_VALUES: pb.ALERT_RULE_MISSING_VALUES,
        Rule.UNSEEN_VALUES: pb.ALERT_RULE_UNSEEN_VALUES,
        Rule.PREDICTION: pb.ALERT_RULE_PREDICTION,
    }
)
_STATES = MappingProxyType(
    {
        State.OPENED: pb.ALERT_STATE_OPENED,
        State.ESCALATED: pb.ALERT_STATE_ESCALATED,
        State.RESOLVED: pb.ALERT_STATE_RESOLVED,
    }
)
_SEVERITIES = MappingProxyType(
    {Severity.WARNING: pb.SEVERITY_WARNING, Severity.CRITICAL: pb.SEVERITY_CRITICAL}
)
_RESOLUTIONS = MappingProxyType(
    {
        None: pb.RESOLUTION_UNSPECIFIED,
        Resolution.RECOVERED: pb.RESOLUTION_RECOVERED,
        Resolution.SUPERSEDED: pb.RESOLUTION_SUPERSEDED,
        Resolution.ACCEPTED: pb.RESOLUTION_ACCEPTED,
    }
)
_CAUSES = MappingProxyType(
    {
        Cause.UNKNOWN: pb.CAUSE_CLASS_UNKNOWN,
        Cause.DATA_BREAK: pb.CAUSE_CLASS_DATA_BREAK,
        Cause.COVARIATE: pb.CAUSE_CLASS_COVARIATE,
        Cause.CONCEPT: pb.CAUSE_CLASS_CONCEPT,
    }
)


def message_of(alert: Alert) -> pb.Alert:
    """The event that tells of the alert as it is now."""
    return pb.Alert(
        alert_id=alert.alert_id,
        model_name=alert.subject.model_name,
        version=alert.subject.version,
        rule=_RULES[alert.rule],
        state=_STATES[alert.state],
        severity=_SEVERITIES[alert.severity],
        resolution=_RESOLUTIONS[alert.resolution],
        feature=alert.feature,
        summary=alert.summary,
        since_at=_timestamp(alert.since_us),
        watermark_us=alert.moment.watermark_us,
        observed_value=alert.observed,
        reference_value=alert.reference,
        threshold=alert.threshold,
        features=[_share(each) for each in alert.shares if each.feature],
        cause=_CAUSES[alert.cause],
        remedies=alert.remedies,
        revision=alert.revision,
        occurred_at=_timestamp(alert.moment.occurred_us),
        acknowledged_by=alert.acknowledged_by,
        assigned_to=alert.assigned_to,
        is_muted=alert.is_muted,
    )


def _share(finding: Finding) -> pb.FeatureShare:
    return pb.FeatureShare(
        feature=finding.feature,
        statistic=finding.statistic,
        observed_value=finding.observed,
        reference_value=finding.reference,
        threshold=finding.threshold,
    )


def _timestamp(at_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(at_us)
    return stamp
