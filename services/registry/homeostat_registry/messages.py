"""The contract's messages to the domain's facts and back."""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.events.v1 import serving_pb2
from homeostat.registry.v1 import registry_pb2 as pb
from homeostat_kit.auth import caller_name
from homeostat_registry.domain import facts
from homeostat_registry.domain.errors import Invalid
from homeostat_registry.domain.serving import Batching, Canary, Serving

# Beyond these, Timestamp's own conversions raise.
_MAX_SECONDS = 253_402_300_799


def autonomy(value: int) -> facts.Autonomy:
    """Invalid if it is none of the contract's."""
    try:
        return facts.Autonomy(value)
    except ValueError:
        raise Invalid("name an autonomy: OBSERVE, RECOMMEND, APPROVE or AUTO") from None


def registration(header: pb.RegisterVersionHeader) -> facts.Registration:
    """What somebody wants to be a version; Invalid where a part is missing."""
    if not header.HasField("signature"):
        raise Invalid("the header has no signature")
    return facts.Registration(
        model_name=header.model_name,
        signature=_signature(header.signature),
        lineage=_lineage(header.lineage),
        evidence=_evidence(header.evidence) if header.HasField("evidence") else None,
        model=facts.Artifact(header.model_sha256, header.model_bytes),
        reference=(
            facts.Artifact(header.reference_sha256, header.reference_bytes)
            if header.reference_sha256 or header.reference_bytes
            else None
        ),
        # Where tokens are asked for, a caller is who its token says, not who it claims to be.
        author=caller_name() or header.author,
        fencing_token=header.fencing_token,
        occurred_at_us=micros(header.occurred_at) if header.HasField("occurred_at") else None,
        equivalence=_equivalence(header.equivalence) if header.HasField("equivalence") else None,
    )


def _signature(said: pb.Signature) -> facts.Signature:
    try:
        task = facts.Task(said.task)
    except ValueError:
        raise Invalid("signature: name a task: BINARY, MULTICLASS or REGRESSION") from None
    return facts.Signature(
        task,
        tuple(_tensor(each) for each in said.inputs),
        tuple(_tensor(each) for each in said.outputs),
        tuple(said.classes),
        said.score_output,
        said.decision_threshold,
        said.request_id_is_client_id,
    )


def _tensor(said: pb.TensorSpec) -> facts.Tensor:
    return facts.Tensor(said.name, said.datatype, tuple(said.shape), said.is_nullable)


def _lineage(said: pb.Lineage) -> facts.Lineage:
    return facts.Lineage(
        said.recipe,
        said.recipe_parameters,
        said.data_set_sha256,
        said.training_rows,
        said.trained_to_us,
        said.parent_version,
        said.cause,
        said.alert_id,
        said.run_id,
    )


def _evidence(said: pb.Evidence) -> facts.Evidence:
    return facts.Evidence(
        said.candidate_sha256,
        said.champion_sha256,
        said.champion_version,
        said.champion_etag,
        said.holdout_sha256,
        said.holdout_rows,
        said.holdout_from_us,
        said.holdout_to_us,
        said.mean_gain,
        said.gain_deviation,
        said.candidate_count,
        said.candidate_loss,
        said.champion_loss,
    )


def _equivalence(said: pb.Equivalence) -> facts.Equivalence:
    return facts.Equivalence(
        said.parent_sha256,
        said.rows_sha256,
        said.row_count,
        said.equal_count,
        said.tolerated_share,
        said.value_tolerance,
        said.max_score_difference,
        said.speed_up,
        said.method,
        said.machine,
    )


def serving(said: serving_pb2.Serving) -> Serving:
    """Who shall answer; what is right is for the domain to say."""
    return Serving(
        tuple(said.shadow_versions),
        Canary(said.canary.version, said.canary.share, said.canary.is_random)
        if said.HasField("canary")
        else None,
        said.fallback_version if said.HasField("fallback_version") else None,
        said.is_on_fallback,
        Batching(
            said.batching.max_rows,
            said.batching.max_delay_seconds,
            tuple(said.batching.preferred_rows),
        )
        if said.HasField("batching")
        else None,
    )


