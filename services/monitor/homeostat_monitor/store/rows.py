"""Rows of the database to domain objects."""

import json
from collections.abc import Mapping
from typing import Any

from homeostat_monitor.domain.alerts.alert import (
    Alert,
    Moment,
    Resolution,
    Severity,
    Sighting,
    State,
    Subject,
)
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import (
    ContextResidual,
    Diagnosis,
    Evidence,
    FeatureShare,
    SegmentShare,
    Step,
    StepKind,
)
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.ports import Standing


def alert_of(body: str) -> Alert:
    """An alert from its stored JSON, also from an older one with fewer fields."""
    data: dict[str, Any] = json.loads(body)
    data["subject"] = Subject(**data["subject"])
    data["moment"] = Moment(**data["moment"])
    data["rule"], data["cause"] = Rule(data["rule"]), Cause(data["cause"])
    data["state"], data["severity"] = State(data["state"]), Severity(data["severity"])
    data["resolution"] = Resolution(data["resolution"]) if data["resolution"] else None
    data["shares"] = tuple(_finding(each) for each in data["shares"])
    data["sightings"] = tuple(
        Sighting(each["mark_us"], _finding(each["finding"])) for each in data.get("sightings", ())
    )
    data["mode"] = Mode(data["mode"]) if data.get("mode") else None
    data["witnesses"] = tuple(data.get("witnesses", ()))
    if data.get("diagnosis") is not None:
        data["diagnosis"] = _diagnosis(data["diagnosis"])
    return Alert(**data)


def _finding(data: Mapping[str, Any]) -> Finding:
    return Finding(**{**data, "rule": Rule(data["rule"])})


def _diagnosis(data: Mapping[str, Any]) -> Diagnosis:
    return Diagnosis(
        **{
            **data,
            "cause": Cause(data["cause"]),
            "features": [
                FeatureShare(**{**each, "finding": _finding(each["finding"])})
                for each in data["features"]
            ],
            "evidence": [
                Evidence(**{**each, "cause": Cause(each["cause"])}) for each in data["evidence"]
            ],
            "steps": [Step(**{**each, "kind": StepKind(each["kind"])}) for each in data["steps"]],
            "segments": [SegmentShare(**each) for each in data["segments"]],
            "residuals": [ContextResidual(**each) for each in data["residuals"]],
        }
    )


def standing_of(row: Any) -> Standing:
    """How far a version has been judged."""
    return Standing(
        subject=Subject(row["model_name"], row["version"]),
        is_watched=row["is_watched"],
        closed_until_us=row["closed_until_us"],
        judge_from_us=row["judge_from_us"],
        windows_judged=row["windows_judged"],
        first_judged_us=row["first_judged_us"],
        window_us=row["window_us"],
        accepted=json.loads(row["accepted"]),
        serving_since_us=row["serving_since_us"],
    )
