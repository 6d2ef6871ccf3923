"""Following the registry: which version is champion, its files, and the copy on our own disk."""

import hashlib
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError

from homeostat.registry.v1.registry_pb2 import (
    DownloadArtifactRequest,
    GetSnapshotRequest,
    GetSnapshotResponse,
    GetVersionRequest,
    Version,
)
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat_inference.domain.errors import NotServed


class RegistryAway(Exception):
    """The registry gave no answer; the version may be had later."""


class DamagedArtifact(Exception):
    """The file is not the one whose sha256 the version names."""


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
        self._writing = threading.Lock()

    def find(self, model_name: str, version: int) -> tuple[Version, bytes] | None:
        """A version and its model file; None if either is absent or damaged."""
        try:
            found = Version.FromString(self._path(model_name, version).read_bytes())
            return found, verified(self._model(found.model_sha256).read_bytes(), found.model_sha256)
        except (OSError, ValueError, DecodeError, DamagedArtifact):
            return None

    def has(self, model_name: str, version: int) -> bool:
        """Whether both files are there, whatever is in them."""
        found = self.described(model_name, version)
        return found is not None and self._model(found.model_sha256).exists()

    def described(self, model_name: str, version: int) -> Version | None:
        """A version without its model file; None if that is absent or damaged."""
        try:
            return Version.FromString(self._path(model_name, version).read_bytes())
        except (OSError, ValueError, DecodeError):
            return None

    def clean(self) -> None:
        """Removes what a process left that ended while it wrote."""
        with self._writing:
            for path in (*self._folder.glob("*.onnx.new"), *self._folder.glob("*.version.new")):
                path.unlink(missing_ok=True)

    def prune(self, wanted: Iterable[tuple[str, int]]) -> None:
        """Removes the files of all other versions."""
        with self._writing:
            self._prune({self._path(*each).name for each in wanted})

    def keep(self, version: Version, model: bytes) -> None:
        """Stores both."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(version.model_name, version.version)
        # In between, a model's file is nobody's.
        with self._writing:
            write_whole(self._model(version.model_sha256), model)
            write_whole(path, version.SerializeToString())

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


def write_whole(path: Path, content: bytes) -> None:
    """All of it, durably, or nothing; OSError if the disk does not take it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        # Without it a loss of power may leave the new name with nothing in it.
        os.fsync(file.fileno())
    fresh.replace(path)
