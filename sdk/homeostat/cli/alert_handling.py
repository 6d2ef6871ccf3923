"""What people say of alerts: seen, given to somebody, muted; and what webhooks heard."""

import getpass
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from homeostat.cli.shared import FOLDER, Folder, channel, rule_name, run, show_table, when
from homeostat.events.v1.alert_pb2 import Alert, AlertRule
from homeostat.monitor.v1.monitor_pb2 import (
    AcknowledgeAlertRequest,
    AssignAlertRequest,
    ListMutesRequest,
    ListNotificationsRequest,
    ListNotificationsResponse,
    MuteAlertsRequest,
)
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from homeostat.monitor.v1.policy_pb2 import Mute

_SECONDS = 60.0
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_RULES = {rule_name(number): number for number in AlertRule.values() if number}

_Model = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_Id = Annotated[str, typer.Argument(metavar="ALERT", help="Its id, as `alerts list` shows it.")]
_Who = Annotated[str, typer.Option("--by", help="Who says so; default: your name here.")]


def ack(
    alert: _Id,
    comment: Annotated[str, typer.Option("--comment", help="What you know of it.")] = "",
    by: _Who = "",
    folder: Folder = FOLDER,
) -> None:
    """Says that you have seen an alert; it stays open until the world is well again.

    Example: homeostat alerts ack ALERT --comment "the new thermometers"
    """
    request = AcknowledgeAlertRequest(alert_id=alert, acknowledged_by=by or _me(), comment=comment)

    async def ask() -> Alert:
        async with channel("monitor", folder) as opened:
            answer = await MonitorServiceStub(opened).AcknowledgeAlert(request, timeout=_SECONDS)
        return answer.alert

    typer.echo(f"{alert}: seen by {run(ask()).acknowledged_by}")


def assign(
    alert: _Id,
    to: Annotated[
        str, typer.Argument(metavar="[WHO]", help="Who shall look at it; nobody takes it away.")
    ] = "",
    folder: Folder = FOLDER,
) -> None:
    """Says who shall look at an alert; without WHO, nobody any more.

    Example: homeostat alerts assign ALERT maria
    """

    async def ask() -> Alert:
        async with channel("monitor", folder) as opened:
            answer = await MonitorServiceStub(opened).AssignAlert(
                AssignAlertRequest(alert_id=alert, assigned_to=to), timeout=_SECONDS
            )
        return answer.alert

    typer.echo(f"{alert}: {run(ask()).assigned_to or 'nobody'} looks at it")


_Rule = Annotated[str, typer.Option("--rule", help="Only this rule, as `alerts list` names it.")]
_Feature = Annotated[str, typer.Option("--feature", help="Only alerts about this feature alone.")]
_Segment = Annotated[str, typer.Option("--segment", help="Only this segment of the policy.")]


def mute(
    model: _Model,
    lasting: Annotated[
        str, typer.Option("--for", help="How long, as 30m, 8h or 7d.", show_default=True)
    ] = "8h",
    rule: _Rule = "",
    feature: _Feature = "",
    segment: _Segment = "",
    reason: Annotated[str, typer.Option("--reason", help="Why; others see it.")] = "",
    by: _Who = "",
    folder: Folder = FOLDER,
) -> None:
    """Keeps webhooks quiet for a while. Alerts are told on the topic, and listed, all the same.

    Example: homeostat alerts mute flights --for 8h --reason "the road is closed"

    Example: homeostat alerts mute flights --rule missing_values --segment evening --for 7d
    """
    until = datetime.now(UTC) + _span(lasting)
    request = MuteAlertsRequest(mute=_mute(model, rule, feature, segment))
    request.mute.until.FromDatetime(until)
    request.mute.muted_by = by or _me()
    request.mute.reason = reason
    run(_send_mute(request, folder))
    typer.echo(f"{model}: muted until {until:%Y-%m-%d %H:%M:%S} UTC")


def unmute(
    model: _Model,
    rule: _Rule = "",
    feature: _Feature = "",
    segment: _Segment = "",
    folder: Folder = FOLDER,
) -> None:
    """Ends a mute: name the rule, feature and segment that it was for.

    Example: homeostat alerts unmute flights --rule missing_values --segment evening
    """
    run(_send_mute(MuteAlertsRequest(mute=_mute(model, rule, feature, segment)), folder))
    typer.echo(f"{model}: webhooks hear again")


def mutes(model: _Model, folder: Folder = FOLDER) -> None:
    """Lists what is muted, until when and why."""

    async def ask() -> Sequence[Mute]:
        async with channel("monitor", folder) as opened:
            answer = await MonitorServiceStub(opened).ListMutes(
                ListMutesRequest(model_name=model), timeout=_SECONDS
            )
        return list(answer.mutes)

    show_table(
        f"muted of {model}",
        ("rule", "feature", "segment", "until", "by", "reason"),
        (
            (
                rule_name(each.rule) if each.rule else "every",
                each.feature or "every",
                each.segment or "every",
                when(each.until),
                each.muted_by,
                each.reason,
            )
            for each in run(ask())
        ),
    )


def notifications(
    model: _Model,
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1)] = 100,
    folder: Folder = FOLDER,
) -> None:
    """Lists what was posted to webhooks, what waits, and why a try failed; newest first."""

    async def ask() -> ListNotificationsResponse:
        async with channel("monitor", folder) as opened:
            return await MonitorServiceStub(opened).ListNotifications(
                ListNotificationsRequest(model_name=model, limit=limit), timeout=_SECONDS
            )

    show_table(
        f"notifications of {model}",
        ("webhook", "alert", "revision", "tries", "delivered", "trouble"),
        (
            (
                each.webhook_name,
                each.alert_id,
                each.alert_revision,
                each.tries,
                when(each.delivered_at)
                if each.HasField("delivered_at")
                else ("given up" if each.is_given_up else "waits"),
                each.error,
            )
            for each in run(ask()).notifications
        ),
    )


async def _send_mute(request: MuteAlertsRequest, folder: Path) -> None:
    async with channel("monitor", folder) as opened:
        await MonitorServiceStub(opened).MuteAlerts(request, timeout=_SECONDS)


def _mute(model: str, rule: str, feature: str, segment: str) -> Mute:
    if rule and rule not in _RULES:
        raise ValueError(f"there is no rule {rule!r}; known are {', '.join(_RULES)}")
    number = _RULES[rule] if rule else AlertRule.Value("ALERT_RULE_UNSPECIFIED")
    return Mute(model_name=model, rule=number, feature=feature, segment=segment)


def _span(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None:
        raise ValueError(f"--for {text!r} is no span of time; write it as 30m, 8h or 7d")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])


def _me() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"


def add_to(commands: typer.Typer) -> None:
    """Adds the commands to those of alerts."""
    for command in (ack, assign, mute, unmute, mutes, notifications):
        commands.command()(command)
