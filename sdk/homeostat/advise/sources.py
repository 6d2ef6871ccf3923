"""The champion from the registry, rows from the ledger."""

import hashlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
import pyarrow as pa
import pyarrow.parquet as pq

from homeostat import reference
from homeostat.advise.subject import CannotAdvise, Rows, Subject, rows_of
from homeostat.ledger.v1.ledger_pb2 import CutDataSetRequest
from homeostat.registry.v1.registry_pb2 import (
    DownloadArtifactRequest,
    GetModelRequest,
    GetVersionRequest,
    Model,
    Version,
)

if TYPE_CHECKING:  # exist in the stubs only
    from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceAsyncStub
    from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub

_SECONDS = 30.0
_DOWNLOAD_SECONDS = 600.0
_ALL_TRUTH_US = 2**62


@dataclass(frozen=True, slots=True)
class Champion:
    """Who serves, with its files."""

    model: Model
    version: Version
    subject: Subject
    # Its reference profile; empty where it has none.
    profile: bytes


async def champion_of(registry: "RegistryServiceAsyncStub", model_name: str) -> Champion:
    """With its files; CannotAdvise where no version serves or a file arrives damaged."""
    answer = await registry.GetModel(GetModelRequest(model_name=model_name), timeout=_SECONDS)
    model = answer.model
    if not model.HasField("champion_version"):
        raise CannotAdvise(
            f"no version of {model_name} serves; promote one first: homeostat versions {model_name}"
        )
    version = (
        await registry.GetVersion(
            GetVersionRequest(model_name=model_name, version=model.champion_version),
            timeout=_SECONDS,
        )
    ).version
    content = await _artifact(registry, version.model_sha256)
    profile = await _artifact(registry, version.reference_sha256)
    subject = Subject(model_name, version.version, content, version.signature)
    return Champion(model, version, subject, profile)


async def _artifact(registry: "RegistryServiceAsyncStub", sha256: str) -> bytes:
    if not sha256:
        return b""
    content = b"".join(
        [
            each.chunk
            async for each in registry.DownloadArtifact(
                DownloadArtifactRequest(sha256=sha256), timeout=_DOWNLOAD_SECONDS
            )
        ]
    )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CannotAdvise(f"the file {sha256[:12]} arrived damaged; try again")
    return content


async def rows_for(ledger: "LedgerServiceAsyncStub", champion: Champion, newest_rows: int) -> Rows:
    """The newest rows whose truth the ledger knows; where it knows none, those of the version's
    reference profile. CannotAdvise where there are neither."""
    name = champion.subject.model_name
    table = await _cut(ledger, name, newest_rows)
    source = f"the ledger's newest rows of {name}"
    if table is None or not table.num_rows:
        if not champion.profile:
            raise CannotAdvise(
                f"the ledger has no rows of {name} with a truth and version "
                f"{champion.version.version} has no reference profile; send predictions and their "
                "truth first"
            )
        table = reference.read(champion.profile)
        table = table.slice(max(0, table.num_rows - newest_rows))
        source = f"the reference profile of {name} version {champion.version.version}"
    return rows_of(table, champion.subject.signature, source)


async def _cut(
    ledger: "LedgerServiceAsyncStub", model_name: str, newest_rows: int
) -> pa.Table | None:
    request = CutDataSetRequest(
        model_name=model_name, known_at_most_us=_ALL_TRUTH_US, newest_rows=newest_rows
    )
    chunks: list[bytes] = []
    try:
        async for answer in ledger.CutDataSet(request, timeout=_DOWNLOAD_SECONDS):
            if not answer.HasField("header"):
                chunks.append(answer.chunk)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION):
            return None
        raise
    return pq.read_table(io.BytesIO(b"".join(chunks))) if chunks else None
