"""Pushing a model: its file, its past and what it said of it, as one version in the registry."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from homeostat import history as past
from homeostat import reference, schema
from homeostat.client import CHANNEL_OPTIONS
from homeostat.history import Columns, History
from homeostat.ledger.v1.ledger_pb2 import ImportHistoryRequest
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.model_file import ModelFile, signature_of
from homeostat.registry.v1.registry_pb2 import (
    AUTONOMY_UNSPECIFIED,
    Autonomy,
    CreateModelRequest,
    Lineage,
    RegisterVersionHeader,
    RegisterVersionRequest,
    Signature,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub

if TYPE_CHECKING:  # exists in the stubs only
    from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

_CHUNK_BYTES = 1024 * 1024
# The monitor calibrates on the newest rows; more of them cost time and tell little more.
_MAX_REFERENCE_ROWS = 100_000
_FEW_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class Push:
    """What a user says of a model."""

    model_name: str
    model_path: Path
    history_path: Path
    columns: Columns
    autonomy: "Autonomy.ValueType" = AUTONOMY_UNSPECIFIED
    # By which recipe it is to be retrained, and the recipe's parameters as JSON.
    recipe: str = "lightgbm"
    recipe_parameters: str = "{}"
    classes: Sequence[str] = ()
    nullable: Sequence[str] = ()
    score_output: str | None = None
    decision_threshold: float = 0.5
    author: str = "user"
    # From when on it counts as champion, microseconds UTC; None means now. For a replayed past.
    occurred_at_us: int | None = None


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of it."""

    version: Version
    signature: Signature
    history_rows: int
    # What is missing, one sentence each, with what it costs.
    missing: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that is sent, made before anything is sent."""

    push: Push
    model: ModelFile
    history: History
    signature: Signature
    profile: bytes
    missing: Sequence[str]


def prepare(push: Push) -> Prepared:
    """Reads and checks everything; BadModelFile or BadHistory before anything is sent."""
    model = ModelFile(push.model_path)
    history = past.read_history(push.history_path, push.columns)
    with_nulls = {name for name in history.table.column_names if history.table[name].null_count}
    signature = signature_of(
        model,
        classes=list(push.classes) or history.classes(),
        nullable=with_nulls | set(push.nullable),
        score_output=push.score_output,
        decision_threshold=push.decision_threshold,
    )
    past.require_inputs(history, signature)
    return Prepared(
        push, model, history, signature, _profile(model, history, signature), _missing(history)
    )


def _profile(model: ModelFile, history: History, signature: Signature) -> bytes:
    rows = history.table.num_rows
    kept = slice(max(0, rows - _MAX_REFERENCE_ROWS), rows)
    table = history.table.slice(kept.start)
    scores, decisions = schema.judge(signature, model.scores(table, signature))
    truths = history.truths(list(signature.classes))[kept]
    losses = schema.loss(signature.task, decisions, truths)
    is_holdout = np.zeros(len(truths), dtype=bool)
    honest = history.holdout_losses
    if honest is not None:
        is_holdout = np.isfinite(honest[kept])
        losses = np.where(is_holdout, honest[kept], losses)
    features = table.select([spec.name for spec in signature.inputs])
    for name in history.columns.contexts:
        features = features.append_column(f"{reference.CONTEXT_PREFIX}{name}", table[name])
    return reference.build(
        features,
        history.event_times_us[kept],
        history.known_at_us[kept],
        reference.Verdicts(scores, decisions, truths, losses, is_holdout),
    )


def _missing(history: History) -> list[str]:
    found = []
    if history.columns.known_at is None:
        found.append(
            "no --known-at: each truth is taken as known at its event time, so training cuts "
            "can't respect the real delay of labels"
        )
    if history.columns.holdout_loss is None:
        found.append(
            "no --holdout-loss: the model has no honest losses of its own, so the performance "
            "detector learns its level from the first live truths"
        )
    if history.table.num_rows < _FEW_ROWS:
        found.append(
            f"only {history.table.num_rows} rows of history: thresholds are rough below {_FEW_ROWS}"
        )
    return found


async def send(
    prepared: Prepared,
    *,
    registry_address: str,
    ledger_address: str,
    say: Callable[[str], None] = lambda _: None,
) -> Pushed:
    """Imports the history, then registers the version; grpc.aio.AioRpcError where refused."""
    options = list(CHANNEL_OPTIONS)
    async with (
        grpc.aio.insecure_channel(ledger_address, options=options) as ledger,
        grpc.aio.insecure_channel(registry_address, options=options) as registry,
    ):
        registering = RegistryServiceStub(registry)
        say("creating the model")
        await _create(registering, prepared.push)
        say(f"importing {prepared.history.table.num_rows:,} rows of history")
        imported = await LedgerServiceStub(ledger).ImportHistory(
            _with_model(prepared), timeout=600.0
        )
        say("judging and registering the model file")
        answer = await registering.RegisterVersion(_registration(prepared), timeout=120.0)
    rows = int(imported.imported_rows)
    return Pushed(answer.version, prepared.signature, rows, tuple(prepared.missing))


async def _create(registry: "RegistryServiceAsyncStub", push: Push) -> None:
    try:
        await registry.CreateModel(
            CreateModelRequest(model_name=push.model_name, autonomy=push.autonomy), timeout=10.0
        )
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.ALREADY_EXISTS:
            raise


def _with_model(prepared: Prepared) -> Iterator[ImportHistoryRequest]:
    for request in past.import_requests(prepared.history, prepared.signature):
        if request.HasField("header"):
            request.header.model_name = prepared.push.model_name
        yield request


def _registration(prepared: Prepared) -> Iterator[RegisterVersionRequest]:
    push, model = prepared.push, prepared.model.content
    yield RegisterVersionRequest(
        header=RegisterVersionHeader(
            model_name=push.model_name,
            signature=prepared.signature,
            lineage=Lineage(
                recipe=push.recipe,
                recipe_parameters=push.recipe_parameters,
                data_set_sha256=prepared.history.history_id,
                training_rows=prepared.history.table.num_rows,
                trained_to_us=int(prepared.history.known_at_us.max()),
                cause="pushed by a user",
            ),
            model_sha256=hashlib.sha256(model).hexdigest(),
            model_bytes=len(model),
            reference_sha256=hashlib.sha256(prepared.profile).hexdigest(),
            reference_bytes=len(prepared.profile),
            author=push.author,
            occurred_at=_occurred_at(push),
        )
    )
    for chunk in _chunks(model):
        yield RegisterVersionRequest(model_chunk=chunk)
    for chunk in _chunks(prepared.profile):
        yield RegisterVersionRequest(reference_chunk=chunk)


def _occurred_at(push: Push) -> Timestamp | None:
    if push.occurred_at_us is None:
        return None
    stamp = Timestamp()
    stamp.FromMicroseconds(push.occurred_at_us)
    return stamp


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]
