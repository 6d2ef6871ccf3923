"""Bringing versions into service: fetch, verify, load, warm, swap, drain."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from homeostat.events.v1.version_activated_pb2 import VersionActivated
from homeostat.registry.v1.registry_pb2 import Version
from homeostat_inference.app.ports import Clock, Journal, Kind
from homeostat_inference.app.serving import Served, Table
from homeostat_inference.domain.blocks import timestamp
from homeostat_inference.domain.errors import InvalidInput, NotServed
from homeostat_inference.domain.schema import schema_of
from homeostat_inference.edges.session import OnnxModel, UnfitModel, warm
from homeostat_inference.edges.versions import (
    Champion,
    DamagedArtifact,
    Registry,
    VersionCache,
)
from homeostat_kit.logs import get_logger

# A version that could not be loaded, or is unknown, is not asked for again at once.
_RETRY_SECONDS = 5.0
_REMEMBERED_FAILURES = 256
_UNFIT = (UnfitModel, InvalidInput, DamagedArtifact, NotServed)
log = get_logger("homeostat_inference.loading")


@dataclass(frozen=True, slots=True)
class Limits:
    """How versions are served."""

    # Runs expected to take longer go to a thread of their own.
    inline_seconds: float
    # What may wait per version.
    queue_rows: int
    queue_bytes: int


@dataclass(slots=True)
class Loader:
    """Puts versions into the table. The champion before goes on serving until the next is warm."""

    table: Table
    registry: Registry
    cache: VersionCache
    journal: Journal
    clock: Clock
    worker_id: str
    limits: Limits
    # Loads under way.
    loading_count: int = 0
    loads_count: int = 0
    failed_loads_count: int = 0
    _champions: dict[str, Champion] = field(default_factory=dict)
    _failed: "OrderedDict[tuple[str, int], tuple[float, str]]" = field(default_factory=OrderedDict)
    _pinning: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start_from_cache(self) -> dict[str, int]:
        """Serves what served last, without registry and broker; returns revisions by model name."""
        for name, champion in self.cache.champions().items():
            found = await asyncio.to_thread(self.cache.find, name, champion.version)
            if found is None:
                log.warning("cached_version_unreadable", model_name=name, version=champion.version)
                continue
            try:
                served = await self._load(*found)
            except _UNFIT as error:
                log.error("cached_version_unfit", model_name=name, reason=str(error))
                continue
            self.table.swap(served)
            self._champions[name] = champion
        return {name: each.revision for name, each in self._champions.items()}

    async def adopt(self, model_name: str, champion: Champion | None) -> None:
        """Makes it the version that serves; RegistryAway if that must be tried again."""
        serving = self.table.champions.get(model_name)
        if champion is None:
            if serving is not None:
                self._stop_serving(model_name)
            return
        if serving is not None and serving.schema.version == champion.version:
            self._champions[model_name] = champion
            return
        if self._failed_lately(model_name, champion.version):
            return
        begun = time.monotonic()
        try:
            served = await self._fetch(model_name, champion.version)
        except _UNFIT as error:
            self._note_failure(model_name, champion, error, time.monotonic() - begun)
            return
        self._swap(served, champion, time.monotonic() - begun)

    async def pin(self, model_name: str, version: int) -> Served:
        """A version that a request names; NotServed if there is none that can be served."""
        async with self._pinning:
            for served in self.table.loaded:
                if (served.schema.model_name, served.schema.version) == (model_name, version):
                    return served
            reason = self._failed_lately(model_name, version)
            if reason:
                raise NotServed(reason)
            try:
                served = await self._fetch(model_name, version)
            except _UNFIT as error:
                self._remember(model_name, version, str(error))
                raise NotServed(str(error)) from error
            evicted = self.table.pin(served)
            if evicted is not None:
                evicted.retire()
            return served

    async def _fetch(self, model_name: str, version: int) -> Served:
        self.loading_count += 1
        try:
            found = await asyncio.to_thread(self.cache.find, model_name, version)
            if found is None:
                described = await self.registry.version(model_name, version)
                found = described, await self.registry.download(described.model_sha256)
            return await self._load(*found)
        finally:
            self.loading_count -= 1

    async def _load(self, version: Version, content: bytes) -> Served:
        return await asyncio.to_thread(self._load_now, version, content)

    def _load_now(self, version: Version, content: bytes) -> Served:
        schema = schema_of(version.model_name, version.version, version.signature)
        model = OnnxModel(content, schema)
        run_seconds = warm(model, schema)
        _unless_disk_fails(lambda: self.cache.keep(version, content))
        self.loads_count += 1
        return Served(
            schema,
            model,
            run_seconds=run_seconds,
            inline_seconds=self.limits.inline_seconds,
            queue_rows=self.limits.queue_rows,
            queue_bytes=self.limits.queue_bytes,
        )

    def _swap(self, served: Served, champion: Champion, seconds: float) -> None:
        name = served.schema.model_name
        before = self.table.swap(served)
        if before is not None:
            before.retire()
        self._champions[name] = champion
        _unless_disk_fails(lambda: self.cache.keep_champions(self._champions))
        log.info(
            "version_activated",
            model_name=name,
            version=champion.version,
            load_seconds=round(seconds, 3),
            single_row_us=round(served.run_seconds(1) * 1e6),
        )
        self._tell(name, champion, seconds, "")

    def _stop_serving(self, model_name: str) -> None:
        before = self.table.drop(model_name)
        if before is not None:
            before.retire()
        self._champions.pop(model_name, None)
        _unless_disk_fails(lambda: self.cache.keep_champions(self._champions))

    def _note_failure(
        self, model_name: str, champion: Champion, error: Exception, seconds: float
    ) -> None:
        self.failed_loads_count += 1
        is_known = (model_name, champion.version) in self._failed
        log.error(
            "version_not_loaded",
            model_name=model_name,
            version=champion.version,
            reason=str(error),
        )
        self._remember(model_name, champion.version, str(error))
        if not is_known:
            self._tell(model_name, champion, seconds, str(error))

    def _tell(self, model_name: str, champion: Champion, seconds: float, error: str) -> None:
        message = VersionActivated(
            model_name=model_name,
            version=champion.version,
            revision=champion.revision,
            worker_id=self.worker_id,
            load_seconds=seconds,
            error=error,
            occurred_at=timestamp(self.clock.now_us()),
        )
        self.journal.append(Kind.ACTIVATION, message.SerializeToString(), must=True)

    def _remember(self, model_name: str, version: int, reason: str) -> None:
        self._failed[model_name, version] = (time.monotonic(), reason)
        while len(self._failed) > _REMEMBERED_FAILURES:
            self._failed.popitem(last=False)

    def _failed_lately(self, model_name: str, version: int) -> str:
        at, reason = self._failed.get((model_name, version), (0.0, ""))
        return reason if reason and time.monotonic() - at < _RETRY_SECONDS else ""


def _unless_disk_fails(write: Callable[[], None]) -> None:
    """The copy on disk is for the next start; this process serves without it."""
    try:
        write()
    except OSError as error:
        log.warning("version_cache_not_written", reason=str(error))
