"""`homeostat advise`: what would make a model cheaper, measured here, applied by the gate."""

import getpass
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from homeostat.cli.shared import FOLDER, Folder, channel, console, run
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.registry.v1.registry_pb2 import (
    STAGE_AWAITS_APPROVAL,
    STAGE_CHAMPION,
    STAGE_REJECTED,
    Stage,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub

if TYPE_CHECKING:  # imports onnxruntime's neighbours: only this command needs them
    from homeostat.advise.figures import Outcome
    from homeostat.advise.measuring import Measured
    from homeostat.advise.report import Report
    from homeostat.advise.sources import Champion
    from homeostat.advise.subject import Rows

_BATCHES = (1, 8, 16, 64, 256, 512)
# What gathers while a run is under way at sixteen busy connections.
_USUAL_ROWS = 16
_Name = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]


@dataclass(frozen=True, slots=True)
class _Told:
    """The command line."""

    model: str
    rows: int
    serving_rows: int | None
    seconds: float
    share: float
    score_tolerance: float
    value_tolerance: float | None
    cost: float


def advise(
    model: _Name,
    seconds: Annotated[
        float, typer.Option(help="For timing; making and comparing come on top.")
    ] = 60.0,
    newest: Annotated[
        int, typer.Option("--rows", help="Newest rows to take from the ledger.")
    ] = 5000,
    at: Annotated[
        int | None,
        typer.Option(
            help="Rows of one run when it serves. Default: as the model's batching says, or 16."
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(help="Share of rows that must be decided alike (or be within tolerance)."),
    ] = 0.999,
    score_tolerance: Annotated[
        float, typer.Option(help="Classification: no probability may differ by more.")
    ] = 0.02,
    value_tolerance: Annotated[
        float | None,
        typer.Option(
            help="Regression: what counts as equal. Default: 1 % of the answers' deviation."
        ),
    ] = None,
    cost_per_cpu_hour: Annotated[
        float, typer.Option(help="Price of one core for one hour, in your currency.")
    ] = 0.04,
    apply: Annotated[
        str | None,
        typer.Option("--apply", help="Registers this form as a candidate: the gate decides."),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Writes all figures.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Writes a page with a chart (needs plotly).")
    ] = None,
    folder: Folder = FOLDER,
) -> None:
    """Measures on this machine what would make a model cheaper to serve.

    Rows at once, threads, graph optimisation, int8 and float16 forms, and compiled trees, each on
    rows from the ledger, compared with the champion first and then timed.
    """
    told = _Told(
        model, newest, at, seconds, tolerance, score_tolerance, value_tolerance, cost_per_cpu_hour
    )
    from homeostat.advise import applying, pages, words  # noqa: PLC0415 - an extra
    from homeostat.advise.report import as_json  # noqa: PLC0415 - as above

    champion, rows = run(_fetched(told, folder))
    measured, report = _measured(told, champion, rows)
    advice = words.advice(report)
    _show(report, advice)
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(report, advice), indent=2) + "\n")
    if html is not None:
        html.write_text(pages.page(report, advice))
    if apply is not None:
        outcome = applying.require_fit(report, apply)
        _say_stage(run(_applied(report, champion, outcome, measured.files[apply], folder)))


async def _fetched(told: _Told, folder: Path) -> "tuple[Champion, Rows]":
    from homeostat.advise import sources  # noqa: PLC0415 - an extra

    async with channel("registry", folder) as registry, channel("ledger", folder) as ledger:
        champion = await sources.champion_of(RegistryServiceStub(registry), told.model)
        return champion, await sources.rows_for(LedgerServiceStub(ledger), champion, told.rows)


async def _applied(
    report: "Report", champion: "Champion", outcome: "Outcome", content: bytes, folder: Path
) -> Version:
    from homeostat.advise import applying  # noqa: PLC0415 - an extra

    async with channel("registry", folder) as registry:
        return await applying.apply(
            RegistryServiceStub(registry),
            report,
            champion,
            outcome,
            content,
            # Whoever proposes may not approve: the same name as approve and promote use.
            author=getpass.getuser(),
        )


