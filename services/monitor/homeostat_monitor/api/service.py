"""The monitor's RPCs: message in, one question, message out."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import grpc

from homeostat.monitor.v1.monitor_pb2 import (
    ListAlertsRequest,
    ListAlertsResponse,
)
from homeostat.monitor.v1.monitor_pb2_grpc import add_MonitorServiceServicer_to_server
from homeostat_kit.auth import Roles, roles_of
from homeostat_kit.grpc_server import MAX_MESSAGE_BYTES
from homeostat_kit.postgres import Pool
from homeostat_monitor.api.alerts import AlertsApi
from homeostat_monitor.api.health import HealthApi
from homeostat_monitor.api.policies import PoliciesApi
from homeostat_monitor.app.deepening import LedgerAway
from homeostat_monitor.domain import errors
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.domain.policies.checks import BadPolicy
from homeostat_monitor.messages.alerts import message_of
from homeostat_monitor.past.backtests import Backtests, Busy, NoPast
from homeostat_monitor.past.ledger import LedgerPast
from homeostat_monitor.store.transaction import Reader
from homeostat_monitor.versions import RegistryAway, Versions

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
    errors.UnusableReference: grpc.StatusCode.FAILED_PRECONDITION,
    RegistryAway: grpc.StatusCode.UNAVAILABLE,
    LedgerAway: grpc.StatusCode.UNAVAILABLE,
    Busy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    NoPast: grpc.StatusCode.FAILED_PRECONDITION,
    BadPolicy: grpc.StatusCode.INVALID_ARGUMENT,
}


class MonitorServicer(HealthApi, AlertsApi, PoliciesApi):
    """Answers from the database."""

    def __init__(
        self,
        reader: Reader,
        pool: Pool,
        versions: Versions,
        *,
        hosts: AllowedHosts,
        told: Callable[[], None],
        ledger: LedgerPast | None = None,
    ) -> None:
        """``hosts`` may be posted to; ``told`` is called when alerts were put out; ``ledger`` has
        the past."""
        self._reader = reader
        self._pool = pool
        self._versions = versions
        self._hosts = hosts
        self._told = told
        self._backtests = Backtests(pool, reader, versions, ledger)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers it with a server that is not started yet."""
        add_MonitorServiceServicer_to_server(self, server)

    async def ListAlerts(  # noqa: N802 - the contract's name
        self,
        request: ListAlertsRequest,
        context: grpc.aio.ServicerContext[ListAlertsRequest, ListAlertsResponse],
    ) -> ListAlertsResponse:
        """The last event of each alert, newest first; at most 10,000, and what a client takes."""
        alerts = await self._reader.list_alerts(request.model_name, open_only=request.open_only)
        return await asyncio.to_thread(listed, alerts)


def listed(
    alerts: Sequence[Alert], most_bytes: int = MAX_MESSAGE_BYTES * 3 // 4
) -> ListAlertsResponse:
    """As many of the first ones as a client takes in one message: a diagnosis may be long."""
    response, size = ListAlertsResponse(), 0
    for each in alerts:
        message = message_of(each)
        size += message.ByteSize()
        if size > most_bytes:
            break
        response.alerts.append(message)
    return response
