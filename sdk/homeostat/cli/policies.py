"""`homeostat policy`: what people want of a model's watch, checked and tried before it is set."""

import getpass
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from homeostat import policy_files
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
from homeostat.events.v1.alert_pb2 import AlertState, Severity
from homeostat.monitor.v1.monitor_pb2 import (
    BacktestPolicyRequest,
    BacktestResult,
    GetPolicyRequest,
    SetPolicyRequest,
)
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from homeostat.monitor.v1.policy_pb2 import Policy
from homeostat.policy_files import BadPolicyFile

_SECONDS = 60.0
_BACKTEST_SECONDS = 3_600.0

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_File = Annotated[Path, typer.Argument(metavar="FILE", help="The policy as TOML.")]
_Json = Annotated[bool, typer.Option("--json", help="Print it as JSON, for programs.")]

policy_app = typer.Typer(
    help="What you want of a model's watch: budget of false alarms, segments, thresholds, webhooks."
    "\n\nWrite down what holds with [bold]homeostat policy show MODEL > policy.toml[/bold], change "
    "it, try it on the past with [bold]policy backtest[/bold], then [bold]policy set[/bold].\n\n"
    "Example: homeostat policy backtest flights policy.toml --days 30",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@policy_app.command()
def show(model: _Model, folder: Folder = FOLDER, as_json: _Json = False) -> None:
    """Prints the policy that holds, as a file that `policy set` takes.

    Example: homeostat policy show flights > policy.toml
    """

    async def ask() -> Policy:
        async with channel("monitor", folder) as opened:
            answer = await MonitorServiceStub(opened).GetPolicy(
                GetPolicyRequest(model_name=model), timeout=_SECONDS
            )
        return answer.policy

    policy = run(ask())
    typer.echo(
        json.dumps(_plain(policy), indent=2) if as_json else policy_files.write(policy), nl=as_json
    )


@policy_app.command()
def check(model: _Model, file: _File, folder: Folder = FOLDER) -> None:
    """Says everything that is wrong with a policy, each at its line, and saves nothing.

    Example: homeostat policy check flights policy.toml
    """
    run(_set(model, file, file.read_text(), folder, is_dry_run=True, expected=None))
    typer.echo(f"{file}: a policy that {model} can have")


@policy_app.command("set")
def set_(
    model: _Model,
    file: _File,
    expected: Annotated[
        int | None,
        typer.Option(
            "--expected-revision", help="Refuse if somebody set another one since.", min=0
        ),
    ] = None,
    folder: Folder = FOLDER,
) -> None:
    """Checks a policy and sets it; what was before is kept as an older revision.

    Example: homeostat policy set flights policy.toml --expected-revision 3
    """
    policy = run(_set(model, file, file.read_text(), folder, is_dry_run=False, expected=expected))
    typer.echo(f"{model}: policy revision {policy.revision}, set by {policy.set_by}")


async def _set(
    model: str, file: Path, text: str, folder: Path, *, is_dry_run: bool, expected: int | None
) -> Policy:
    policy = policy_files.read(text, name=str(file), model_name=model)
    policy.set_by = _me()
    request = SetPolicyRequest(policy=policy, is_dry_run=is_dry_run, expected_revision=expected)
    try:
        async with channel("monitor", folder) as opened:
            answer = await MonitorServiceStub(opened).SetPolicy(request, timeout=_SECONDS)
    except grpc.aio.AioRpcError as error:
        raise _placed(error, text, file) from None
    return answer.policy


def _placed(error: grpc.aio.AioRpcError, text: str, file: Path) -> Exception:
    """What the monitor found, at the lines of the file."""
    if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
        return error
    mistakes = policy_files.mistakes_of(error.details() or "")
    return BadPolicyFile(policy_files.told(text, str(file), mistakes))


@policy_app.command()
def backtest(
    model: _Model,
    file: _File,
    days: Annotated[
        float, typer.Option("--days", help="Of event time, back from the newest prediction.")
    ] = 90.0,
    version: Annotated[
        int | None, typer.Option("--version", help="Replay this version's predictions.", min=1)
    ] = None,
    folder: Folder = FOLDER,
    as_json: _Json = False,
) -> None:
    """Says what a policy would have told over the ledger's past, before you set it.

    The code that judges live traffic plays the past, once by this policy and once by the present.

    Example: homeostat policy backtest flights policy.toml --days 30
    """
    text = file.read_text()
    policy = policy_files.read(text, name=str(file), model_name=model)
    request = BacktestPolicyRequest(policy=policy, days=days, version=version)

    async def ask() -> BacktestResult:
        try:
            return await _replay(request, folder)
        except grpc.aio.AioRpcError as error:
            raise _placed(error, text, file) from None

    result = run(ask())
    if as_json:
        typer.echo(json.dumps(_plain(result), indent=2))
        return
    show_backtest(result, days)


async def _replay(request: BacktestPolicyRequest, folder: Path) -> BacktestResult:
    result: BacktestResult | None = None
    async with channel("monitor", folder) as opened:
        stub = MonitorServiceStub(opened)
        async for each in stub.BacktestPolicy(request, timeout=_BACKTEST_SECONDS):
            if each.HasField("result"):
                result = each.result
            elif sys.stderr.isatty():
                done, total = each.progress.rows_done, each.progress.rows_total
                typer.echo(f"\r{done:,} of {total:,} rows", err=True, nl=False)
    if sys.stderr.isatty():
        typer.echo("\r", err=True, nl=False)
    if result is None:
        raise LookupError("the monitor gave no result; try again with fewer --days")
    return result


def show_backtest(result: BacktestResult, days: float) -> None:
    """Prints how often it would have fired, and each time."""
    count = len(result.alerts)
    times = "once" if count == 1 else f"{count} times"
    fired = f"would have fired {times}" if count else "would never have fired"
    console.print(
        f"{fired} in {days:g} days (the present policy: {result.alerts_of_present_policy})",
        markup=False,
    )
    console.print(
        f"{result.rows:,} predictions and {result.truths:,} truths from "
        f"{when(result.event_from)} to {when(result.event_before)}",
        markup=False,
    )
    for remark in result.remarks:
        console.print(remark, markup=False)
    if count:
        show_table(
            "alerts",
            ("since", "severity", "rule", "state", "segment", "what"),
            (
                (
                    when(each.since_at),
                    word(Severity.Name(each.severity), "SEVERITY_"),
                    each.policy_rule or rule_name(each.rule),
                    word(AlertState.Name(each.state), "ALERT_STATE_"),
                    each.segment,
                    each.summary,
                )
                for each in result.alerts
            ),
        )


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"


def _plain(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return told


def add_to(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(policy_app, name="policy")
