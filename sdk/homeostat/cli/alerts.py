"""`homeostat alerts`: what happened, its whole life, and what people know of it."""

import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.markup import escape
from typer.core import TyperGroup

from homeostat.cli import alert_handling
from homeostat.cli.shared import (
    FOLDER,
    Folder,
    channel,
    console,
    rule_name,
    run,
    show_table,
    when,
    word,
)
from homeostat.events.v1.alert_pb2 import (
    Alert,
    AlertState,
    CauseClass,
    Evidence,
    Severity,
    StepKind,
)
from homeostat.monitor.v1.monitor_pb2 import (
    GetAlertRequest,
    GetModelHealthRequest,
    ListAlertsRequest,
)
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub

_SECONDS = 60.0
_Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_Id = Annotated[str, typer.Argument(metavar="ALERT", help="Its id, as `alerts list` shows it.")]
_Json = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]
_Who = Annotated[str, typer.Option("--by", help="Who says so; default: your name here.")]


class _ListUnlessTold(TyperGroup):
    """`homeostat alerts MODEL` is `homeostat alerts list MODEL`, as it was before."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        first = next((each for each in args if not each.startswith("-")), None)
        if first is not None and first not in self.commands:
            args = ["list", *args]
        return super().parse_args(ctx, args)


commands = typer.Typer(
    cls=_ListUnlessTold,
    help="What the monitor saw, its whole life, and what people know of it.\n\n"
    "Begin with [bold]homeostat alerts list MODEL[/bold]; [bold]alerts show ALERT[/bold] tells "
    "since when, why probably, and what would help.\n\n"
    "Example: homeostat alerts list flights --open\n\n"
    "Example: homeostat alerts show 0a843d90bd5fa8344009ca47942cf49f\n\n"
    'Example: homeostat alerts mute flights --rule covariate --for 7d --reason "a new airport"',
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@commands.command("list")
def list_(
    model: _Model,
    open_only: Annotated[bool, typer.Option("--open", help="Only those not yet resolved.")] = False,
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """Lists a model's alerts, newest first.

    Example: homeostat alerts list flights --open
    """

    async def ask() -> Sequence[Alert]:
        async with channel("monitor", folder) as opened:
            stub = MonitorServiceStub(opened)
            answer = await stub.ListAlerts(
                ListAlertsRequest(model_name=model, open_only=open_only), timeout=_SECONDS
            )
            if not answer.alerts:
                # A slip of the pen must not read as "all is well".
                await stub.GetModelHealth(GetModelHealthRequest(model_name=model), timeout=_SECONDS)
        return list(answer.alerts)

    found = run(ask())
    if as_json:
        typer.echo(json.dumps([_plain(each) for each in found], indent=2))
        return
    show_table(
        f"alerts of {model}",
        ("since", "severity", "rule", "state", "cause", "segment", "who", "what", "id"),
        (
            (
                when(each.since_at),
                word(Severity.Name(each.severity), "SEVERITY_"),
                each.policy_rule or rule_name(each.rule),
                word(AlertState.Name(each.state), "ALERT_STATE_")
                + (", muted" if each.is_muted else ""),
                word(CauseClass.Name(each.cause), "CAUSE_CLASS_"),
                each.segment,
                each.assigned_to or each.acknowledged_by,
                each.summary,
                each.alert_id,
            )
            for each in found
        ),
    )


@commands.command()
def show(alert: _Id, folder: Folder = FOLDER, as_json: _Json = False) -> None:
    """Tells an alert's life: since when, how much, whose part, why probably, what would help.

    What speaks for a cause has a +, what speaks against it a -, the weightiest first. For programs:
    homeostat alerts show ALERT --json
    """

    async def ask() -> Sequence[Alert]:
        async with channel("monitor", folder) as opened:
            answer = await MonitorServiceStub(opened).GetAlert(
                GetAlertRequest(alert_id=alert), timeout=_SECONDS
            )
        return list(answer.events)

    events = run(ask())
    if as_json:
        typer.echo(json.dumps([_plain(each) for each in events], indent=2))
        return
    last = events[-1]
    _tell(last, next((each for each in reversed(events) if each.HasField("diagnosis")), last))
    show_table(
        "its life",
        ("when", "state", "severity", "seen by", "what"),
        (
            (
                when(each.occurred_at),
                word(AlertState.Name(each.state), "ALERT_STATE_"),
                word(Severity.Name(each.severity), "SEVERITY_"),
                each.acknowledged_by,
                each.summary,
            )
            for each in events
        ),
    )


def _tell(alert: Alert, diagnosed: Alert) -> None:
    why = diagnosed.diagnosis
    console.print(f"[bold]{escape(alert.summary)}[/bold]")
    about = (
        f"{alert.model_name} version {alert.version}, {alert.policy_rule or rule_name(alert.rule)}"
    )
    where = f", segment {alert.segment}" if alert.segment else ""
    console.print(f"{about}{where}", markup=False)
    between = (
        f" (between {when(why.since_from)} and {when(why.since_to)})"
        if why.HasField("since_from")
        else ""
    )
    console.print(f"since {when(alert.since_at)}{between}", markup=False)
    sure = f", confidence {why.confidence:.0%}" if diagnosed.HasField("diagnosis") else ""
    cause = word(CauseClass.Name(alert.cause), "CAUSE_CLASS_")
    console.print(f"probable cause: {cause}{sure}", markup=False)
    for evidence in why.evidence:
        console.print(f"  {_weighed(evidence)}", markup=False)
    said = {each.text for each in why.evidence}
    for residual in why.residuals:
        if residual.text not in said:
            console.print(f"  {residual.text}", markup=False)
    for number, step in enumerate(why.steps, 1):
        kind = word(StepKind.Name(step.kind), "STEP_KIND_")
        console.print(f"{number}. {kind}: {step.text}", markup=False)
    if not why.steps:
        for number, text in enumerate(alert.remedies, 1):
            console.print(f"{number}. {text}", markup=False)
    _parts(alert, diagnosed)


def _weighed(evidence: Evidence) -> str:
    """With the cause that it speaks for or against; what weighs nothing says where, not why."""
    if not evidence.weight:
        return evidence.text
    sign = "+" if evidence.weight > 0 else "-"
    return f"{sign} {word(CauseClass.Name(evidence.cause), 'CAUSE_CLASS_')}: {evidence.text}"


def _parts(alert: Alert, diagnosed: Alert) -> None:
    shares = diagnosed.features or alert.features
    if shares:
        show_table(
            "features",
            ("feature", "share", "statistic", "observed", "reference", "threshold"),
            (
                (
                    " and ".join(filter(None, (each.feature, each.other_feature))),
                    f"{each.share:.0%}" if each.share else "",
                    each.statistic.replace("_", " "),
                    f"{each.observed_value:.4g}",
                    f"{each.reference_value:.4g}",
                    f"{each.threshold:.4g}",
                )
                for each in shares
            ),
        )
    if diagnosed.diagnosis.segments:
        show_table(
            "segments",
            ("segment", "rows", "statistic", "observed", "reference"),
            (
                (
                    each.name or each.expression,
                    f"{each.row_share:.0%}",
                    each.statistic,
                    f"{each.observed_value:.4g}",
                    f"{each.reference_value:.4g}",
                )
                for each in diagnosed.diagnosis.segments
            ),
        )


def _plain(alert: Alert) -> dict[str, Any]:
    told: dict[str, Any] = MessageToDict(
        alert, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return told


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    alert_handling.add_to(commands)
    app.add_typer(commands, name="alerts")
