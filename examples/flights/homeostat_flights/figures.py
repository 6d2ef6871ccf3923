"""The figures of a run, and what happened in it, gathered from the services at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeostat.channels import open_channel
from homeostat.events.v1.alert_pb2 import ALERT_STATE_RESOLVED, Alert, CauseClass
from homeostat.events.v1.retraining_run_pb2 import RetrainingRun
from homeostat.ledger.v1.ledger_pb2 import GetStatisticsRequest, GetStatisticsResponse
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.monitor.v1.monitor_pb2 import GetAlertRequest, ListAlertsRequest
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from homeostat.registry.v1.registry_pb2 import (
    STAGE_CHAMPION,
    STAGE_RETIRED,
    ListVersionsRequest,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat.retrainer.v1.retrainer_pb2 import ListRunsRequest
from homeostat.retrainer.v1.retrainer_pb2_grpc import RetrainerServiceStub
from homeostat_flights import incident
from homeostat_flights.player import Tally
from homeostat_flights.score import Scores


@dataclass(frozen=True, slots=True)
class Story:
    """What the services say of the run."""

    versions: Sequence[Version]
    alerts: Sequence[Alert]
    runs: Sequence[RetrainingRun]
    statistics: GetStatisticsResponse
    # By alert id, of those that ended: the last event says how, the first what it was about.
    openings: Mapping[str, str] = field(default_factory=dict)

    def what(self, alert: Alert) -> str:
        """What the alert was opened for."""
        return self.openings.get(alert.alert_id, alert.summary)

    @property
    def promoted(self) -> list[Version]:
        """Versions that served after the first, oldest first."""
        later = [each for each in self.versions if each.version > 1 and _has_served(each)]
        return sorted(later, key=lambda each: each.version)

    @property
    def fits(self) -> int:
        """Models trained, kept or not."""
        return sum(run.fit_count for run in self.runs)


def _has_served(version: Version) -> bool:
    return version.stage in (STAGE_CHAMPION, STAGE_RETIRED)


async def read_story(addresses: Mapping[str, str], model_name: str) -> Story:
    """Asks registry, monitor, retrainer and ledger."""
    channels = {
        name: open_channel(addresses[name])
        for name in ("registry", "monitor", "retrainer", "ledger")
    }
    try:
        versions = await RegistryServiceStub(channels["registry"]).ListVersions(
            ListVersionsRequest(model_name=model_name), timeout=30
        )
        monitor = MonitorServiceStub(channels["monitor"])
        alerts = await monitor.ListAlerts(ListAlertsRequest(model_name=model_name), timeout=30)
        openings: dict[str, str] = {}
        for each in alerts.alerts:
            if each.state == ALERT_STATE_RESOLVED:
                request = GetAlertRequest(alert_id=each.alert_id)
                told = await monitor.GetAlert(request, timeout=30)
                openings[each.alert_id] = told.events[0].summary
        runs = await RetrainerServiceStub(channels["retrainer"]).ListRuns(
            ListRunsRequest(model_name=model_name), timeout=30
        )
        statistics = await LedgerServiceStub(channels["ledger"]).GetStatistics(
            GetStatisticsRequest(model_name=model_name), timeout=30
        )
    finally:
        for channel in channels.values():
            await channel.close()
    return Story(versions.versions, alerts.alerts, runs.runs, statistics, openings)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the run took of the machine."""

    wall_seconds: float
    peak_pss_mb: float


def figures(
    tally: Tally, scores: Scores, story: Story, cost: Cost, checksum_sent: int
) -> dict[str, Any]:
    """What `--json` writes; quality in fractions, AUC as the mean over weeks."""
    statistics = story.statistics
    return {
        "predictions": tally.predictions,
        "requests": tally.requests,
        "failed_requests": tally.failed_requests,
        "outcomes_sent": tally.outcomes_sent,
        "outcomes_joined": int(statistics.predictions_joined),
        "checksum_sent": f"{checksum_sent:016x}",
        "checksum_joined": f"{statistics.joined_checksum:016x}",
        "accuracy_loop": round(scores.accuracy_loop, 6),
        "accuracy_never": round(scores.accuracy_never, 6),
        "auc_loop": round(scores.auc_loop, 6),
        "auc_never": round(scores.auc_never, 6),
        "alerts": len(story.alerts),
        "promotions": len(story.promoted),
        "promoted_sha256": [each.model_sha256 for each in story.promoted],
        "runs": len(story.runs),
        "fits": story.fits,
        "wall_seconds": round(cost.wall_seconds, 1),
        "peak_pss_mb": round(cost.peak_pss_mb, 1),
    }


def incident_figures(story: Story) -> dict[str, Any]:
    """What the loop made of the injected incident."""
    told = incident.told(story.alerts, story.runs)
    found: dict[str, Any] = {
        "column": incident.COLUMN,
        "from": incident.FIRST_DAY.date().isoformat(),
        "days": incident.DAYS,
        "runs_meanwhile": len(told.runs),
        "is_told": told.alert is not None,
    }
    if told.alert is not None:
        since = told.alert.since_at.ToDatetime().date().isoformat()
        cause = CauseClass.Name(told.alert.cause).removeprefix("CAUSE_CLASS_").lower()
        steps = [each.text for each in told.alert.diagnosis.steps] or list(told.alert.remedies)
        found |= {
            "alert_id": told.alert.alert_id,
            "feature": told.alert.feature,
            "since": since,
            "cause": cause,
            "confidence": round(told.alert.diagnosis.confidence, 3),
            "advice": steps[0] if steps else "",
        }
    return found


def incident_line(found: Mapping[str, Any]) -> str:
    """One sentence for the summary."""
    runs = found["runs_meanwhile"]
    meanwhile = f"{runs or 'no'} retraining{'s' if runs > 1 else ''} meanwhile"
    if not found["is_told"]:
        return f"no alert named it; {meanwhile}"
    cause = found["cause"].replace("_", " ")
    advice = f" {found['advice']}" if found["advice"] else ""
    return f"told as {cause} of {found['feature']} since {found['since']}, {meanwhile}.{advice}"
