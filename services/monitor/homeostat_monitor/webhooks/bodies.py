"""What is posted to webhooks: an alert's event as JSON, in the form of a CloudEvent.

It holds names, figures over many rows and words of ours; no row's values. A segment that was found
is told by its figures alone: its expression may quote values.
"""

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.events.v1 import alert_pb2 as pb

_SOURCE = "homeostat/monitor"
# Which enum a field is of, and what its names begin with.
_STATES: Mapping[int, str] = MappingProxyType(
    {
        pb.ALERT_STATE_OPENED: "homeostat.alert.opened",
        pb.ALERT_STATE_ESCALATED: "homeostat.alert.escalated",
        pb.ALERT_STATE_RESOLVED: "homeostat.alert.resolved",
        pb.ALERT_STATE_DIAGNOSED: "homeostat.alert.diagnosed",
    }
)


def notification_id(alert: pb.Alert, webhook_name: str) -> str:
    """The header webhook-id: the same for the same event and webhook, however often it is told."""
    parts = (alert.model_name, webhook_name, alert.alert_id, str(alert.revision))
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"msg_{digest[:32]}"


def body_of(alert: pb.Alert, webhook_name: str) -> str:
    """The JSON to post; the same event gives the same bytes."""
    return json.dumps(
        {
            "specversion": "1.0",
            "id": notification_id(alert, webhook_name),
            "source": _SOURCE,
            "type": _STATES.get(alert.state, "homeostat.alert.changed"),
            "subject": f"{alert.model_name}/{alert.alert_id}",
            "time": _time(alert.occurred_at),
            "datacontenttype": "application/json",
            "data": _data(alert),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _data(alert: pb.Alert) -> dict[str, Any]:
    return {
        "alert_id": alert.alert_id,
        "revision": alert.revision,
        "model_name": alert.model_name,
        "version": alert.version,
        "rule": _word(pb.AlertRule.Name(alert.rule), "ALERT_RULE_"),
        "policy_rule": alert.policy_rule,
        "state": _word(pb.AlertState.Name(alert.state), "ALERT_STATE_"),
        "severity": _word(pb.Severity.Name(alert.severity), "SEVERITY_"),
        "resolution": _word(pb.Resolution.Name(alert.resolution), "RESOLUTION_"),
        "feature": alert.feature,
        "segment": alert.segment,
        "summary": alert.summary,
        "since_at": _time(alert.since_at),
        "observed_value": _number(alert.observed_value),
        "reference_value": _number(alert.reference_value),
        "threshold": _number(alert.threshold),
        "features": [_feature(each) for each in alert.features],
        "cause": _word(pb.CauseClass.Name(alert.cause), "CAUSE_CLASS_"),
        "remedies": list(alert.remedies),
        "diagnosis": _diagnosis(alert.diagnosis) if alert.HasField("diagnosis") else None,
        "acknowledged_by": alert.acknowledged_by,
        "assigned_to": alert.assigned_to,
    }


def _feature(share: pb.FeatureShare) -> dict[str, Any]:
    return {
        "feature": share.feature,
        "other_feature": share.other_feature,
        "statistic": share.statistic,
        "observed_value": _number(share.observed_value),
        "reference_value": _number(share.reference_value),
        "threshold": _number(share.threshold),
        "share": _number(share.share),
    }


def _diagnosis(diagnosis: pb.Diagnosis) -> dict[str, Any]:
    return {
        "since_from": _time(diagnosis.since_from),
        "since_to": _time(diagnosis.since_to),
        "confidence": _number(diagnosis.confidence),
        "segments": [
            {
                "name": each.name,
                "statistic": each.statistic,
                "row_share": _number(each.row_share),
                "observed_value": _number(each.observed_value),
                "reference_value": _number(each.reference_value),
            }
            for each in diagnosis.segments
        ],
        "contexts": [each.context for each in diagnosis.residuals],
        "steps": [
            {"kind": _word(pb.StepKind.Name(each.kind), "STEP_KIND_"), "text": each.text}
            for each in diagnosis.steps
        ],
        "is_complete": diagnosis.is_complete,
    }


def _word(name: str, prefix: str) -> str:
    word = name.removeprefix(prefix).lower()
    return "" if word == "unspecified" else word


def _time(stamp: Timestamp) -> str:
    return stamp.ToJsonString()


def _number(value: float) -> float | None:
    """JSON knows neither NaN nor infinities."""
    return value if abs(value) < float("inf") else None
