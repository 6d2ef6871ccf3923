"""What the registry knows of versions: signature and reference, cached on disk by sha256."""

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import grpc

from homeostat.events.v1.column_pb2 import TASK_MULTICLASS, TASK_REGRESSION
from homeostat.registry.v1.registry_pb2 import (
    DownloadArtifactRequest,
    GetVersionRequest,
    Version,
)
from homeostat.schema import fingerprint
from homeostat_kit import logs, memory
from homeostat_kit.postgres import Connection, Pool, retrying
from homeostat_monitor.app.policies import KeptPolicies
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import MonitorError, UnusableReference
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import DEFAULT, Policy
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.intake.blocks import Schema, schema_of
from homeostat_monitor.ports import KnownVersion
from homeostat_monitor.store.transaction import StoreTransaction

if TYPE_CHECKING:
    from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceAsyncStub
    from homeostat_monitor.domain.windows.reference import ReferenceRows

# A profile takes one or two megabytes. Few versions of a model are judged or have truths to come.
_MOST_CACHED = 2048
_MOST_OF_A_MODEL = 8
# Profiles on disk, those used last: a version is calibrated once per process.
_MOST_FILES = 64
# A version that the registry does not know is not asked for again so soon.
_UNKNOWN_SECONDS = 2.0
_MOST_UNKNOWN = 1024
_CALL_SECONDS = 5.0
_UNKNOWN = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
_DOWNLOAD_SECONDS = 60.0
_TASKS = {TASK_MULTICLASS: Task.MULTICLASS, TASK_REGRESSION: Task.REGRESSION}

_log = logs.get_logger("homeostat_monitor.versions")


class RegistryAway(MonitorError, ConnectionError):
    """The registry does not answer; what needs it must wait."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A version with the shape of its blocks; no schema: the registry does not know it."""

    known: KnownVersion
    schema: Schema | None
    policy_revision: int = 0


