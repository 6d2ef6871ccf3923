"""Looks at the services at each midnight and tells the screen what changed."""

import time
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from homeostat.channels import open_channel
from homeostat.events.v1.alert_pb2 import (
    ALERT_STATE_DIAGNOSED,
    ALERT_STATE_RESOLVED,
    Alert,
    AlertRule,
    CauseClass,
    Resolution,
)
from homeostat.events.v1.retraining_run_pb2 import (
    RUN_OUTCOME_PROMOTED,
    RUN_STATE_ENDED,
    RetrainingRun,
    RunOutcome,
)
from homeostat.monitor.v1.monitor_pb2 import ListAlertsRequest
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from homeostat.retrainer.v1.retrainer_pb2 import ListRunsRequest
from homeostat.retrainer.v1.retrainer_pb2_grpc import RetrainerServiceStub
from homeostat_flights import incident
from homeostat_flights.flights import Flights
from homeostat_flights.player import DAY_US, Midnight, Tally
from homeostat_flights.screen import Glance, Screen


class Watch:
    """Use as an async context manager around the play."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        model_name: str,
        flights: Flights,
        never: NDArray[np.float64],
        tally: Tally,
        screen: Screen,
        *,
        incident: bool,
    ) -> None:
        self._addresses = addresses
        self._model_name = model_name
        self._flights = flights
        self._never_right = (never >= 0.5) == flights.late
        self._tally = tally
        self._screen = screen
        self._alerts: dict[str, int] = {}
        self._runs: set[str] = set()
        self._promotions = 0
        self._incident = incident
        self._began = time.monotonic()

    async def __aenter__(self) -> "Watch":
        self._monitor = open_channel(self._addresses["monitor"])
        self._retrainer = open_channel(self._addresses["retrainer"])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._monitor.close()
        await self._retrainer.close()

    async def at_midnight(self, midnight: Midnight) -> None:
        """Tells what happened on the day, and shows the state."""
        alerts = await MonitorServiceStub(self._monitor).ListAlerts(
            ListAlertsRequest(model_name=self._model_name), timeout=30
        )
        runs = await RetrainerServiceStub(self._retrainer).ListRuns(
            ListRunsRequest(model_name=self._model_name), timeout=30
        )
        if self._incident:
            self._tell_incident(midnight)
        self._tell_alerts(alerts.alerts)
        for run in runs.runs:
            self._tell_run(run)
        open_alerts = sum(alert.state != ALERT_STATE_RESOLVED for alert in alerts.alerts)
        self._screen.show(self._glance(midnight, open_alerts))

    def _tell_incident(self, midnight: Midnight) -> None:
        """Before the alerts of the day: the cause before what follows from it."""
        if midnight.at_us == incident.FROM_US + DAY_US:
            self._screen.happened(incident.FROM_US, f"[bold magenta]{incident.WHAT}[/]")
        elif midnight.at_us == incident.BEFORE_US + DAY_US:
            self._screen.happened(incident.BEFORE_US, "[magenta]the injected incident is over[/]")

    def _tell_alerts(self, alerts: Iterable[Alert]) -> None:
        """What is new of them. Those that ended together, for one reason, have one line."""
        ended: dict[tuple[int, str], list[Alert]] = {}
        for alert in alerts:
            known = self._alerts.get(alert.alert_id)
            if known == alert.revision:
                continue
            self._alerts[alert.alert_id] = alert.revision
            at_us = alert.occurred_at.ToMicroseconds()
            if alert.state == ALERT_STATE_RESOLVED:
                ended.setdefault((at_us, alert.summary), []).append(alert)
            elif known is None or alert.state != ALERT_STATE_DIAGNOSED:
                # Else more is known, nothing has happened.
                text = f"[yellow]alert[/yellow] {escape(alert.summary)}{_why(alert)}"
                self._screen.happened(at_us, text)
        for (at_us, summary), together in ended.items():
            self._screen.happened(at_us, _ending(together, summary))

    def _tell_run(self, run: RetrainingRun) -> None:
        if run.run_id in self._runs or run.state != RUN_STATE_ENDED:
            return
        self._runs.add(run.run_id)
        at_us = run.occurred_at.ToMicroseconds()
        if run.outcome == RUN_OUTCOME_PROMOTED:
            self._promotions += 1
            best = max(run.candidates, key=lambda each: each.mean_gain)
            self._screen.happened(
                at_us,
                f"[bold cyan]promoted version {run.candidate_version}[/] trained on "
                f"{best.training_rows:,} flights ({best.window}), gain {best.mean_gain:+.4f} nats",
            )
        else:
            outcome = RunOutcome.Name(run.outcome).removeprefix("RUN_OUTCOME_").lower()
            self._screen.happened(at_us, f"[dim]retraining: {outcome.replace('_', ' ')}[/dim]")

    def _glance(self, midnight: Midnight, open_alerts: int) -> Glance:
        tally = self._tally
        answered = np.isfinite(tally.answers)
        right = (tally.answers >= 0.5) == self._flights.late
        seconds = max(1e-9, time.monotonic() - self._began)
        return Glance(
            at_us=midnight.at_us,
            day=midnight.day,
            days=midnight.days,
            predictions=tally.predictions,
            failed_requests=tally.failed_requests,
            outcomes_sent=tally.outcomes_sent,
            version=int(tally.versions.max()),
            alerts_open=open_alerts,
            promotions=self._promotions,
            runs=len(self._runs),
            accuracy_loop=float(right[answered].mean()) if answered.any() else float("nan"),
            accuracy_never=(
                float(self._never_right[answered].mean()) if answered.any() else float("nan")
            ),
            predictions_per_second=tally.predictions / seconds,
            waited_seconds=midnight.waited_seconds,
        )


def _ending(alerts: Sequence[Alert], summary: str) -> str:
    names = ", ".join(dict.fromkeys(_name(each) for each in alerts))
    word = Resolution.Name(alerts[0].resolution).removeprefix("RESOLUTION_").lower()
    why = summary.removeprefix("Resolved: ")
    return f"[green]{word}[/green] {escape(names)}: {escape(why)}"


def _name(alert: Alert) -> str:
    """By its rule, and the feature that it began with."""
    rule = AlertRule.Name(alert.rule).removeprefix("ALERT_RULE_").lower().replace("_", " ")
    return f"{rule} of {alert.feature}" if alert.feature else rule


def _why(alert: Alert) -> str:
    """The cause's class, and what would help first."""
    cause = CauseClass.Name(alert.cause).removeprefix("CAUSE_CLASS_").lower().replace("_", " ")
    steps = [each.text for each in alert.diagnosis.steps] or list(alert.remedies)
    advice = f" [dim]{escape(steps[0])}[/dim]" if steps else ""
    return f" Cause: [bold]{cause}[/].{advice}"
