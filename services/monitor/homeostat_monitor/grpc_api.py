"""The monitor's RPCs: message in, one question, message out."""

from collections.abc import Callable, Mapping

import grpc

from homeostat.monitor.v1.monitor_pb2 import (
    GetModelHealthRequest,
    GetModelHealthResponse,
    ListAlertsRequest,
    ListAlertsResponse,
)
from homeostat.monitor.v1.monitor_pb2_grpc import add_MonitorServiceServicer_to_server
from homeostat_kit.auth import Roles, roles_of
from homeostat_kit.postgres import Pool
from homeostat_monitor.alert_messages import message_of
from homeostat_monitor.domain import errors
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.hosts import AllowedHosts
from homeostat_monitor.domain.policy_checks import BadPolicy
from homeostat_monitor.grpc_api_alerts import AlertsApi
from homeostat_monitor.grpc_api_policies import PoliciesApi
from homeostat_monitor.health import losses_of
from homeostat_monitor.ports import Standing
from homeostat_monitor.store import Reader
from homeostat_monitor.versions import Versions

SERVICE_NAME = "homeostat.monitor.v1.MonitorService"
ROLES: Roles = roles_of(
    SERVICE_NAME,
    read=[
        "ListAlerts",
        "GetModelHealth",
        "GetAlert",
        "GetPower",
        "GetPolicy",
        "ListMutes",
        "ListNotifications",
    ],
    manage=["SetPolicy", "BacktestPolicy", "AcknowledgeAlert", "AssignAlert", "MuteAlerts"],
)
ERRORS: Mapping[type[Exception], grpc.StatusCode] = {
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.UnknownAlert: grpc.StatusCode.NOT_FOUND,
    errors.StaleRevision: grpc.StatusCode.ABORTED,
    errors.BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
    BadPolicy: grpc.StatusCode.INVALID_ARGUMENT,
}
# Tallies worth a sentence, and how it begins.
_REMARKED = {
    "late_rows": "predictions came after their window was closed and were not judged",
    "late_losses": "truths came after their watermark and were not fed",
    "corrections": "corrections were not fed: only the first truth is",
    "superseded_rows": "predictions came after another version took over",
    "superseded_losses": "truths came after another version took over",
    "skipped_rows": "predictions were in spans too thin to judge",
    "losses_not_finite": "losses were not finite",
}


class MonitorServicer(AlertsApi, PoliciesApi):
    """Answers from the database."""

    def __init__(
        self,
        reader: Reader,
        pool: Pool,
        versions: Versions,
        *,
        hosts: AllowedHosts,
        told: Callable[[], None],
    ) -> None:
        """``hosts`` may be posted to; ``told`` is called when alerts were put out."""
        self._reader = reader
        self._pool = pool
        self._versions = versions
        self._hosts = hosts
        self._told = told

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers it with a server that is not started yet."""
        add_MonitorServiceServicer_to_server(self, server)

    async def ListAlerts(  # noqa: N802 - the contract's name
        self,
        request: ListAlertsRequest,
        context: grpc.aio.ServicerContext[ListAlertsRequest, ListAlertsResponse],
    ) -> ListAlertsResponse:
        """The last event of each alert, newest first; at most 10,000."""
        alerts = await self._reader.list_alerts(request.model_name, open_only=request.open_only)
        return ListAlertsResponse(alerts=[message_of(each) for each in alerts])

    async def GetModelHealth(  # noqa: N802 - the contract's name
        self,
        request: GetModelHealthRequest,
        context: grpc.aio.ServicerContext[GetModelHealthRequest, GetModelHealthResponse],
    ) -> GetModelHealthResponse:
        """How the version in service does; NOT_FOUND for a model that nobody has heard of."""
        name = request.model_name
        standing = await self._reader.champion(name)
        response = GetModelHealthResponse(
            model_name=name, open_alerts=await self._reader.open_alert_count(name)
        )
        if standing is not None:
            await self._fill(response, standing)
        return response

    async def _fill(self, response: GetModelHealthResponse, standing: Standing) -> None:
        tallies = await self._reader.tallies(standing.subject)
        response.version = standing.subject.version
        response.predictions = tallies.get("predictions", 0)
        response.windows = standing.windows_judged
        response.window_seconds = (standing.window_us or 0) / 1e6
        response.remarks.extend(await self._reader.remarks(standing.subject))
        response.remarks.extend(
            f"{tallies[name]} {text}" for name, text in _REMARKED.items() if tallies.get(name)
        )
        try:
            losses = losses_of(await self._reader.states(standing.subject))
        except CorruptState as error:
            response.remarks.append(str(error))
            return
        if losses is not None:
            response.losses = losses.losses
            response.mean_loss = losses.mean
            response.reference_loss = losses.reference