class Versions:
    """Gives versions, each calibrated once per process."""

    def __init__(
        self,
        pool: Pool,
        registry: "RegistryServiceAsyncStub",
        folder: Path,
        *,
        window_us: int | None = None,
        policies: KeptPolicies | None = None,
    ) -> None:
        """``folder`` holds profiles by sha256; ``window_us`` fixes the windows' length."""
        self._policies = policies
        self._pool = pool
        self._registry = registry
        self._folder = folder
        self._window_us = window_us
        self._cache: OrderedDict[Subject, Watched] = OrderedDict()
        # Until when (monotonic) it is not asked for, oldest first.
        self._unknown: OrderedDict[Subject, float] = OrderedDict()
        # Live as long as somebody holds or awaits them.
        self._turns: WeakValueDictionary[Subject, asyncio.Lock] = WeakValueDictionary()

    async def get(self, subject: Subject) -> Watched:
        """The version; RegistryAway if it is not cached and the registry does not answer.

        One that the registry does not know is asked for again after two seconds.
        """
        policy = await self._policy(subject)
        found = self._cached(subject, policy)
        if found is None:
            turn = self._turns.setdefault(subject, asyncio.Lock())
            async with turn:
                found = self._cached(subject, policy) or await self._load(subject, policy)
                self._keep(subject, found)
        return found

    async def newest(self, subject: Subject) -> Watched:
        """The same under the policy that was set last, for people who have just set it."""
        if self._policies is not None:
            self._policies.forget()
        return await self.get(subject)

    async def _policy(self, subject: Subject) -> Policy:
        if self._policies is None:
            return DEFAULT
        return await self._policies.policy(subject.model_name)

    async def reference(self, subject: Subject) -> "ReferenceRows | None":
        """The rows that the version is compared with; None where it has none. RegistryAway."""
        version = await self._ask(subject)
        if version is None or not version.reference_sha256:
            return None
        data = await self._artifact(version.reference_sha256)
        return await asyncio.to_thread(_rows, data, _schema(version))

    async def fresh(self, subject: Subject, policy: Policy) -> KnownVersion | None:
        """The version under any policy, with detectors of its own: for who judges beside the live
        traffic. None where the registry does not know it; RegistryAway."""
        version = await self._ask(subject)
        return None if version is None else (await self._calibrate(subject, version, policy)).known

    def announced(self, subject: Subject) -> None:
        """The registry knows it by now."""
        self._unknown.pop(subject, None)

    def _cached(self, subject: Subject, policy: Policy) -> Watched | None:
        found = self._cache.get(subject)
        if found is not None and found.policy_revision != policy.revision:
            found = None
        if found is not None:
            self._cache.move_to_end(subject)
        elif self._unknown.get(subject, 0.0) > time.monotonic():
            return _unknown(subject)
        return found

    def _keep(self, subject: Subject, found: Watched) -> None:
        if found.schema is None:
            self._unknown.setdefault(subject, time.monotonic() + _UNKNOWN_SECONDS)
        else:
            self._cache[subject] = found
            of_model = [each for each in self._cache if each.model_name == subject.model_name]
            for each in of_model[:-_MOST_OF_A_MODEL]:
                del self._cache[each]
        while len(self._cache) > _MOST_CACHED:
            self._cache.popitem(last=False)
        while len(self._unknown) > _MOST_UNKNOWN:
            self._unknown.popitem(last=False)

    async def _load(self, subject: Subject, policy: Policy) -> Watched:
        version = await self._ask(subject)
        if version is None:
            self._unknown.pop(subject, None)
            return _unknown(subject)
        watched = await self._calibrate(subject, version, policy)
        await self._note(watched.known)
        return watched

    async def _ask(self, subject: Subject) -> Version | None:
        request = GetVersionRequest(model_name=subject.model_name, version=subject.version)
        try:
            answer = await self._registry.GetVersion(request, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() in _UNKNOWN:
                return None
            raise RegistryAway(f"the registry does not answer: {error.code().name}") from error
        version: Version = answer.version
        return version

    async def _calibrate(self, subject: Subject, version: Version, policy: Policy) -> Watched:
        signature = version.signature
        schema = _schema(version)
        profile: VersionProfile | None = None
        remarks: tuple[str, ...] = ()
        if not version.reference_sha256:
            remarks = ("the version has no reference profile: its inputs are not judged",)
        else:
            try:
                data = await self._artifact(version.reference_sha256)
                profile = await asyncio.to_thread(_profile, data, schema, self._window_us, policy)
                remarks = profile.remarks
            except UnusableReference as error:
                remarks = (f"inputs are not judged: {error}",)
        _log.info(
            "version_known",
            model_name=subject.model_name,
            version=subject.version,
            window_seconds=profile.length_us / 1e6 if profile else None,
            mode=profile.mode if profile else None,
            remarks=list(remarks),
        )
        task = _TASKS.get(signature.task, Task.BINARY)
        known = KnownVersion(subject, task, profile, remarks, policy)
        return Watched(known, schema, policy.revision)

    async def _artifact(self, sha256: str) -> bytes:
        path = self._folder / sha256
        data = await asyncio.to_thread(_read_verified, path, sha256)
        if data is None:
            data = await self._download(sha256)
            await asyncio.to_thread(_write, path, data)
        return data

    async def _download(self, sha256: str) -> bytes:
        try:
            stream = self._registry.DownloadArtifact(
                DownloadArtifactRequest(sha256=sha256), timeout=_DOWNLOAD_SECONDS
            )
            data = b"".join([each.chunk async for each in stream])
        except grpc.aio.AioRpcError as error:
            if error.code() in _UNKNOWN:
                raise UnusableReference("the registry has no such reference profile") from error
            raise RegistryAway(f"no reference profile: {error.code().name}") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise UnusableReference("the reference profile came with another sha256")
        return data

    async def _note(self, known: KnownVersion) -> None:
        async def work(connection: Connection) -> None:
            tx = StoreTransaction(connection)
            await tx.add_models([known.subject.model_name])
            await tx.standing(known.subject)
            await tx.remark(known.subject, known.remarks)

        await retrying(self._pool, work)


def _unknown(subject: Subject) -> Watched:
    return Watched(KnownVersion(subject, Task.BINARY, None), None)


def _schema(version: Version) -> Schema:
    inputs = version.signature.inputs
    return schema_of(
        fingerprint(inputs), [(each.name, each.datatype, list(each.shape)) for each in inputs]
    )


def _rows(data: bytes, schema: Schema) -> "ReferenceRows":
    # The Parquet reader takes a while to import: not at start.
    from homeostat_monitor.references import reference_rows  # noqa: PLC0415

    return reference_rows(data, schema)


def _profile(data: bytes, schema: Schema, window_us: int | None, policy: Policy) -> VersionProfile:
    # scipy and the Parquet reader take a second to import: not at start.
    from homeostat_monitor.domain.calibration import profile_of  # noqa: PLC0415
    from homeostat_monitor.references import reference_rows  # noqa: PLC0415

    try:
        return profile_of(reference_rows(data, schema), length_us=window_us, policy=policy)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # A column of another kind than its name promises.
        raise UnusableReference(f"the reference profile cannot be used: {error}") from error
    finally:
        memory.give_back()


def _read_verified(path: Path, sha256: str) -> bytes | None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(data).hexdigest() != sha256:
        return None
    os.utime(path)
    return data


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
    _trim(path.parent)


def _trim(folder: Path) -> None:
    """Keeps the files used last; the others can be had again."""
    files = [each for each in folder.iterdir() if each.is_file()]
    files.sort(key=lambda each: each.stat().st_mtime_ns, reverse=True)
    for each in files[_MOST_FILES:]:
        each.unlink(missing_ok=True)
