"""Models and versions: who serves, why, and a person's word on it."""

import getpass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson
from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.cli.pushing import parse_autonomy
from homeostat.cli.shared import FOLDER, Folder, channel, console, run, show_table, when, word
from homeostat.registry.v1.registry_pb2 import (
    ApproveVersionRequest,
    Autonomy,
    GetChampionAtRequest,
    GetModelRequest,
    GetVersionRequest,
    ListModelsRequest,
    ListVersionsRequest,
    Model,
    PromoteVersionRequest,
    RollBackRequest,
    SetAutonomyRequest,
    Stage,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub

_Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_Number = Annotated[int, typer.Argument(metavar="VERSION", help="Counts from 1.")]
_Reason = Annotated[str, typer.Option("--reason", help="Why; it stands in the audit.")]
_SECONDS = 30.0


def models(folder: Folder = FOLDER) -> None:
    """Lists the models, who serves and who may promote."""
    found = run(_models(folder))
    show_table(
        "models",
        ("model", "champion", "autonomy", "revision", "since"),
        (
            (
                each.name,
                each.champion_version if each.HasField("champion_version") else "-",
                word(Autonomy.Name(each.autonomy), "AUTONOMY_"),
                each.revision,
                when(each.created_at),
            )
            for each in found
        ),
    )


async def _models(folder: Path) -> list[Model]:
    async with channel("registry", folder) as opened:
        answer = await RegistryServiceStub(opened).ListModels(ListModelsRequest(), timeout=_SECONDS)
    return list(answer.models)


def versions(model: _Name, folder: Folder = FOLDER) -> None:
    """Lists a model's versions: stage, cause, evidence, reasons."""
    found = run(_versions(model, folder))
    show_table(
        f"versions of {model}",
        ("version", "stage", "parent", "cause", "gain (nats)", "registered", "reasons"),
        (
            (
                each.version,
                word(Stage.Name(each.stage), "STAGE_"),
                each.lineage.parent_version or "",
                each.lineage.cause,
                f"{each.evidence.mean_gain:+.4f}" if each.HasField("evidence") else "",
                when(each.registered_at),
                " ".join(each.reasons),
            )
            for each in found
        ),
    )


async def _versions(model: str, folder: Path) -> list[Version]:
    async with channel("registry", folder) as opened:
        answer = await RegistryServiceStub(opened).ListVersions(
            ListVersionsRequest(model_name=model), timeout=_SECONDS
        )
    return list(answer.versions)


def version(
    model: _Name,
    number: Annotated[int, typer.Argument(metavar="[VERSION]")] = 0,
    folder: Folder = FOLDER,
) -> None:
    """Shows a version whole, as JSON: signature, lineage, evidence, verdicts. Default: champion."""

    async def ask() -> Version:
        async with channel("registry", folder) as opened:
            answer = await RegistryServiceStub(opened).GetVersion(
                GetVersionRequest(model_name=model, version=number), timeout=_SECONDS
            )
        return answer.version

    typer.echo(MessageToJson(run(ask()), preserving_proto_field_name=True))


def champion(
    model: _Name,
    at: Annotated[
        str | None, typer.Option(help="ISO time, UTC where it names no zone; default: now.")
    ] = None,
    folder: Folder = FOLDER,
) -> None:
    """Says which version was champion at a time."""
    stamp = Timestamp()
    stamp.FromDatetime(moment_of(at) if at else datetime.now(UTC))

    async def ask() -> str:
        async with channel("registry", folder) as opened:
            answer = await RegistryServiceStub(opened).GetChampionAt(
                GetChampionAtRequest(model_name=model, at=stamp), timeout=_SECONDS
            )
        if not answer.HasField("version"):
            return f"no version of {model} was champion then"
        return f"version {answer.version} since {when(answer.since_at)}"

    typer.echo(run(ask()))


def moment_of(text: str) -> datetime:
    """An ISO time as UTC; one without a zone is UTC already. ValueError where it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time; write it like 2013-02-01T12:00+01:00") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def approve(
    model: _Name,
    number: _Number,
    reason: _Reason = "",
    approver: Annotated[str, typer.Option(help="Who you are; not the author.")] = "",
    reject: Annotated[bool, typer.Option("--reject", help="Refuse it instead.")] = False,
    folder: Folder = FOLDER,
) -> None:
    """Gives an approver's word on a version that awaits it."""

    async def ask() -> Version:
        async with channel("registry", folder) as opened:
            registry = RegistryServiceStub(opened)
            model_now = await registry.GetModel(GetModelRequest(model_name=model), timeout=_SECONDS)
            answer = await registry.ApproveVersion(
                ApproveVersionRequest(
                    model_name=model,
                    version=number,
                    approver=approver or getpass.getuser(),
                    is_approved=not reject,
                    reason=reason,
                    etag=model_now.model.etag,
                ),
                timeout=_SECONDS,
            )
        return answer.version

    _say(model, run(ask()))


def promote(model: _Name, number: _Number, reason: _Reason = "", folder: Folder = FOLDER) -> None:
    """Makes a version champion by hand, past the gate; it is audited."""

    async def ask() -> Version:
        async with channel("registry", folder) as opened:
            registry = RegistryServiceStub(opened)
            model_now = await registry.GetModel(GetModelRequest(model_name=model), timeout=_SECONDS)
            answer = await registry.PromoteVersion(
                PromoteVersionRequest(
                    model_name=model,
                    version=number,
                    etag=model_now.model.etag,
                    actor=getpass.getuser(),
                    reason=reason,
                ),
                timeout=_SECONDS,
            )
        return answer.version

    _say(model, run(ask()))


def rollback(
    model: _Name,
    number: Annotated[int | None, typer.Argument(metavar="[VERSION]")] = None,
    reason: _Reason = "",
    folder: Folder = FOLDER,
) -> None:
    """Goes back to the champion before, or to a named version."""

    async def ask() -> Version:
        async with channel("registry", folder) as opened:
            registry = RegistryServiceStub(opened)
            model_now = await registry.GetModel(GetModelRequest(model_name=model), timeout=_SECONDS)
            request = RollBackRequest(
                model_name=model,
                etag=model_now.model.etag,
                actor=getpass.getuser(),
                reason=reason,
            )
            if number is not None:
                request.version = number
            answer = await registry.RollBack(request, timeout=_SECONDS)
        return answer.version

    _say(model, run(ask()))


def autonomy(
    model: _Name,
    level: Annotated[str, typer.Argument(help="observe, recommend, approve or auto.")],
    folder: Folder = FOLDER,
) -> None:
    """Sets who may promote: nobody, a person on the gate's word, or the gate alone."""

    async def ask() -> Model:
        async with channel("registry", folder) as opened:
            registry = RegistryServiceStub(opened)
            model_now = await registry.GetModel(GetModelRequest(model_name=model), timeout=_SECONDS)
            answer = await registry.SetAutonomy(
                SetAutonomyRequest(
                    model_name=model,
                    autonomy=parse_autonomy(level),
                    etag=model_now.model.etag,
                    actor=getpass.getuser(),
                ),
                timeout=_SECONDS,
            )
        return answer.model

    typer.echo(f"{model}: {word(Autonomy.Name(run(ask()).autonomy), 'AUTONOMY_')}")


def _say(model: str, found: Version) -> None:
    console.print(
        f"{model} version {found.version} is {word(Stage.Name(found.stage), 'STAGE_')}"
        + (f": {' '.join(found.reasons)}" if found.reasons else ""),
        markup=False,
    )


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (models, versions, version, champion, approve, promote, rollback, autonomy):
        app.command()(command)
