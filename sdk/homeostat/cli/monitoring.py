"""`homeostat monitor`: how a model does, and which changes its watch would see."""

import json
import math
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from homeostat.cli.shared import FOLDER, Folder, channel, console, run, show_table, span, word
from homeostat.events.v1.alert_pb2 import DetectionMode
from homeostat.monitor.v1.monitor_pb2 import (
    GetModelHealthRequest,
    GetModelHealthResponse,
    GetPowerRequest,
    GetPowerResponse,
    Metric,
    PowerLine,
)
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub

_SECONDS = 60.0
_NONE = "-"
# The name that the monitor gives the scores' own column.
_SCORE, _SCORES = "homeostat.score", "the scores"
_CHANGES = {
    "shift": "shift of the mean",
    "null_rate": "share of nulls more",
    "unseen_rate": "share of texts never seen",
    "loss": "rise of the mean loss",
}

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_Json = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]

monitor_app = typer.Typer(
    help="How a model does, and which changes its watch would see.\n\n"
    "Example: homeostat monitor health flights\n\n"
    "Example: homeostat monitor power flights --within 5000",
    no_args_is_help=True,
)


@monitor_app.command()
def health(model: _Model, folder: Folder = FOLDER, as_json: _Json = False) -> None:
    """Shows how a model does: its mode and why, rolling metrics, labels, segments, remarks.

    Example: homeostat monitor health flights
    """

    async def ask() -> GetModelHealthResponse:
        async with channel("monitor", folder) as opened:
            return await MonitorServiceStub(opened).GetModelHealth(
                GetModelHealthRequest(model_name=model), timeout=_SECONDS
            )

    found = run(ask())
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=2))
        return
    show_health(found)


def show_health(found: GetModelHealthResponse) -> None:
    """Prints how a model does."""
    if not found.version:
        console.print(
            f"{found.model_name}: no version serves yet, and nobody predicted with one",
            markup=False,
        )
        return
    of = f" of {span(found.window_seconds)}" if found.window_seconds else ""
    windows = f"{found.windows:,} windows{of}" if found.windows else f"no window{of} judged yet"
    console.print(
        f"{found.model_name} version {found.version}: {found.predictions:,} predictions, "
        f"{found.losses:,} truths, {windows}, "
        f"{found.open_alerts} open alerts, policy revision {found.policy_revision}",
        markup=False,
    )
    if found.mode:
        mode = word(DetectionMode.Name(found.mode), "DETECTION_MODE_")
        console.print(f"mode: {mode}. {found.mode_reason}", markup=False)
    metrics = list(found.metrics)
    if found.HasField("estimated_loss"):
        metrics.append(found.estimated_loss)
    if metrics:
        show_table(
            "metrics, with 95 % intervals",
            ("metric", "value", "from", "to", "reference", "rows"),
            map(_metric, metrics),
        )
    if found.HasField("label_coverage"):
        console.print(f"label coverage: {found.label_coverage:.1%}", markup=False)
    if found.HasField("label_delay_seconds"):
        usual = found.label_delay_reference_seconds
        beside = f" (reference {span(usual)})" if usual > 0 else ""
        console.print(f"label delay: {span(found.label_delay_seconds)}{beside}", markup=False)
    if found.segments:
        show_table(
            "segments",
            ("segment", "expression", "predictions", "truths", "mean loss", "reference"),
            (
                (
                    each.name,
                    each.expression,
                    each.predictions,
                    each.losses,
                    _figure(each.mean_loss) if each.losses else _NONE,
                    _figure(each.reference_loss) if each.reference_loss else _NONE,
                )
                for each in found.segments
            ),
        )
    for remark in found.remarks:
        console.print(f"- {remark}", markup=False)


def _metric(metric: Metric) -> tuple[object, ...]:
    figures = (metric.value, metric.low, metric.high, metric.reference_value)
    return (metric.name.replace("_", " "), *map(_figure, figures), f"{metric.row_count:,}")


def _figure(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else _NONE


@monitor_app.command()
def power(
    model: _Model,
    within: Annotated[
        int, typer.Option("--within", help="Seen within so many predictions.", min=1)
    ] = 2_000,
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """Shows the smallest change that would be seen in time, per feature and segment.

    That is what the budget of false alarms buys: fewer allowed, larger changes needed.

    Example: homeostat monitor power flights --within 5000
    """

    async def ask() -> GetPowerResponse:
        async with channel("monitor", folder) as opened:
            return await MonitorServiceStub(opened).GetPower(
                GetPowerRequest(model_name=model, within_events=within), timeout=_SECONDS
            )

    found = run(ask())
    if as_json:
        typer.echo(json.dumps(_plain(found), indent=2))
        return
    show_power(found)


def show_power(found: GetPowerResponse) -> None:
    """Prints what the budget buys."""
    console.print(
        f"{found.model_name} version {found.version}: at most {found.false_alarms_per_month:g} "
        f"false alarms a month over {found.tests:,} tests and {found.looks_per_month:,.0f} looks; "
        f"seen with probability 0.9 within {found.within_events:,} events:",
        markup=False,
    )
    show_table(
        "smallest change that is seen",
        ("feature", "segment", "change", "smallest"),
        (
            (
                _SCORES if each.feature == _SCORE else each.feature or _NONE,
                each.segment or "all rows",
                _CHANGES.get(each.change, each.change.replace("_", " ")),
                _smallest(each),
            )
            for each in found.lines
            # Numbers have no texts that could be new.
            if each.HasField("smallest") or each.change != "unseen_rate"
        ),
    )
    for remark in found.remarks:
        console.print(f"- {remark}", markup=False)


def _smallest(line: PowerLine) -> str:
    if not line.HasField("smallest"):
        return _NONE
    if line.change == "shift":
        return f"{line.smallest:.3g} deviations"
    if line.change == "loss":
        return f"{line.smallest:.3g} more"
    return f"{line.smallest:.2%}"


def _plain(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return told


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(monitor_app, name="monitor")
