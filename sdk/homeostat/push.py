"""Pushing a model: its file, its past and what it said of it, as one version in the registry."""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from homeostat import history as past
from homeostat import reference, schema
from homeostat.channels import open_channel
from homeostat.errors import HomeostatError
from homeostat.history import Columns, History
from homeostat.ledger.v1.ledger_pb2 import ImportHistoryRequest, ImportHistoryResponse
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.model_file import ModelFile, signature_of, width_of
from homeostat.registry.v1.registry_pb2 import (
    AUTONOMY_UNSPECIFIED,
    Autonomy,
    CreateModelRequest,
    GetModelRequest,
    Lineage,
    ListVersionsRequest,
    RegisterVersionHeader,
    RegisterVersionRequest,
    Signature,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub

if TYPE_CHECKING:  # exists in the stubs only
    from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceAsyncStub
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
    # "binary", "multiclass" or "regression"; None lets classes and the truth's column decide.
    task: str | None = None
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
    # What turned out otherwise than it was told, one sentence each.
    notes: Sequence[str] = field(default_factory=tuple)


class RefusedPush(HomeostatError):
    """The model stands in the registry in another way; the message says how to go on."""


class HistoryNotImported(HomeostatError):
    """The version is registered, its history is not in the ledger yet; a second push goes on."""


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
    widths = past.list_widths(history)
    inputs = model.inputs(frozenset(), widths)
    past.require_inputs(history, inputs)
    signature = signature_of(
        model,
        classes=_classes(push, history),
        nullable=past.with_nulls(history, inputs) | set(push.nullable),
        widths=widths,
        score_output=push.score_output,
        decision_threshold=push.decision_threshold,
    )
    return Prepared(
        push,
        model,
        history,
        signature,
        _profile(model, history, signature),
        _missing(history, signature),
    )


def _classes(push: Push, history: History) -> list[str]:
    """The class names, none for a regression; BadHistory where they contradict the task."""
    classes = list(push.classes) or history.classes(push.task)
    wanted = {"binary": len(classes) == 2, "multiclass": len(classes) > 2}
    wanted["regression"] = not classes
    if push.task is not None and push.task not in wanted:
        raise past.BadHistory(f"task {push.task!r} is none of {', '.join(wanted)}")
    if len(classes) == 1 or (push.task is not None and not wanted[push.task]):
        raise past.BadHistory(
            f"{len(classes)} classes ({', '.join(classes[:5]) or 'none'}) make no "
            f"{push.task or 'classification'}; cure: name all of them with --classes, in the score "
            "output's order, or another --task"
        )
    return classes


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


def _missing(history: History, signature: Signature) -> list[str]:
    found = []
    wide = [spec.name for spec in signature.inputs if width_of(spec) > 1]
    if wide:
        found.append(
            f"no named columns in {', '.join(wide)}: drift is not judged by column, and the "
            "shipped recipes can't retrain this model; export one named input per column"
        )
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
    """Registers the version, then imports its history: nothing of a model that is refused stays.

    Both have the effect of once: after a failure, push the same again. grpc.aio.AioRpcError where
    the model is refused, RefusedPush where the same file stands there otherwise, HistoryNotImported
    where only the history failed.
    """
    async with open_channel(ledger_address) as ledger, open_channel(registry_address) as registry:
        registering = RegistryServiceStub(registry)
        say("creating the model")
        notes = await _create(registering, prepared.push)
        say("judging and registering the model file")
        version, is_repeat = await _register(registering, prepared)
        if is_repeat:
            notes.append(f"this model file is version {version.version} already")
        say(f"importing {prepared.history.table.num_rows:,} rows of history")
        imported = await _import(LedgerServiceStub(ledger), prepared, version)
    if imported.is_repeat:
        notes.append("this history is in the ledger already; nothing was imported twice")
    rows = int(imported.imported_rows)
    return Pushed(version, prepared.signature, rows, tuple(prepared.missing), tuple(notes))


async def _create(registry: "RegistryServiceAsyncStub", push: Push) -> list[str]:
    """What of the push does not hold, since the model exists already."""
    try:
        await registry.CreateModel(
            CreateModelRequest(model_name=push.model_name, autonomy=push.autonomy), timeout=10.0
        )
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.ALREADY_EXISTS:
            raise
    else:
        return []
    answer = await registry.GetModel(GetModelRequest(model_name=push.model_name), timeout=10.0)
    if push.autonomy in (AUTONOMY_UNSPECIFIED, answer.model.autonomy):
        return []
    kept, told = (
        Autonomy.Name(each).removeprefix("AUTONOMY_").lower()
        for each in (answer.model.autonomy, push.autonomy)
    )
    return [
        f"the model exists with autonomy {kept}, and keeps it; to change it: "
        f"homeostat autonomy {push.model_name} {told}"
    ]


async def _register(
    registry: "RegistryServiceAsyncStub", prepared: Prepared
) -> tuple[Version, bool]:
    """The new version and False, or the one that this very file is already and True."""
    try:
        answer = await registry.RegisterVersion(_registration(prepared), timeout=120.0)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.ALREADY_EXISTS:
            raise
        return await _registered_before(registry, prepared, error), True
    return answer.version, False


async def _registered_before(
    registry: "RegistryServiceAsyncStub", prepared: Prepared, error: grpc.aio.AioRpcError
) -> Version:
    name = prepared.push.model_name
    digest = hashlib.sha256(prepared.model.content).hexdigest()
    async for version in _versions(registry, name):
        if version.model_sha256 == digest:
            if version.signature != prepared.signature:
                raise RefusedPush(
                    f"this model file is version {version.version} of {name} already, with other "
                    "inputs, classes or threshold; push it as that version was pushed, or under "
                    "another name with --name"
                )
            return version
    raise error


async def _versions(registry: "RegistryServiceAsyncStub", name: str) -> AsyncIterator[Version]:
    """Newest first."""
    below = 0
    while below != 1:
        answer = await registry.ListVersions(
            ListVersionsRequest(model_name=name, before_version=below), timeout=30.0
        )
        for version in reversed(answer.versions):
            yield version
        below = answer.versions[0].version if answer.versions else 1


async def _import(
    ledger: "LedgerServiceAsyncStub", prepared: Prepared, version: Version
) -> ImportHistoryResponse:
    try:
        return await ledger.ImportHistory(_with_model(prepared), timeout=600.0)
    except grpc.aio.AioRpcError as error:
        raise HistoryNotImported(
            f"{prepared.push.model_name} version {version.version} is registered, but its history "
            f"was not imported ({error.code().name.lower()}: {error.details()}); push the same "
            "again: it goes on from there"
        ) from error


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
