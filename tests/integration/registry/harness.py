"""A registry under test: the service itself, a broker, a database, and what a test says to it."""

import hashlib
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from tests.support import onnx_models
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat.registry.v1 import registry_pb2 as pb
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub

CHUNK_BYTES = 1024 * 1024
REFERENCE = b"PAR1 a profile that nobody reads here PAR1"
# Known-at times of the tests' evidence, microseconds.
TRAINED_TO_US = 1_000_000_000_000_000
HOLDOUT_FROM_US = TRAINED_TO_US + 1
HOLDOUT_TO_US = TRAINED_TO_US + 1_000_000

_weights = itertools.count(1)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def new_file() -> bytes:
    """A good model file that no test has used."""
    return onnx_models.classifier(next(_weights) / 1000)


@dataclass(slots=True)
class RegistryProcess:
    """The service as a process that can be killed and started again on the same data."""

    broker_address: str
    database_url: str
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.folder / "registry.log"

    def start(self) -> None:
        environment = {
            "HOMEOSTAT_REGISTRY_KAFKA_BOOTSTRAP_SERVERS": self.broker_address,
            "HOMEOSTAT_REGISTRY_DATABASE_URL": self.database_url,
            "HOMEOSTAT_REGISTRY_GRPC_ADDRESS": f"127.0.0.1:{self.port}",
            "HOMEOSTAT_REGISTRY_DATA_FOLDER": str(self.folder),
            "HOMEOSTAT_REGISTRY_ADMISSION_WALL_SECONDS": "6",
            **self.settings,
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "homeostat_registry"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(12)


class Registry:
    """One test's connection, with builders that have sane defaults."""

    def __init__(self, of: RegistryProcess) -> None:
        self.of = of
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{of.port}",
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 200),
                ("grpc.max_receive_message_length", 64 * 1024 * 1024),
            ],
        )
        self.api: Any = RegistryServiceStub(self.channel)

    async def wait_ready(self) -> None:
        await eventually(self._is_serving, what="the registry serves")

    async def _is_serving(self) -> bool:
        assert self.of.process is not None
        assert self.of.process.poll() is None, self.of.log.read_text()[-3000:]
        try:
            await self.api.ListModels(pb.ListModelsRequest(), timeout=5)
        except grpc.aio.AioRpcError:
            return False
        return True

    async def a_model(self, name: str, autonomy: int = pb.AUTONOMY_AUTO) -> pb.Model:
        answer = await self.api.CreateModel(
            pb.CreateModelRequest(model_name=name, autonomy=autonomy), timeout=10
        )
        return answer.model

    async def model(self, name: str) -> pb.Model:
        return (await self.api.GetModel(pb.GetModelRequest(model_name=name), timeout=10)).model

    async def version(self, name: str, version: int = 0) -> pb.Version:
        request = pb.GetVersionRequest(model_name=name, version=version)
        return (await self.api.GetVersion(request, timeout=10)).version

    async def versions(self, name: str) -> list[pb.Version]:
        request = pb.ListVersionsRequest(model_name=name)
        return list((await self.api.ListVersions(request, timeout=10)).versions)

    async def register(
        self, header: pb.RegisterVersionHeader, model: bytes, reference: bytes = REFERENCE
    ) -> pb.RegisterVersionResponse:
        return await self.api.RegisterVersion(upload(header, model, reference), timeout=60)

    async def push(self, name: str, model: bytes | None = None, **more: Any) -> pb.Version:
        """By hand, with a file of its own."""
        content = model or new_file()
        return (await self.register(header(name, content, **more), content)).version

    async def evidence(self, name: str, content: bytes, **more: Any) -> pb.Evidence:
        """That proves ``content`` better than the present champion."""
        model, champion = await self.model(name), await self.version(name)
        said = pb.Evidence(
            candidate_sha256=sha256(content),
            champion_sha256=champion.model_sha256,
            champion_version=champion.version,
            champion_etag=model.etag,
            holdout_sha256=sha256(b"hold-out"),
            holdout_rows=2_000,
            holdout_from_us=HOLDOUT_FROM_US,
            holdout_to_us=HOLDOUT_TO_US,
            mean_gain=0.05,
            gain_deviation=0.5,
            candidate_count=3,
            candidate_loss=0.40,
            champion_loss=0.45,
        )
        for field_name, changed in more.items():
            setattr(said, field_name, changed)
        return said

    async def propose(
        self, name: str, run_id: str, *, token: int = 1, content: bytes | None = None, **more: Any
    ) -> pb.RegisterVersionResponse:
        """As the retrainer does; ``more`` changes the evidence."""
        content = content or new_file()
        said = header(name, content, author="retrainer", run_id=run_id, fencing_token=token)
        said.evidence.CopyFrom(await self.evidence(name, content, **more))
        return await self.register(said, content)

    async def audit(self) -> list[pb.AuditEntry]:
        entries: list[pb.AuditEntry] = []
        while True:
            request = pb.ListAuditRequest(after_sequence=len(entries), limit=500)
            page = (await self.api.ListAudit(request, timeout=10)).entries
            if not page:
                return entries
            entries.extend(page)


def header(
    name: str,
    content: bytes,
    *,
    author: str = "ann",
    run_id: str = "",
    fencing_token: int = 0,
    reference: bytes = REFERENCE,
    signature: pb.Signature | None = None,
    occurred_at_us: int | None = None,
) -> pb.RegisterVersionHeader:
    said = pb.RegisterVersionHeader(
        model_name=name,
        signature=signature or onnx_models.signature(),
        lineage=pb.Lineage(recipe="none", trained_to_us=TRAINED_TO_US, run_id=run_id, cause="test"),
        model_sha256=sha256(content),
        model_bytes=len(content),
        reference_sha256=sha256(reference),
        reference_bytes=len(reference),
        author=author,
        fencing_token=fencing_token,
    )
    if occurred_at_us is not None:
        said.occurred_at.FromMicroseconds(occurred_at_us)
    return said


def upload(
    said: pb.RegisterVersionHeader, model: bytes, reference: bytes = REFERENCE
) -> Iterator[pb.RegisterVersionRequest]:
    yield pb.RegisterVersionRequest(header=said)
    for start in range(0, len(model), CHUNK_BYTES):
        yield pb.RegisterVersionRequest(model_chunk=model[start : start + CHUNK_BYTES])
    for start in range(0, len(reference), CHUNK_BYTES):
        yield pb.RegisterVersionRequest(reference_chunk=reference[start : start + CHUNK_BYTES])
