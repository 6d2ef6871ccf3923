"""RPCs about policies and what they buy."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc

from homeostat.monitor.v1 import monitor_pb2 as pb
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceServicer

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Asked, Answered]


class PoliciesApi(MonitorServiceServicer):
    """Its part of the contract."""

    async def GetPower(  # noqa: N802
        self,
        request: pb.GetPowerRequest,
        context: "Context[pb.GetPowerRequest, pb.GetPowerResponse]",
    ) -> pb.GetPowerResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")

    async def GetPolicy(  # noqa: N802
        self,
        request: pb.GetPolicyRequest,
        context: "Context[pb.GetPolicyRequest, pb.GetPolicyResponse]",
    ) -> pb.GetPolicyResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")

    async def SetPolicy(  # noqa: N802
        self,
        request: pb.SetPolicyRequest,
        context: "Context[pb.SetPolicyRequest, pb.SetPolicyResponse]",
    ) -> pb.SetPolicyResponse:
        """Not answered yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not answered yet")

    async def BacktestPolicy(  # noqa: N802
        self,
        request: pb.BacktestPolicyRequest,
        context: "Context[pb.BacktestPolicyRequest, pb.BacktestPolicyResponse]",
    ) -> AsyncIterator[pb.BacktestPolicyResponse]:
        """Not answered yet."""
        await context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "this monitor does not replay the ledger's past yet; "
            "check a policy with SetPolicy and is_dry_run",
        )
        yield pb.BacktestPolicyResponse()
