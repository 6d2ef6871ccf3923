"""RegistryService: message in, one use case, message out."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from homeostat.registry.v1 import registry_pb2 as pb
from homeostat.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from homeostat_kit.auth import Roles, caller_name, roles_of
from homeostat_registry import messages
from homeostat_registry.app import asking, moving, registering, sharing
from homeostat_registry.app.registering import Limits, Part
from homeostat_registry.domain import errors
from homeostat_registry.domain.errors import Invalid
from homeostat_registry.domain.facts import Version
from homeostat_registry.domain.gate import GateRule
from homeostat_registry.metrics import Metrics
from homeostat_registry.ports import Clock, Judge, Shelf
from homeostat_registry.store import PostgresBook

SERVICE_NAME = "homeostat.registry.v1.RegistryService"
ROLES: Roles = roles_of(
    SERVICE_NAME,
    read=[
        "GetModel",
        "ListModels",
        "GetVersion",
        "ListVersions",
        "DownloadArtifact",
        "GetChampionAt",
        "GetSnapshot",
        "ListAudit",
    ],
    manage=[
        "CreateModel",
        "SetAutonomy",
        "SetServing",
        "RegisterVersion",
        "ApproveVersion",
        "PromoteVersion",
        "RollBack",
    ],
)

ERRORS: Mapping[type[Exception], grpc.StatusCode] = {
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.UnknownVersion: grpc.StatusCode.NOT_FOUND,
    errors.UnknownArtifact: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.StaleEtag: grpc.StatusCode.ABORTED,
    errors.StaleRun: grpc.StatusCode.FAILED_PRECONDITION,
    errors.WrongStage: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SelfApproval: grpc.StatusCode.PERMISSION_DENIED,
    errors.TooBusy: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DamagedArtifact: grpc.StatusCode.DATA_LOSS,
    errors.BookAway: grpc.StatusCode.UNAVAILABLE,
    errors.JudgeAway: grpc.StatusCode.UNAVAILABLE,
}

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")
if TYPE_CHECKING:  # generic in the stubs only
    Context: TypeAlias = grpc.aio.ServicerContext[Asked, Answered]


@dataclass(frozen=True, slots=True)
class Tools:
    """What the use cases work with."""

    book: PostgresBook
    shelf: Shelf
    judge: Judge
    clock: Clock
    rule: GateRule
    limits: Limits
    metrics: Metrics
    # At once: each may hold its files' sizes on disk.
    most_registrations: int


class RegistryApi(RegistryServiceServicer):
    """Answers every call of the contract; errors are mapped by the server's interceptor."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        # Registrations under way: work that is not done.
        self.open_count = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers it with a server that is not started yet."""
        add_RegistryServiceServicer_to_server(self, server)

    async def CreateModel(  # noqa: N802
        self,
        request: pb.CreateModelRequest,
        context: "Context[pb.CreateModelRequest, pb.CreateModelResponse]",
    ) -> pb.CreateModelResponse:
        """ALREADY_EXISTS if the name is taken."""
        autonomy = messages.autonomy(request.autonomy) if request.autonomy else None
        made = await registering.create_model(
            request.model_name,
            autonomy,
            actor=_who(""),
            book=self._tools.book,
            clock=self._tools.clock,
        )
        return pb.CreateModelResponse(model=messages.model(made))

    async def GetModel(  # noqa: N802
        self,
        request: pb.GetModelRequest,
        context: "Context[pb.GetModelRequest, pb.GetModelResponse]",
    ) -> pb.GetModelResponse:
        """NOT_FOUND if there is none."""
        found = await self._tools.book.model(request.model_name)
        return pb.GetModelResponse(model=messages.model(found))

    async def ListModels(  # noqa: N802
        self,
        request: pb.ListModelsRequest,
        context: "Context[pb.ListModelsRequest, pb.ListModelsResponse]",
    ) -> pb.ListModelsResponse:
        """All models by name."""
        found = await self._tools.book.models()
        return pb.ListModelsResponse(models=[messages.model(each) for each in found])

    async def SetAutonomy(  # noqa: N802
        self,
        request: pb.SetAutonomyRequest,
        context: "Context[pb.SetAutonomyRequest, pb.SetAutonomyResponse]",
    ) -> pb.SetAutonomyResponse:
        """ABORTED if the etag is stale."""
        changed = await moving.set_autonomy(
            request.model_name,
            messages.autonomy(request.autonomy),
            request.etag,
            _who(request.actor),
            book=self._tools.book,
        )
        return pb.SetAutonomyResponse(model=messages.model(changed))

    async def SetServing(  # noqa: N802
        self,
        request: pb.SetServingRequest,
        context: "Context[pb.SetServingRequest, pb.SetServingResponse]",
    ) -> pb.SetServingResponse:
        """ABORTED if the etag is stale; INVALID_ARGUMENT where a version does not fit."""
        changed = await sharing.set_serving(
            request.model_name,
            messages.serving(request.serving),
            request.etag,
            actor=_who(request.actor),
            reason=request.reason,
            book=self._tools.book,
            clock=self._tools.clock,
        )
        return pb.SetServingResponse(model=messages.model(changed))

    async def RegisterVersion(  # noqa: N802
        self,
        request_iterator: AsyncIterator[pb.RegisterVersionRequest],
        context: "Context[pb.RegisterVersionRequest, pb.RegisterVersionResponse]",
    ) -> pb.RegisterVersionResponse:
        """Header, model bytes, reference bytes; the gate decides within the call."""
        tools = self._tools
        if self.open_count >= tools.most_registrations:
            raise errors.TooBusy(f"{self.open_count} registrations are under way; try again later")
        self.open_count += 1
        try:
            said = messages.registration(await _header(request_iterator))
            with tools.metrics.registering(said, _traceparent(context)):
                version, is_repeat = await registering.register(
                    said,
                    _parts(request_iterator),
                    book=tools.book,
                    shelf=tools.shelf,
                    judge=tools.judge,
                    clock=tools.clock,
                    rule=tools.rule,
                    limits=tools.limits,
                )
        finally:
            self.open_count -= 1
        if not is_repeat:
            tools.metrics.registered(version.stage)
        return pb.RegisterVersionResponse(version=await self._told(version), is_repeat=is_repeat)

    async def GetVersion(  # noqa: N802
        self,
        request: pb.GetVersionRequest,
        context: "Context[pb.GetVersionRequest, pb.GetVersionResponse]",
    ) -> pb.GetVersionResponse:
        """Version 0 is the champion; NOT_FOUND if there is none."""
        found = await asking.get_version(request.model_name, request.version, book=self._tools.book)
        return pb.GetVersionResponse(version=await self._told(found))

    async def ListVersions(  # noqa: N802
        self,
        request: pb.ListVersionsRequest,
        context: "Context[pb.ListVersionsRequest, pb.ListVersionsResponse]",
    ) -> pb.ListVersionsResponse:
        """The newest versions of a model, oldest first."""
        found = await asking.list_versions(
            request.model_name,
            limit=request.limit,
            before=request.before_version,
            run_id=request.run_id,
            book=self._tools.book,
        )
        return pb.ListVersionsResponse(versions=await self._tell(found))

    async def DownloadArtifact(  # noqa: N802
        self,
        request: pb.DownloadArtifactRequest,
        context: "Context[pb.DownloadArtifactRequest, pb.DownloadArtifactResponse]",
    ) -> AsyncIterator[pb.DownloadArtifactResponse]:
        """In chunks of 1 MiB; NOT_FOUND if there is none of that sha256."""
        async for chunk in self._tools.shelf.read(request.sha256):
            yield pb.DownloadArtifactResponse(chunk=chunk)

    async def ApproveVersion(  # noqa: N802
        self,
        request: pb.ApproveVersionRequest,
        context: "Context[pb.ApproveVersionRequest, pb.ApproveVersionResponse]",
    ) -> pb.ApproveVersionResponse:
        """PERMISSION_DENIED to the author, ABORTED on a stale etag."""
        moved = await moving.approve(
            request.model_name,
            request.version,
            approver=_who(request.approver),
            is_approved=request.is_approved,
            reason=request.reason,
            etag=request.etag,
            book=self._tools.book,
            clock=self._tools.clock,
        )
        return pb.ApproveVersionResponse(version=await self._told(moved))

    async def PromoteVersion(  # noqa: N802
        self,
        request: pb.PromoteVersionRequest,
        context: "Context[pb.PromoteVersionRequest, pb.PromoteVersionResponse]",
    ) -> pb.PromoteVersionResponse:
        """Past the gate; ABORTED on a stale etag, PERMISSION_DENIED to the author under APPROVE."""
        moved = await moving.promote(
            request.model_name,
            request.version,
            etag=request.etag,
            actor=_who(request.actor),
            reason=request.reason,
            book=self._tools.book,
            clock=self._tools.clock,
        )
        return pb.PromoteVersionResponse(version=await self._told(moved))

    async def RollBack(  # noqa: N802
        self,
        request: pb.RollBackRequest,
        context: "Context[pb.RollBackRequest, pb.RollBackResponse]",
    ) -> pb.RollBackResponse:
        """ABORTED on a stale etag, NOT_FOUND if no version served before."""
        moved = await moving.roll_back(
            request.model_name,
            request.version if request.HasField("version") else None,
            etag=request.etag,
            actor=_who(request.actor),
            reason=request.reason,
            book=self._tools.book,
            clock=self._tools.clock,
        )
        return pb.RollBackResponse(version=await self._told(moved))

    async def GetChampionAt(  # noqa: N802
        self,
        request: pb.GetChampionAtRequest,
        context: "Context[pb.GetChampionAtRequest, pb.GetChampionAtResponse]",
    ) -> pb.GetChampionAtResponse:
        """Without a version: none was champion then."""
        at_us = (
            messages.micros(request.at) if request.HasField("at") else self._tools.clock.now_us()
        )
        reign = await asking.champion_at(request.model_name, at_us, book=self._tools.book)
        if reign is None:
            return pb.GetChampionAtResponse()
        since = Timestamp()
        since.FromMicroseconds(reign.since_us)
        return pb.GetChampionAtResponse(version=reign.version, since_at=since)

    async def GetSnapshot(  # noqa: N802
        self,
        request: pb.GetSnapshotRequest,
        context: "Context[pb.GetSnapshotRequest, pb.GetSnapshotResponse]",
    ) -> pb.GetSnapshotResponse:
        """Models, champions and who else answers, of one moment."""
        found = await self._tools.book.snapshot()
        return pb.GetSnapshotResponse(
            models=[messages.model(each) for each in found.models],
            champions=[messages.version(each, ["champion"]) for each in found.champions],
            others=[messages.version(each, []) for each in found.others],
        )

    async def ListAudit(  # noqa: N802
        self,
        request: pb.ListAuditRequest,
        context: "Context[pb.ListAuditRequest, pb.ListAuditResponse]",
    ) -> pb.ListAuditResponse:
        """Of all models where none is named: only that whole can be verified."""
        entries = await self._tools.book.list_audit(
            request.model_name, min(request.after_sequence, 2**63 - 1), request.limit
        )
        return pb.ListAuditResponse(entries=entries)

    async def _told(self, version: Version) -> pb.Version:
        (told,) = await self._tell([version])
        return told

    async def _tell(self, versions: Sequence[Version]) -> list[pb.Version]:
        """Of one model."""
        names = await asking.aliases(versions, book=self._tools.book)
        return [
            messages.version(each, [names[each.version]] if each.version in names else [])
            for each in versions
        ]


def _who(claimed: str) -> str:
    """Where tokens are asked for, a caller is who its token says, not who it claims to be."""
    return caller_name() or claimed


def _traceparent(context: "Context[Asked, Answered]") -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent" and isinstance(value, str):
            return value
    return None


async def _header(requests: AsyncIterator[pb.RegisterVersionRequest]) -> pb.RegisterVersionHeader:
    async for request in requests:
        if request.WhichOneof("part") == "header":
            return request.header
        break
    raise Invalid("the first message must be the header")


async def _parts(
    requests: AsyncIterator[pb.RegisterVersionRequest],
) -> AsyncIterator[tuple[Part, bytes]]:
    async for request in requests:
        kind = request.WhichOneof("part")
        if kind == "model_chunk":
            yield Part.MODEL, request.model_chunk
        elif kind == "reference_chunk":
            yield Part.REFERENCE, request.reference_chunk
        else:
            raise Invalid("after the header only model_chunk and reference_chunk may follow")
