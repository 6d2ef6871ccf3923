"""RetrainerService: message in, one use case, message out."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc

from homeostat.retrainer.v1 import retrainer_pb2 as pb
from homeostat.retrainer.v1.retrainer_pb2_grpc import (
    RetrainerServiceServicer,
    add_RetrainerServiceServicer_to_server,
)
from homeostat_kit.auth import Roles, roles_of
from homeostat_kit.clock import Clock
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_retrainer import store
from homeostat_retrainer.domain import errors
from homeostat_retrainer.domain.errors import BadRequest, UnknownModel
from homeostat_retrainer.domain.policy import Policy
from homeostat_retrainer.domain.runs import Run, requested_run
from homeostat_retrainer.store import PostgresRuns

SERVICE_NAME = "homeostat.retrainer.v1.RetrainerService"
ROLES: Roles = roles_of(SERVICE_NAME, read=["ListRuns", "GetRun"], manage=["RequestRun"])

ERRORS: Mapping[type[Exception], grpc.StatusCode] = {
    errors.UnknownRun: grpc.StatusCode.NOT_FOUND,
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.BadRequest: grpc.StatusCode.INVALID_ARGUMENT,
}

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Asked, Answered]


class RetrainerApi(RetrainerServiceServicer):
    """Answers every call of the contract; errors are mapped by the server's interceptor."""

    def __init__(
        self,
        pool: Pool,
        runs: PostgresRuns,
        policy: Policy,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._pool = pool
        self._runs = runs
        self._policy = policy
        self._clock = clock
        self._wake = wake

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers it with a server that is not started yet."""
        add_RetrainerServiceServicer_to_server(self, server)

    async def ListRuns(  # noqa: N802
        self,
        request: pb.ListRunsRequest,
        context: "Context[pb.ListRunsRequest, pb.ListRunsResponse]",
    ) -> pb.ListRunsResponse:
        """The newest thousand runs, newest first; of all models where the name is empty."""
        return pb.ListRunsResponse(runs=await self._runs.list(request.model_name))

    async def GetRun(  # noqa: N802
        self, request: pb.GetRunRequest, context: "Context[pb.GetRunRequest, pb.GetRunResponse]"
    ) -> pb.GetRunResponse:
        """NOT_FOUND if there is none of that id."""
        return pb.GetRunResponse(run=await self._runs.get(request.run_id))

    async def RequestRun(  # noqa: N802
        self,
        request: pb.RequestRunRequest,
        context: "Context[pb.RequestRunRequest, pb.RequestRunResponse]",
    ) -> pb.RequestRunResponse:
        """Makes a run due, past cool-down and budget; the same request id gives the same run."""
        if not request.request_id or not request.actor:
            raise BadRequest("request_id and actor must be given")

        async def work(connection: Connection) -> Run:
            return await self._request(connection, request)

        run = await retrying(self._pool, work)
        self._wake()
        return pb.RequestRunResponse(run_id=run.run_id)

    async def _request(self, connection: Connection, request: pb.RequestRunRequest) -> Run:
        memory, marks = await store.load(connection)
        state = memory.models.get(request.model_name)
        if state is None or not state.champion_version:
            raise UnknownModel(f"no version of {request.model_name!r} serves; push one first")
        run = requested_run(
            request.model_name,
            request.request_id,
            watermark_us=memory.watermark_us or self._clock.now_us(),
            reference_rows=state.reference_rows,
        )
        if await store.want(connection, [run]):
            state.run_began(run.watermark_us, self._policy)
            await store.save(connection, memory, marks)
        return run
