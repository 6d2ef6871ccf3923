"""What happened: runs, health, a prediction's fate, data sets, the audit."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToJson

from homeostat.audit import verify
from homeostat.cli.shared import FOLDER, Folder, at, channel, console, run, show_table, when, word
from homeostat.endpoints import addresses
from homeostat.events.v1.retraining_run_pb2 import RetrainingRun, RunOutcome, RunTrigger
from homeostat.ledger.v1.ledger_pb2 import (
    CutDataSetRequest,
    GetStatisticsRequest,
    LookUpPredictionRequest,
    LookUpPredictionResponse,
)
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.monitor.v1.monitor_pb2 import GetModelHealthRequest
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from homeostat.quiet import Loop
from homeostat.registry.v1.registry_pb2 import AuditEntry, ListAuditRequest
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat.retrainer.v1.retrainer_pb2 import ListRunsRequest, RequestRunRequest
from homeostat.retrainer.v1.retrainer_pb2_grpc import RetrainerServiceStub

_Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_SECONDS = 60.0
_AUDIT_PAGE = 1_000


def runs(model: _Name, folder: Folder = FOLDER) -> None:
    """Lists a model's retraining runs and what came of them."""

    async def ask() -> list[RetrainingRun]:
        async with channel("retrainer", folder) as opened:
            answer = await RetrainerServiceStub(opened).ListRuns(
                ListRunsRequest(model_name=model), timeout=_SECONDS
            )
        return list(answer.runs)

    show_table(
        f"retraining runs of {model}",
        ("at", "trigger", "outcome", "champion", "candidate", "reasons"),
        (
            (
                when(each.occurred_at),
                word(RunTrigger.Name(each.trigger), "RUN_TRIGGER_"),
                word(RunOutcome.Name(each.outcome), "RUN_OUTCOME_"),
                each.champion_version,
                each.candidate_version if each.HasField("candidate_version") else "",
                " ".join(each.reasons),
            )
            for each in run(ask())
        ),
    )


def retrain(
    model: _Name,
    request_id: Annotated[str, typer.Option(help="Makes the request repeatable.")] = "",
    folder: Folder = FOLDER,
) -> None:
    """Asks for a retraining now; its candidate meets the same gate as any other."""

    async def ask() -> str:
        async with channel("retrainer", folder) as opened:
            answer = await RetrainerServiceStub(opened).RequestRun(
                RequestRunRequest(model_name=model, request_id=request_id, actor="cli"),
                timeout=_SECONDS,
            )
        return answer.run_id

    typer.echo(f"run {run(ask())}; see `homeostat runs {model}`")


def health(model: _Name, folder: Folder = FOLDER) -> None:
    """Shows what monitor and ledger know of a model, as JSON."""

    async def ask() -> list[str]:
        async with channel("monitor", folder) as monitor, channel("ledger", folder) as ledger:
            state, statistics = await asyncio.gather(
                MonitorServiceStub(monitor).GetModelHealth(
                    GetModelHealthRequest(model_name=model), timeout=_SECONDS
                ),
                LedgerServiceStub(ledger).GetStatistics(
                    GetStatisticsRequest(model_name=model), timeout=_SECONDS
                ),
            )
        return [
            MessageToJson(each, preserving_proto_field_name=True) for each in (state, statistics)
        ]

    for text in run(ask()):
        typer.echo(text)


def lookup(
    subject: Annotated[str, typer.Argument(help="A prediction id, or with --model your own id.")],
    model: Annotated[str | None, typer.Option(help="Looks SUBJECT up as your own id.")] = None,
    folder: Folder = FOLDER,
) -> None:
    """Shows a prediction: what went in, what came out, which version, what came true."""
    request = (
        LookUpPredictionRequest(client_id=subject, model_name=model)
        if model
        else LookUpPredictionRequest(prediction_id=subject)
    )

    async def ask() -> LookUpPredictionResponse:
        async with channel("ledger", folder) as opened:
            return await LedgerServiceStub(opened).LookUpPrediction(request, timeout=_SECONDS)

    typer.echo(MessageToJson(run(ask()), preserving_proto_field_name=True))


def cut(
    model: _Name,
    target: Annotated[Path, typer.Argument(help="The Parquet file to write.")],
    known_at: Annotated[int, typer.Option(help="Truth known by then, microseconds UTC.")] = 2**62,
    newest: Annotated[int | None, typer.Option(help="Only the newest so many rows.")] = None,
    folder: Folder = FOLDER,
) -> None:
    """Cuts a point-in-time data set: rows whose truth was known by a time, as it was known then."""
    request = CutDataSetRequest(model_name=model, known_at_most_us=known_at)
    if newest is not None:
        request.newest_rows = newest

    async def write() -> str:
        said = ""
        async with channel("ledger", folder) as opened:
            with target.open("wb") as file:
                async for part in LedgerServiceStub(opened).CutDataSet(request, timeout=600.0):
                    if part.HasField("header"):
                        said = (
                            f"{part.header.row_count:,} rows, sha256 {part.header.content_sha256}"
                        )
                    else:
                        file.write(part.chunk)
        return said

    typer.echo(f"{target}: {run(write())}")


def progress(folder: Folder = FOLDER) -> None:
    """Shows how far every service is, and what is still under way."""

    async def ask() -> None:
        async with Loop(addresses(folder)) as loop:
            lag, answers = await loop.pass_round()
        show_table(
            "progress",
            ("service", "unsent", "in work", "watermark"),
            (
                (
                    name,
                    answer.unsent_count,
                    answer.open_work_count,
                    at(answer.watermark_us) if answer.HasField("watermark_us") else "-",
                )
                for name, answer in answers.items()
            ),
        )
        console.print(lag.detail or "nothing is under way", markup=False)

    run(ask())


audit_app = typer.Typer(
    help="Every decision, in a chain that shows tampering.", no_args_is_help=True
)


async def _audit(model: str, folder: Path) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    async with channel("registry", folder) as opened:
        registry = RegistryServiceStub(opened)
        while True:
            page = await registry.ListAudit(
                ListAuditRequest(
                    model_name=model,
                    after_sequence=entries[-1].sequence if entries else 0,
                    limit=_AUDIT_PAGE,
                ),
                timeout=_SECONDS,
            )
            entries.extend(page.entries)
            if len(page.entries) < _AUDIT_PAGE:
                return entries


@audit_app.command("list")
def audit_list(
    model: Annotated[str, typer.Argument(metavar="[MODEL]")] = "", folder: Folder = FOLDER
) -> None:
    """Lists who decided what, when and why."""
    show_table(
        "audit",
        ("#", "when", "model", "action", "actor", "detail"),
        (
            (
                each.sequence,
                when(each.occurred_at),
                each.model_name,
                each.action,
                each.actor,
                each.detail,
            )
            for each in run(_audit(model, folder))
        ),
    )


@audit_app.command("verify")
def audit_verify(folder: Folder = FOLDER) -> None:
    """Recomputes the whole chain; exit code 1 and the first broken entry where it was altered."""
    entries = run(_audit("", folder))
    verify(entries)
    typer.echo(f"{len(entries)} entries, chain whole")


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    for command in (runs, retrain, health, lookup, cut, progress):
        app.command()(command)
    app.add_typer(audit_app, name="audit")
