"""RPCs about alerts and what is told of them."""

from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc

from homeostat.monitor.v1 import monitor_pb2 as pb
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceServicer

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Asked, Answered]


class AlertsApi(MonitorServiceServicer):
    """Its part of the contract."""

    async def GetAlert(  # noqa: N802
        self,
        request: pb.GetAlertRequest,
        context: "Context[pb.GetAlertRequest, pb.GetAlertResponse]",
    ) -> pb.GetAlertResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")

    async def AcknowledgeAlert(  # noqa: N802
        self,
        request: pb.AcknowledgeAlertRequest,
        context: "Context[pb.AcknowledgeAlertRequest, pb.AcknowledgeAlertResponse]",
    ) -> pb.AcknowledgeAlertResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")

    async def AssignAlert(  # noqa: N802
        self,
        request: pb.AssignAlertRequest,
        context: "Context[pb.AssignAlertRequest, pb.AssignAlertResponse]",
    ) -> pb.AssignAlertResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")

    async def MuteAlerts(  # noqa: N802
        self,
        request: pb.MuteAlertsRequest,
        context: "Context[pb.MuteAlertsRequest, pb.MuteAlertsResponse]",
    ) -> pb.MuteAlertsResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")

    async def ListMutes(  # noqa: N802
        self,
        request: pb.ListMutesRequest,
        context: "Context[pb.ListMutesRequest, pb.ListMutesResponse]",
    ) -> pb.ListMutesResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")

    async def ListNotifications(  # noqa: N802
        self,
        request: pb.ListNotificationsRequest,
        context: "Context[pb.ListNotificationsRequest, pb.ListNotificationsResponse]",
    ) -> pb.ListNotificationsResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")
