"""A stand-in for the registry, in a thread: what inference asks it, from memory."""

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from homeostat.events.v1.serving_pb2 import Serving
from homeostat.events.v1.version_changed_pb2 import (
    VERSION_CHANGE_PROMOTED,
    VERSION_CHANGE_SERVING,
    VersionChanged,
)
from homeostat.registry.v1.registry_pb2 import (
    DownloadArtifactResponse,
    GetSnapshotResponse,
    GetVersionResponse,
    Model,
    Signature,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import (
    RegistryServiceServicer,
    add_RegistryServiceServicer_to_server,
)
from homeostat.topics import VERSIONS
from homeostat_kit.kafka import Bus

_CHUNK_BYTES = 1 << 20
_TELL_SECONDS = 20


@dataclass(slots=True)
class Registry(RegistryServiceServicer):
    """Models, versions, and who serves; changes are told on the topic by ``tell``."""

    loop: asyncio.AbstractEventLoop
    address: str = ""
    models: dict[str, Model] = field(default_factory=dict)
    versions: dict[tuple[str, int], Version] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    bus: Bus | None = None

    def add(self, name: str, version: int, content: bytes, signature: Signature) -> None:
        """A registered version; nobody serves it yet."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.artifacts[sha256] = content
        self.versions[name, version] = Version(
            model_name=name,
            version=version,
            model_sha256=sha256,
            model_bytes=len(content),
            signature=signature,
        )

    def promote(self, name: str, version: int) -> VersionChanged:
        """Makes it the champion; the event that says so."""
        before = self.models.get(name, Model(name=name))
        after = Model()
        after.CopyFrom(before)
        after.champion_version = version
        after.revision += 1
        self.models[name] = after
        return VersionChanged(
            model_name=name,
            version=version,
            change=VERSION_CHANGE_PROMOTED,
            revision=after.revision,
            champion_version=version,
            previous_champion_version=before.champion_version,
            model_sha256=self.versions[name, version].model_sha256,
            serving=after.serving,
        )

    def set_serving(self, name: str, serving: Serving) -> VersionChanged:
        """Shadows, canary and the rest of a model; the event that says so."""
        model = self.models[name]
        model.serving.CopyFrom(serving)
        model.revision += 1
        return VersionChanged(
            model_name=name,
            version=model.champion_version,
            change=VERSION_CHANGE_SERVING,
            revision=model.revision,
            champion_version=model.champion_version,
            serving=serving,
        )

    def tell(self, broker: str, *changes: VersionChanged) -> None:
        """Puts changes on the topic."""
        telling = asyncio.run_coroutine_threadsafe(self._tell(broker, changes), self.loop)
        telling.result(_TELL_SECONDS)

    async def _tell(self, broker: str, changes: tuple[VersionChanged, ...]) -> None:
        if self.bus is None:
            self.bus = await Bus(broker, client_id="registry").__aenter__()
            await self.bus.ensure_topics((VERSIONS,))
        for each in changes:
            await self.bus.produce(VERSIONS, each.model_name.encode(), each.SerializeToString())

    async def leave(self) -> None:
        """Closes what ``tell`` opened."""
        if self.bus is not None:
            await self.bus.__aexit__(None, None, None)

    async def GetSnapshot(self, request: Any, context: Any) -> GetSnapshotResponse:  # noqa: N802
        champions, others = [], []
        for model in self.models.values():
            champions.append(self.versions[model.name, model.champion_version])
            others += [self.versions[model.name, each] for each in model.serving.shadow_versions]
        return GetSnapshotResponse(
            models=list(self.models.values()), champions=champions, others=others
        )

    async def GetVersion(self, request: Any, context: Any) -> GetVersionResponse:  # noqa: N802
        found = self.versions.get((request.model_name, request.version))
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        return GetVersionResponse(version=found)

    async def DownloadArtifact(self, request: Any, context: Any) -> Any:  # noqa: N802
        content = self.artifacts[request.sha256]
        for first in range(0, len(content), _CHUNK_BYTES):
            yield DownloadArtifactResponse(chunk=content[first : first + _CHUNK_BYTES])


@contextmanager
def a_registry() -> Iterator[Registry]:
    """Serves while the block runs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="registry", daemon=True)
    thread.start()
    registry = Registry(loop)  # type: ignore[abstract] # what it lacks nobody here calls
    server = asyncio.run_coroutine_threadsafe(_serve(registry), loop).result(10)
    try:
        yield registry
    finally:
        asyncio.run_coroutine_threadsafe(registry.leave(), loop).result(10)
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


async def _serve(registry: Registry) -> grpc.aio.Server:
    server = grpc.aio.server()
    add_RegistryServiceServicer_to_server(registry, server)
    registry.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    return server
