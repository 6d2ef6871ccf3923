"""Artifacts on disk by sha256: written aside, synced, checked, and only then given their name."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from homeostat_registry.domain.errors import BadArtifact, DamagedArtifact, UnknownArtifact
from homeostat_registry.domain.facts import Artifact, require_sha256

_READ_BYTES = 1024 * 1024


class DiskIntake:
    """The port ``Intake``: one file in the making."""

    def __init__(self, file: BinaryIO, path: Path, final: Path, artifact: Artifact) -> None:
        self.path = path
        self._file = file
        self._final = final
        self._artifact = artifact
        self._received = 0
        self._digest = hashlib.sha256()

    async def write(self, chunk: bytes) -> None:
        """Appends; BadArtifact beyond the size that was announced."""
        self._received += len(chunk)
        if self._received > self._artifact.size_bytes:
            raise BadArtifact(
                f"more than the {self._artifact.size_bytes} bytes that the header says were sent; "
                "set model_bytes and reference_bytes to the files' sizes"
            )
        await asyncio.to_thread(self._append, chunk)

    def _append(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self._file.write(chunk)

    async def seal(self) -> None:
        """Syncs it to disk; BadArtifact if size or sha256 is not what was announced."""
        if self._received != self._artifact.size_bytes:
            raise BadArtifact(
                f"{self._received} bytes came where the header says {self._artifact.size_bytes}: "
                "the upload was cut; send it again"
            )
        if self._digest.hexdigest() != self._artifact.sha256:
            raise BadArtifact(
                f"the bytes' sha256 is {self._digest.hexdigest()}, the header says "
                f"{self._artifact.sha256}; hash the very file that is sent"
            )
        await asyncio.to_thread(self._sync)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    async def keep(self) -> None:
        """Makes it an artifact."""
        await asyncio.to_thread(self._rename)

    def _rename(self) -> None:
        _make_folder(self._final.parent)
        self.path.chmod(0o444)
        self.path.replace(self._final)
        _sync_folder(self._final.parent)


class DiskShelf:
    """The port ``Shelf`` in one folder: ``<sha256[:2]>/<sha256>``, and ``incoming`` for uploads."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder and clears away what a crash left in ``incoming``."""
        self._folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        for left in self._incoming.iterdir():
            left.unlink()

    @asynccontextmanager
    async def intake(self, artifact: Artifact) -> AsyncIterator[DiskIntake]:
        """An upload, thrown away at the end unless it was kept."""
        final = self._path(artifact.sha256)
        descriptor, name = tempfile.mkstemp(dir=self._incoming)
        path = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield DiskIntake(file, path, final, artifact)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def read(self, sha256: str) -> AsyncIterator[bytes]:
        """The artifact in chunks of 1 MiB; UnknownArtifact, and DamagedArtifact at its end."""
        try:
            file = await asyncio.to_thread(self._path(sha256).open, "rb")
        except FileNotFoundError:
            raise UnknownArtifact(f"no artifact with sha256 {sha256}") from None
        digest = hashlib.sha256()
        with file:
            while chunk := await asyncio.to_thread(file.read, _READ_BYTES):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != sha256:
            raise DamagedArtifact(f"the artifact {sha256} is damaged on disk; restore it")

    def _path(self, sha256: str) -> Path:
        require_sha256(sha256, "sha256")
        return self._folder / sha256[:2] / sha256


def _make_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
