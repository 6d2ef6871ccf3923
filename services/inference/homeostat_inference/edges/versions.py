"""Following the registry: which version is champion, its files, and the copy on our own disk."""

import asyncio
import hashlib
import json
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError

from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.registry.v1.registry_pb2 import (
    DownloadArtifactRequest,
    GetSnapshotRequest,
    GetSnapshotResponse,
    GetVersionRequest,
    Model,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat_inference.domain.errors import NotServed


class RegistryAway(Exception):
    """The registry gave no answer; the version may be had later."""


class DamagedArtifact(Exception):
    """The file is not the one whose sha256 the version names."""


@dataclass(frozen=True, slots=True)
class Champion:
    """Which version serves, by the registry's word of that revision."""

    version: int
    revision: int


class Registry:
    """The registry, as far as inference asks it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = RegistryServiceStub(channel)

    async def snapshot(self) -> GetSnapshotResponse:
        """All models and champions; RegistryAway if it can't be had."""
        try:
            answer: GetSnapshotResponse = await self._stub.GetSnapshot(
                GetSnapshotRequest(), timeout=3.0
            )
        except grpc.aio.AioRpcError as error:
            raise RegistryAway(error.details()) from None
        return answer

    async def version(self, model_name: str, version: int) -> Version:
        """One version; NotServed if the registry does not know it."""
        try:
            answer = await self._stub.GetVersion(
                GetVersionRequest(model_name=model_name, version=version), timeout=5.0
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
                raise NotServed(
                    f"model {model_name[:128]!r} has no version {version}: {error.details()}"
                ) from None
            raise RegistryAway(error.details()) from None
        found: Version = answer.version
        return found

    async def download(self, sha256: str) -> bytes:
        """A file; DamagedArtifact if its hash is another, RegistryAway if it can't be had."""
        content = bytearray()
        try:
            async for part in self._stub.DownloadArtifact(
                DownloadArtifactRequest(sha256=sha256), timeout=60.0
            ):
                content += part.chunk
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                raise DamagedArtifact(f"the registry has no file {sha256}") from None
            raise RegistryAway(error.details()) from None
        return verified(bytes(content), sha256)


def verified(content: bytes, sha256: str) -> bytes:
    """The content; DamagedArtifact if its hash is another."""
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DamagedArtifact(f"{len(content)} bytes do not hash to {sha256}")
    return content


class VersionCache:
    """Versions on our own disk, so that inference starts without the registry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._champions_file = folder / "champions.json"

    def champions(self) -> dict[str, Champion]:
        """What was serving last; nothing if the file is absent or damaged."""
        try:
            stored = json.loads(self._champions_file.read_text())
            return {
                str(name): Champion(int(version), int(revision))
                for name, (version, revision) in stored.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def keep_champions(self, champions: dict[str, Champion]) -> None:
        """Remembers what serves; files of versions that no longer do are removed."""
        stored = {name: [each.version, each.revision] for name, each in champions.items()}
        _write(self._champions_file, json.dumps(stored).encode())
        self._prune({self._path(name, each.version).name for name, each in champions.items()})

    def find(self, model_name: str, version: int) -> tuple[Version, bytes] | None:
        """A version and its model file; None if either is absent or damaged."""
        try:
            found = Version.FromString(self._path(model_name, version).read_bytes())
            return found, verified(self._model(found.model_sha256).read_bytes(), found.model_sha256)
        except (OSError, ValueError, DecodeError, DamagedArtifact):
            return None

    def keep(self, version: Version, model: bytes) -> None:
        """Stores both."""
        self._folder.mkdir(parents=True, exist_ok=True)
        _write(self._model(version.model_sha256), model)
        _write(self._path(version.model_name, version.version), version.SerializeToString())

    def _prune(self, wanted: set[str]) -> None:
        kept: set[str] = set()
        for path in self._folder.glob("*.version"):
            if path.name in wanted:
                with suppress(OSError, ValueError, DecodeError):
                    kept.add(Version.FromString(path.read_bytes()).model_sha256)
            else:
                path.unlink(missing_ok=True)
        for path in self._folder.glob("*.onnx"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def _path(self, model_name: str, version: int) -> Path:
        return self._folder / f"{quote(model_name, safe='')}@{version}.version"

    def _model(self, sha256: str) -> Path:
        # The name comes from outside: it must not leave the folder.
        return self._folder / f"{quote(sha256, safe='')}.onnx"


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        # Without it a loss of power may leave the new name with nothing in it.
        os.fsync(file.fileno())
    fresh.replace(path)


Adopt = Callable[[str, Champion | None], Awaitable[None]]


class Follower:
    """Keeps to the registry's word: from snapshots, and from the topic of changes in between."""

    def __init__(self, registry: Registry, adopt: Adopt, revisions: Mapping[str, int]) -> None:
        """``adopt`` makes a version the one that serves (or none); it raises RegistryAway if that
        must be tried again. ``revisions``: what serves already, by model name."""
        self._registry = registry
        self._adopt = adopt
        self._revisions = dict(revisions)
        self._lock = asyncio.Lock()
        self.has_snapshot = False

    async def poll(self) -> None:
        """Adopts what a snapshot says, as far as it can; RegistryAway if that is not all."""
        snapshot = await self._registry.snapshot()
        away: RegistryAway | None = None
        async with self._lock:
            for model in snapshot.models:
                try:
                    await self._follow(model)
                except RegistryAway as error:
                    away = error
        if away is not None:
            raise away
        self.has_snapshot = True

    async def _follow(self, model: Model) -> None:
        if model.revision < self._revisions.get(model.name, 0):
            return
        champion = None
        if model.HasField("champion_version"):
            champion = Champion(model.champion_version, model.revision)
        await self._adopt(model.name, champion)
        self._revisions[model.name] = model.revision

    async def hear(self, change: VersionChanged) -> None:
        """Adopts what an event says, unless a later one was heard before."""
        async with self._lock:
            if change.revision <= self._revisions.get(change.model_name, 0):
                return
            champion = None
            if change.HasField("champion_version"):
                champion = Champion(change.champion_version, change.revision)
            await self._adopt(change.model_name, champion)
            self._revisions[change.model_name] = change.revision
