"""Alerts as the contract writes them."""

from types import MappingProxyType

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.events.v1 import alert_pb2 as pb
from homeostat_monitor.domain.alerts.alert import Alert, Resolution, Severity, State
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Diagnosis, StepKind
from homeostat_monitor.domain.diagnosis.shares import BROKEN
from homeostat_monitor.domain.judges import Finding, Rule

# Every enum of the domain is named as the contract names it.
RULES = MappingProxyType({each: pb.AlertRule.Value(f"ALERT_RULE_{each.name}") for each in Rule})
MODES = MappingProxyType(
    {
        None: pb.DETECTION_MODE_UNSPECIFIED,
        **{each: pb.DetectionMode.Value(f"DETECTION_MODE_{each.name}") for each in Mode},
    }
)
_STATES = MappingProxyType(
    {each: pb.AlertState.Value(f"ALERT_STATE_{each.name}") for each in State}
)
_SEVERITIES = MappingProxyType(
    {each: pb.Severity.Value(f"SEVERITY_{each.name}") for each in Severity}
)
_RESOLUTIONS = MappingProxyType(
    {
        None: pb.RESOLUTION_UNSPECIFIED,
        **{each: pb.Resolution.Value(f"RESOLUTION_{each.name}") for each in Resolution},
    }
)
_CAUSES = MappingProxyType(
    {each: pb.CauseClass.Value(f"CAUSE_CLASS_{each.name}") for each in Cause}
)
_STEPS = MappingProxyType({each: pb.StepKind.Value(f"STEP_KIND_{each.name}") for each in StepKind})


def message_of(alert: Alert) -> pb.Alert:
    """The event that tells of the alert as it is now."""
    return pb.Alert(
        alert_id=alert.alert_id,
        model_name=alert.subject.model_name,
        version=alert.subject.version,
        rule=RULES[alert.rule],
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
        features=_features(alert),
        cause=_CAUSES[alert.cause],
        remedies=alert.remedies,
        revision=alert.revision,
        occurred_at=_timestamp(alert.moment.occurred_us),
        segment=alert.segment,
        mode=MODES[alert.mode],
        diagnosis=None if alert.diagnosis is None else _diagnosis(alert.diagnosis),
        policy_rule=alert.policy_rule,
        acknowledged_by=alert.acknowledged_by,
        assigned_to=alert.assigned_to,
        is_muted=alert.is_muted,
        budget_per_month=alert.budget_per_month or 0.0,
        settled_at_us=alert.settled_at_us,
    )


def _features(alert: Alert) -> list[pb.FeatureShare]:
    """As the diagnosis ranks them; what was seen since then comes behind, without a share. An alert
    of broken values begins with its own feature."""
    ranked = [] if alert.diagnosis is None else alert.diagnosis.features
    newest = {(each.feature, each.other_feature): each for each in alert.shares}
    shares = []
    for each in ranked:
        key = (each.finding.feature, each.finding.other_feature)
        shares.append(_share(newest.pop(key, each.finding), each.share, each.feature))
    shares += [_share(each, 0.0, each.feature) for each in newest.values() if each.feature]
    is_own = alert.rule in BROKEN
    return sorted(shares, key=lambda each: is_own and each.feature != alert.feature)


def _share(finding: Finding, share: float, feature: str) -> pb.FeatureShare:
    return pb.FeatureShare(
        feature=feature,
        statistic=finding.statistic,
        observed_value=finding.observed,
        reference_value=finding.reference,
        threshold=finding.threshold,
        share=share,
        other_feature=finding.other_feature,
    )


def _diagnosis(diagnosis: Diagnosis) -> pb.Diagnosis:
    return pb.Diagnosis(
        since_from=_timestamp(diagnosis.since_from_us),
        since_to=_timestamp(diagnosis.since_to_us),
        confidence=diagnosis.confidence,
        evidence=[
            pb.Evidence(cause=_CAUSES[each.cause], weight=each.weight, text=each.text)
            for each in diagnosis.evidence
        ],
        segments=[
            pb.SegmentShare(
                name=each.name,
                expression=each.expression,
                row_share=each.row_share,
                observed_value=each.observed,
                reference_value=each.reference,
                weight=each.weight,
                statistic=each.statistic,
            )
            for each in diagnosis.segments
        ],
        residuals=[
            pb.ContextResidual(
                context=each.context,
                explained=each.explained,
                explained_before=each.explained_before,
                text=each.text,
            )
            for each in diagnosis.residuals
        ],
        steps=[
            pb.NextStep(kind=_STEPS[each.kind], text=each.text, reason=each.reason)
            for each in diagnosis.steps
        ],
        is_complete=diagnosis.is_complete,
    )


def _timestamp(at_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(at_us)
    return stamp
