"""Registry and ledger over gRPC."""

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.timestamp_pb2 import Timestamp

from homeostat import reference
from homeostat.ledger.v1.ledger_pb2 import CutDataSetRequest
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.registry.v1 import registry_pb2 as pb
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat_kit.telemetry import traceparent
from homeostat_retrainer.app.ports import Champion, DataSet, Proposal, Registered
from homeostat_retrainer.domain.errors import (
    CannotRun,
    PeerAway,
    PeerRefused,
    RetrainerError,
    UnknownToPeer,
)
from homeostat_retrainer.domain.runs import Outcome

if TYPE_CHECKING:  # exist in the stubs only
    from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceAsyncStub
    from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

_CHUNK_BYTES = 1024 * 1024
# A first version's history may be longer than what detectors and windows should span.
_LONGEST_REFERENCE_ROWS = 100_000
_SHORTEST_REFERENCE_ROWS = 1_000
_AUTHOR = "retrainer"

_AWAY = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNKNOWN,
        # An error that the peer has no word for: mostly its database, and that passes.
        grpc.StatusCode.INTERNAL,
        # Somebody else changed the model meanwhile.
        grpc.StatusCode.ABORTED,
    }
)
_OUTCOMES = {
    pb.STAGE_CHAMPION: Outcome.PROMOTED,
    # It was champion until something came after it.
    pb.STAGE_RETIRED: Outcome.PROMOTED,
    pb.STAGE_REJECTED: Outcome.REJECTED,
    pb.STAGE_AWAITS_APPROVAL: Outcome.AWAITS_APPROVAL,
    # The model's autonomy lets the gate record and recommend only.
    pb.STAGE_REGISTERED: Outcome.AWAITS_APPROVAL,
}


class RegistryClient:
    """The registry, as runs and ears need it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: RegistryServiceAsyncStub = RegistryServiceStub(channel)

    async def reference_rows(self, model_name: str, version: int) -> int | None:
        """W that a version brought by a person sets; None where a run made the version."""
        found = await self._version(model_name, version)
        if found.lineage.run_id:
            return None
        rows = found.lineage.training_rows
        return max(_SHORTEST_REFERENCE_ROWS, min(_LONGEST_REFERENCE_ROWS, rows))

    async def champion(self, model_name: str) -> Champion:
        """The version that serves, with its artifact and the etag read before it."""
        with translated("registry"):
            answer = await self._stub.GetModel(pb.GetModelRequest(model_name=model_name))
        if not answer.model.HasField("champion_version"):
            raise CannotRun(f"no version of {model_name} serves")
        version = await self._version(model_name, answer.model.champion_version)
        return Champion(
            version.version,
            _etag(answer.model),
            version.model_sha256,
            await self._artifact(version.model_sha256),
            version.signature,
            version.lineage,
        )

    async def etag(self, model_name: str) -> str:
        """The model's etag for comparisons now."""
        with translated("registry"):
            answer = await self._stub.GetModel(pb.GetModelRequest(model_name=model_name))
        return _etag(answer.model)

    async def registered(self, model_name: str, run_id: str) -> Registered | None:
        """What that run registered already."""
        with translated("registry"):
            answer = await self._stub.ListVersions(
                pb.ListVersionsRequest(model_name=model_name, run_id=run_id)
            )
        return _registered(answer.versions[0]) if answer.versions else None

    async def register(self, proposal: Proposal) -> Registered:
        """Header, model, reference; the gate decides within the call."""
        parent = traceparent()
        with translated("registry"):
            answer = await self._stub.RegisterVersion(
                _registration(proposal), metadata=[("traceparent", parent)] if parent else None
            )
        return _registered(answer.version)

    async def _version(self, model_name: str, version: int) -> pb.Version:
        with translated("registry"):
            answer = await self._stub.GetVersion(
                pb.GetVersionRequest(model_name=model_name, version=version)
            )
        return answer.version

    async def _artifact(self, sha256: str) -> bytes:
        with translated("registry"):
            chunks = [
                each.chunk
                async for each in self._stub.DownloadArtifact(
                    pb.DownloadArtifactRequest(sha256=sha256)
                )
            ]
        content = b"".join(chunks)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise PeerAway(f"the artifact {sha256} arrived damaged")
        return content


class LedgerClient:
    """The ledger, as runs need it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: LedgerServiceAsyncStub = LedgerServiceStub(channel)

    async def cut(self, model_name: str, known_at_most_us: int, newest_rows: int) -> DataSet:
        """The newest rows whose truth was known by then."""
        request = CutDataSetRequest(
            model_name=model_name, known_at_most_us=known_at_most_us, newest_rows=newest_rows
        )
        sha256, chunks = "", []
        with translated("ledger"):
            async for answer in self._stub.CutDataSet(request):
                if answer.HasField("header"):
                    sha256 = answer.header.content_sha256
                else:
                    chunks.append(answer.chunk)
        table = pq.read_table(pa.BufferReader(b"".join(chunks))) if chunks else pa.table({})
        if not table.num_rows:
            raise CannotRun(f"the ledger has no truth for {model_name} by then")
        return DataSet(_in_order(table), sha256)


def _in_order(table: pa.Table) -> pa.Table:
    """As the contract promises already; splitting rests on it, so it is made sure."""
    known_at = table[reference.KNOWN_AT].to_numpy()
    if (known_at[1:] >= known_at[:-1]).all():
        return table
    keys = [(reference.KNOWN_AT, "ascending"), (reference.EVENT_TIME, "ascending")]
    return table.sort_by(keys)


def _etag(model: pb.Model) -> str:
    """Traffic shared out anew during a run does not stale it; registries of old know one etag."""
    return model.comparison_etag or model.etag


def _registered(version: pb.Version) -> Registered:
    outcome = _OUTCOMES.get(version.stage, Outcome.FAILED)
    return Registered(
        version.version, outcome, list(version.reasons), version.evidence, version.lineage
    )


async def _registration(proposal: Proposal) -> AsyncIterator[pb.RegisterVersionRequest]:
    occurred_at = Timestamp()
    occurred_at.FromMicroseconds(proposal.occurred_at_us)
    yield pb.RegisterVersionRequest(
        header=pb.RegisterVersionHeader(
            model_name=proposal.model_name,
            signature=proposal.signature,
            lineage=proposal.lineage,
            evidence=proposal.evidence,
            model_sha256=hashlib.sha256(proposal.model).hexdigest(),
            model_bytes=len(proposal.model),
            reference_sha256=hashlib.sha256(proposal.reference).hexdigest(),
            reference_bytes=len(proposal.reference),
            author=_AUTHOR,
            fencing_token=proposal.fencing_token,
            occurred_at=occurred_at,
        )
    )
    for chunk in _chunks(proposal.model):
        yield pb.RegisterVersionRequest(model_chunk=chunk)
    for chunk in _chunks(proposal.reference):
        yield pb.RegisterVersionRequest(reference_chunk=chunk)


def _chunks(content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), _CHUNK_BYTES):
        yield content[start : start + _CHUNK_BYTES]


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """Turns the errors of gRPC into PeerAway or PeerRefused."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        text = f"the {peer} says {error.code().name}: {error.details()}"
        raise _meaning(error.code())(text) from error


def _meaning(code: grpc.StatusCode) -> type[RetrainerError]:
    if code is grpc.StatusCode.NOT_FOUND:
        return UnknownToPeer
    return PeerAway if code in _AWAY else PeerRefused
