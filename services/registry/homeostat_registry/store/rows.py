"""Rows of the database to facts and back."""

import json
import math
from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.registry.v1.registry_pb2 import AuditEntry
from homeostat_registry.domain.errors import UnknownModel, UnknownVersion
from homeostat_registry.domain.facts import (
    Artifact,
    Autonomy,
    Change,
    Equivalence,
    Evidence,
    Lineage,
    Model,
    Reign,
    Signature,
    Stage,
    Task,
    Tensor,
    Version,
)
from homeostat_registry.domain.serving import Batching, Canary, Serving


def timestamp(at_us: int) -> Timestamp:
    """From microseconds UTC."""
    stamp = Timestamp()
    stamp.FromMicroseconds(at_us)
    return stamp


def canonical_json(value: object) -> str:
    """Canonical: sorted, no blanks; numbers that JSON can't hold as strings."""
    return json.dumps(_speakable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _speakable(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: _speakable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_speakable(each) for each in value]
    return value


def one_model(row: Any, name: str) -> Model:
    """The model; UnknownModel without a row."""
    if row is None:
        raise UnknownModel(f"no model {name!r}; create it first with CreateModel")
    return model(row)


def model(row: Any) -> Model:
    """From its row."""
    return Model(
        row["name"],
        Autonomy(row["autonomy"]),
        row["champion_version"],
        row["revision"],
        row["created_at_us"],
        int(row["highest_fencing_token"]),
        _serving(json.loads(row["serving"])),
        row["settled_revision"],
    )


def one_version(row: Any, model_name: str, number: int) -> Version:
    """The version; UnknownVersion without a row."""
    if row is None:
        raise UnknownVersion(f"model {model_name} has no version {number}; see ListVersions")
    return version(row)


def version(row: Any) -> Version:
    """From its joined row."""
    evidence, equivalence = row["evidence"], row["equivalence"]
    return Version(
        row["model_name"],
        row["version"],
        Stage(row["stage"]),
        Artifact(row["model_sha256"], row["model_bytes"]),
        Artifact(row["reference_sha256"], row["reference_bytes"])
        if row["reference_sha256"]
        else None,
        _signature(json.loads(row["signature"])),
        Lineage(**json.loads(row["lineage"])),
        _evidence(json.loads(evidence)) if evidence else None,
        row["author"],
        tuple(row["reasons"]),
        row["registered_at_us"],
        row["admission"],
        _equivalence(json.loads(equivalence)) if equivalence else None,
    )


def _signature(said: dict[str, Any]) -> Signature:
    return Signature(
        Task(said["task"]),
        tuple(_tensor(each) for each in said["inputs"]),
        tuple(_tensor(each) for each in said["outputs"]),
        tuple(said["classes"]),
        said["score_output"],
        said["decision_threshold"],
        said["request_id_is_client_id"],
    )


def _tensor(said: dict[str, Any]) -> Tensor:
    return Tensor(said["name"], said["datatype"], tuple(said["shape"]), said["is_nullable"])


def _evidence(said: dict[str, Any]) -> Evidence:
    for name in ("mean_gain", "gain_deviation", "candidate_loss", "champion_loss"):
        said[name] = float(said[name])
    return Evidence(**said)


def _equivalence(said: dict[str, Any]) -> Equivalence:
    for name in ("tolerated_share", "value_tolerance", "max_score_difference", "speed_up"):
        said[name] = float(said[name])
    return Equivalence(**said)


def _serving(said: dict[str, Any]) -> Serving:
    if not said:
        return Serving()
    canary, batching = said["canary"], said["batching"]
    return Serving(
        tuple(said["shadow_versions"]),
        Canary(**canary) if canary else None,
        said["fallback_version"],
        said["is_on_fallback"],
        Batching(
            batching["max_rows"],
            float(batching["max_delay_seconds"]),
            tuple(batching["preferred_rows"]),
        )
        if batching
        else None,
    )


def reign(row: Any) -> Reign:
    """From its row."""
    return Reign(row["revision"], row["version"], row["since_us"], Change(row["change"]))


def audit_entry(row: Any) -> AuditEntry:
    """From its row."""
    return AuditEntry(
        sequence=row["sequence"],
        model_name=row["model_name"],
        action=row["action"],
        actor=row["actor"],
        detail=row["detail"],
        previous_hash=row["previous_hash"],
        hash=row["hash"],
        occurred_at=timestamp(row["occurred_at_us"]),
    )