def _measured(told: _Told, champion: "Champion", rows: "Rows") -> "tuple[Measured, Report]":
    from homeostat.advise.equivalence import Tolerance  # noqa: PLC0415 - an extra
    from homeostat.advise.forms import usable_cores, variants  # noqa: PLC0415 - as above
    from homeostat.advise.machine import this_machine  # noqa: PLC0415 - as above
    from homeostat.advise.measuring import Plan, measure  # noqa: PLC0415 - as above
    from homeostat.advise.report import Report  # noqa: PLC0415 - as above

    serving_rows, reason = _serving_rows(told, champion)
    tolerance = Tolerance(told.share, told.score_tolerance, told.value_tolerance)
    plan = Plan(
        variants(usable_cores()),
        sorted({*_BATCHES, serving_rows}),
        tolerance,
        told.seconds,
    )
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=1.0)
        measured = measure(
            champion.subject,
            rows,
            plan,
            lambda what, share: progress.update(task, description=what, completed=share),
        )
    report = Report(
        told.model,
        champion.version.version,
        champion.subject.sha256,
        this_machine(),
        rows.source,
        rows.count,
        rows.calibration_count,
        rows.sha256,
        tolerance,
        serving_rows,
        reason,
        told.cost,
        measured.rounds,
        measured.outcomes,
    )
    return measured, report


def _serving_rows(told: _Told, champion: "Champion") -> tuple[int, str]:
    if told.serving_rows is not None:
        return max(1, told.serving_rows), "as told"
    batching = champion.model.serving.batching
    if batching.preferred_rows:
        return max(batching.preferred_rows), "preferred by the model's batching"
    if batching.max_rows:
        return batching.max_rows, "the most that the model's batching allows"
    return _USUAL_ROWS, "the model has no batching of its own; another number: --at"


def _show(report: "Report", advice: Sequence[str]) -> None:
    machine = report.machine
    console.print(
        Text(
            f"{report.model_name} version {report.version} on {machine.short}, onnxruntime "
            f"{machine.libraries['onnxruntime']}; {report.row_count:,} rows: {report.rows_source}"
        )
    )
    console.print(forms_table(report))
    console.print(rows_table(report))
    for each in report.outcomes:
        if each.failure:
            console.print(Text.assemble((f"{each.variant.name} ", "yellow"), each.failure))
    console.print()
    console.print(Text(" ".join(advice)))


def forms_table(report: "Report") -> Table:
    """Every form with the rows of one run when it serves."""
    rows = report.serving_rows
    table = _table(
        f"with {rows} rows at once ({report.serving_rows_reason}); M: a million predictions"
    )
    table.add_column("form", no_wrap=True)
    for head in ("equal", "differs", "rows/s", "speed-up", "CPU-s/M", "cost/M", "MiB", "apply"):
        table.add_column(head, justify="right", no_wrap=True)
    for each in report.outcomes:
        if each.timings:
            table.add_row(*_form_cells(report, each))
    return table


def _form_cells(report: "Report", outcome: "Outcome") -> list[str]:
    timing = outcome.at(report.serving_rows)
    equality = outcome.equality
    if timing is None:
        return [outcome.variant.name]
    return [
        outcome.variant.name,
        f"{equality.share:.2%}" if equality else "",
        f"{equality.max_score_difference:.2g}" if equality else "",
        f"{timing.rows_per_second:,.0f}",
        f"{timing.speed_up:.2f}",
        f"{timing.cpu_seconds_per_million:.2f}",
        f"{timing.cost_per_million(report.cost_per_cpu_hour):.2g}",
        f"{outcome.memory_bytes / 2**20:.0f}",
        "" if report.why_not_applied(outcome) else "yes",
    ]


def rows_table(report: "Report") -> Table:
    """What a row costs, alone and in company."""
    table = _table("CPU microseconds per row, by rows at once")
    table.add_column("form", no_wrap=True)
    for timing in report.present.timings:
        table.add_column(str(timing.rows), justify="right")
    for each in report.outcomes:
        if each.timings:
            cells = (f"{timing.cpu_seconds_per_row * 1e6:.2f}" for timing in each.timings)
            table.add_row(each.variant.name, *cells)
    return table


def _table(title: str) -> Table:
    return Table(
        title=Text(title), title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0)
    )


def _say_stage(version: Version) -> None:
    name, number = version.model_name, version.version
    stage = Stage.Name(version.stage).removeprefix("STAGE_").lower().replace("_", " ")
    console.print(Text(f"{name} version {number} is {stage}. {' '.join(version.reasons)}"))
    following = {
        STAGE_CHAMPION: f"It serves; to go back: homeostat rollback {name}",
        STAGE_AWAITS_APPROVAL: f"Next, by somebody else: homeostat approve {name} {number}",
        STAGE_REJECTED: f"To see why: homeostat version {name} {number}",
    }
    console.print(Text(following.get(version.stage, f"Next: homeostat promote {name} {number}")))
    if version.stage == STAGE_REJECTED:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(advise)