def serving_message(of: Serving) -> serving_pb2.Serving:
    """As the contract has it."""
    said = serving_pb2.Serving(
        shadow_versions=of.shadow_versions,
        fallback_version=of.fallback_version,
        is_on_fallback=of.is_on_fallback,
    )
    if of.canary is not None:
        said.canary.version = of.canary.version
        said.canary.share = of.canary.share
        said.canary.is_random = of.canary.is_random
    if of.batching is not None:
        # Even if all of it is 0: it is there.
        said.batching.SetInParent()
        said.batching.max_rows = of.batching.max_rows
        said.batching.max_delay_seconds = of.batching.max_delay_seconds
        said.batching.preferred_rows.extend(of.batching.preferred_rows)
    return said


def model(of: facts.Model) -> pb.Model:
    """With its etag."""
    return pb.Model(
        name=of.name,
        autonomy=of.autonomy.value,  # type: ignore[arg-type]
        champion_version=of.champion_version,
        revision=of.revision,
        etag=of.etag,
        created_at=_timestamp(of.created_at_us),
        serving=serving_message(of.serving),
        comparison_etag=of.comparison_etag,
    )


def version(of: facts.Version, aliases: Sequence[str]) -> pb.Version:
    """With its aliases, which depend on the other versions."""
    reference = of.reference
    return pb.Version(
        model_name=of.model_name,
        version=of.version,
        stage=of.stage.value,  # type: ignore[arg-type]
        model_sha256=of.model.sha256,
        model_bytes=of.model.size_bytes,
        reference_sha256=reference.sha256 if reference else "",
        reference_bytes=reference.size_bytes if reference else 0,
        signature=signature(of.signature),
        lineage=_lineage_message(of.lineage),
        evidence=_evidence_message(of.evidence) if of.evidence else None,
        author=of.author,
        reasons=of.reasons,
        registered_at=_timestamp(of.registered_at_us),
        aliases=aliases,
        admission=of.admission,
        equivalence=_equivalence_message(of.equivalence) if of.equivalence else None,
    )


def signature(of: facts.Signature) -> pb.Signature:
    """As it was registered."""
    return pb.Signature(
        task=of.task.value,  # type: ignore[arg-type]
        inputs=[_tensor_message(each) for each in of.inputs],
        outputs=[_tensor_message(each) for each in of.outputs],
        classes=of.classes,
        score_output=of.score_output,
        decision_threshold=of.decision_threshold,
        request_id_is_client_id=of.request_id_is_client_id,
    )


def _tensor_message(of: facts.Tensor) -> pb.TensorSpec:
    return pb.TensorSpec(
        name=of.name, datatype=of.datatype, shape=of.shape, is_nullable=of.is_nullable
    )


def _lineage_message(of: facts.Lineage) -> pb.Lineage:
    return pb.Lineage(
        recipe=of.recipe,
        recipe_parameters=of.recipe_parameters,
        data_set_sha256=of.data_set_sha256,
        training_rows=of.training_rows,
        trained_to_us=of.trained_to_us,
        parent_version=of.parent_version,
        cause=of.cause,
        alert_id=of.alert_id,
        run_id=of.run_id,
    )


def _evidence_message(of: facts.Evidence) -> pb.Evidence:
    return pb.Evidence(
        candidate_sha256=of.candidate_sha256,
        champion_sha256=of.champion_sha256,
        champion_version=of.champion_version,
        champion_etag=of.champion_etag,
        holdout_sha256=of.holdout_sha256,
        holdout_rows=of.holdout_rows,
        holdout_from_us=of.holdout_from_us,
        holdout_to_us=of.holdout_to_us,
        mean_gain=of.mean_gain,
        gain_deviation=of.gain_deviation,
        candidate_count=of.candidate_count,
        candidate_loss=of.candidate_loss,
        champion_loss=of.champion_loss,
    )


def _equivalence_message(of: facts.Equivalence) -> pb.Equivalence:
    return pb.Equivalence(
        parent_sha256=of.parent_sha256,
        rows_sha256=of.rows_sha256,
        row_count=of.row_count,
        equal_count=of.equal_count,
        tolerated_share=of.tolerated_share,
        value_tolerance=of.value_tolerance,
        max_score_difference=of.max_score_difference,
        speed_up=of.speed_up,
        method=of.method,
        machine=of.machine,
    )


def micros(at: Timestamp) -> int:
    """Microseconds since the epoch; Invalid if it is no time."""
    if not (abs(at.seconds) <= _MAX_SECONDS and 0 <= at.nanos < 1_000_000_000):
        raise Invalid("a time lies outside the years 1 to 9999; check the sender's unit")
    return at.seconds * 1_000_000 + at.nanos // 1000


def _timestamp(at_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(at_us)
    return stamp
