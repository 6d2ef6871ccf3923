"""RPCs about alerts: their lives, what people know of them, and what webhooks hear."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.monitor.v1 import monitor_pb2 as pb
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceServicer
from homeostat_kit.auth import caller_name
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_monitor.app import policies
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.messages.alerts import message_of
from homeostat_monitor.messages.policies import mute_message, mute_of
from homeostat_monitor.store.policies import (
    Notification,
    NotificationStore,
    PolicyStore,
    alert_events,
)

_LISTED = 100
_MOST_LISTED = 10_000

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Asked, Answered]


class AlertsApi(MonitorServiceServicer):
    """Its part of the contract; whoever inherits gives the pool."""

    _pool: Pool
    _told: Callable[[], None]

    async def GetAlert(  # noqa: N802
        self,
        request: pb.GetAlertRequest,
        context: "Context[pb.GetAlertRequest, pb.GetAlertResponse]",
    ) -> pb.GetAlertResponse:
        """Every event of its life; NOT_FOUND."""
        return pb.GetAlertResponse(events=await alert_events(self._pool, request.alert_id))

    async def AcknowledgeAlert(  # noqa: N802
        self,
        request: pb.AcknowledgeAlertRequest,
        context: "Context[pb.AcknowledgeAlertRequest, pb.AcknowledgeAlertResponse]",
    ) -> pb.AcknowledgeAlertResponse:
        """Somebody has seen it: who the token says, else who the request says."""
        who = caller_name() or request.acknowledged_by

        async def work(connection: Connection) -> Alert:
            return await policies.acknowledge(
                request.alert_id, who=who, comment=request.comment, tx=PolicyStore(connection)
            )

        alert = await retrying(self._pool, work)
        self._told()
        return pb.AcknowledgeAlertResponse(alert=message_of(alert))

    async def AssignAlert(  # noqa: N802
        self,
        request: pb.AssignAlertRequest,
        context: "Context[pb.AssignAlertRequest, pb.AssignAlertResponse]",
    ) -> pb.AssignAlertResponse:
        """Somebody shall look at it, or nobody any more."""

        async def work(connection: Connection) -> Alert:
            return await policies.assign(
                request.alert_id, to=request.assigned_to, tx=PolicyStore(connection)
            )

        alert = await retrying(self._pool, work)
        self._told()
        return pb.AssignAlertResponse(alert=message_of(alert))

    async def MuteAlerts(  # noqa: N802
        self,
        request: pb.MuteAlertsRequest,
        context: "Context[pb.MuteAlertsRequest, pb.MuteAlertsResponse]",
    ) -> pb.MuteAlertsResponse:
        """Keeps webhooks quiet for a while, or ends that."""
        named = pb.MuteAlertsRequest()
        named.CopyFrom(request)
        named.mute.muted_by = caller_name() or request.mute.muted_by
        mute = mute_of(named.mute)

        async def work(connection: Connection) -> bool:
            return await policies.mute(mute, tx=PolicyStore(connection))

        await retrying(self._pool, work)
        return pb.MuteAlertsResponse()

    async def ListMutes(  # noqa: N802
        self,
        request: pb.ListMutesRequest,
        context: "Context[pb.ListMutesRequest, pb.ListMutesResponse]",
    ) -> pb.ListMutesResponse:
        """Those that have not ended; NOT_FOUND."""
        async with self._pool.acquire() as connection:
            mutes = await policies.mutes_of(request.model_name, tx=PolicyStore(connection))
        return pb.ListMutesResponse(mutes=map(mute_message, mutes))

    async def ListNotifications(  # noqa: N802
        self,
        request: pb.ListNotificationsRequest,
        context: "Context[pb.ListNotificationsRequest, pb.ListNotificationsResponse]",
    ) -> pb.ListNotificationsResponse:
        """Newest first, at most 10,000; an empty name means every model."""
        limit = min(request.limit or _LISTED, _MOST_LISTED)
        found = await NotificationStore(self._pool).newest(request.model_name, limit)
        return pb.ListNotificationsResponse(notifications=map(_notification, found))


def _notification(each: Notification) -> pb.Notification:
    delivered_at: Timestamp | None = None
    if each.delivered_at_us is not None:
        delivered_at = Timestamp()
        delivered_at.FromMicroseconds(each.delivered_at_us)
    return pb.Notification(
        notification_id=each.notification_id,
        webhook_name=each.webhook_name,
        alert_id=each.alert_id,
        alert_revision=each.alert_revision,
        tries=each.tries,
        delivered_at=delivered_at,
        error=each.error,
        is_given_up=each.is_given_up,
    )
