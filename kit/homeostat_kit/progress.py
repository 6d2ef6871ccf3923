"""How far a service is, for whoever waits for the whole loop."""

from collections.abc import Awaitable, Callable, Mapping

import grpc

from homeostat.progress.v1.progress_pb2 import (
    GetProgressRequest,
    GetProgressResponse,
    PartitionPosition,
)
from homeostat.progress.v1.progress_pb2_grpc import (
    ProgressServiceServicer,
    add_ProgressServiceServicer_to_server,
)
from homeostat_kit.auth import Roles, roles_of

SERVICE_NAME = "homeostat.progress.v1.ProgressService"
ROLES: Roles = roles_of(SERVICE_NAME, read=["GetProgress"])
Positions = Mapping[tuple[str, int], int]


class ProgressServicer(ProgressServiceServicer):
    """Answers GetProgress with what ``collect`` says."""

    def __init__(self, collect: Callable[[], Awaitable[GetProgressResponse]]) -> None:
        self._collect = collect

    async def GetProgress(  # noqa: N802 - the contract's name
        self,
        request: GetProgressRequest,
        context: grpc.aio.ServicerContext[GetProgressRequest, GetProgressResponse],
    ) -> GetProgressResponse:
        """Produced, applied, unsent and open work, all read now."""
        return await self._collect()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers it with a server that is not started yet."""
        add_ProgressServiceServicer_to_server(self, server)


def progress_response(
    service: str,
    epoch: str,
    *,
    produced: Positions,
    applied: Positions,
    unsent_count: int = 0,
    open_work_count: int = 0,
    watermark_us: int | None = None,
) -> GetProgressResponse:
    """The message from plain values; positions are next offsets by (topic, partition)."""
    response = GetProgressResponse(
        service=service,
        epoch=epoch,
        produced=_positions(produced),
        applied=_positions(applied),
        unsent_count=unsent_count,
        open_work_count=open_work_count,
    )
    if watermark_us is not None:
        response.watermark_us = watermark_us
    return response


def _positions(of: Positions) -> list[PartitionPosition]:
    return [
        PartitionPosition(topic=topic, partition=partition, next_offset=offset)
        for (topic, partition), offset in sorted(of.items())
    ]
