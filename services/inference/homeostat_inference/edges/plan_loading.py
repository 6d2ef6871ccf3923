"""Bringing a worker's table to what the plan says: load, warm, swap, drain."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeostat.registry.v1.registry_pb2 import Version
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.ports import Model
from homeostat_inference.app.serving import Served, Table
from homeostat_inference.domain.errors import InvalidInput
from homeostat_inference.domain.schema import Schema, schema_of
from homeostat_inference.domain.tensors import Array
from homeostat_inference.edges.board_runs import BoardRuns
from homeostat_inference.edges.control import Applied, Dropped, Failed, Loaded, Message
from homeostat_inference.edges.session import OnnxModel, UnfitModel, warm
from homeostat_inference.edges.versions import VersionCache
from homeostat_kit.logs import get_logger

# A version that could not be loaded is not tried again at once.
_RETRY_SECONDS = 5.0
_LOAD_SECONDS = 60.0
_WARM_SECONDS = 5.0
Key = tuple[str, int]
log = get_logger("homeostat_inference.loading")


class NotHere(Exception):
    """The version's file is not in the cache, or is damaged."""


_UNFIT = (UnfitModel, InvalidInput, NotHere)


@dataclass(frozen=True, slots=True)
class Limits:
    """How versions are served."""

    # Runs expected to take longer go to a thread of their own.
    inline_seconds: float
    # What may wait per version.
    queue_rows: int
    queue_bytes: int


@dataclass(slots=True)
class PlanLoader:
    """Reconciles the table with one plan after the other. Who serves goes on serving until whoever
    is to take over is warm."""

    table: Table
    cache: VersionCache
    limits: Limits
    tell: Callable[[Message], None]
    # None as long as the board is another worker's.
    watch: BoardRuns | None = None
    plan: ServingPlan = field(default_factory=ServingPlan)
    loads_count: int = 0
    # Whether every version of the last plan is loaded, or can't be.
    is_complete: bool = False
    _loaded: dict[Key, Served] = field(default_factory=dict)
    # Since when, and why.
    _failed: dict[Key, tuple[float, str]] = field(default_factory=dict)
    _newer: ServingPlan | None = None
    _came: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, plan: ServingPlan) -> None:
        """To be served as soon as may be; of several plans only the newest matters."""
        if plan.number >= max(self.plan.number, self._newer.number if self._newer else 0):
            self._newer = plan
            self.is_complete = False
            self._came.set()

    def is_loaded(self, key: Key) -> bool:
        """Whether requests that name it are answered."""
        return key in self._loaded

    def failure(self, key: Key) -> str:
        """Why it can't be loaded; empty if it can, or nobody knows."""
        at, reason = self._failed.get(key, (0.0, ""))
        return reason if at and time.monotonic() - at < _RETRY_SECONDS else ""

    async def run(self) -> None:
        """Follows what `take` was given, until it is cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            await self.reconcile()

    async def reconcile(self) -> None:
        """Serves the newest plan as far as it can be."""
        while self._newer is not None:
            self.plan, self._newer = self._newer, None
            self.is_complete = False
            wanted = _wanted(self.plan)
            self._apply()
            for key in wanted:
                if self._newer is not None:
                    break
                await self._load_once(key)
        self.is_complete = True
        self._apply()
        self.tell(Applied(self.plan.number, is_complete=True))

    def _apply(self) -> None:
        failed = {key: reason for key, (_, reason) in self._failed.items()}
        self.table.apply(self.plan, self._loaded, failed)
        reachable = {(e.schema.model_name, e.schema.version) for e in self.table.loaded}
        needed = {*_wanted(self.plan), *reachable}
        for key in [each for each in self._loaded if each not in needed]:
            # It still answers what waits, and lives until then.
            del self._loaded[key]
            self.tell(Dropped(*key))

    async def _load_once(self, key: Key) -> None:
        if key in self._loaded:
            return
        failure = self.failure(key)
        if failure:
            # Whoever hears of it may have a plan without it by now.
            self.tell(Failed(*key, failure, 0.0))
            return
        begun = time.monotonic()
        try:
            served = await asyncio.to_thread(self._load, key)
        except _UNFIT as error:
            # A file that is missing may come with the next plan.
            at = time.monotonic() - (_RETRY_SECONDS if isinstance(error, NotHere) else 0.0)
            self._failed[key] = (at, str(error))
            log.error("version_not_loaded", model_name=key[0], version=key[1], reason=str(error))
            self.tell(Failed(*key, str(error), time.monotonic() - begun))
        else:
            self._failed.pop(key, None)
            self._loaded[key] = served
            self._announce(key, served, time.monotonic() - begun)
        self._apply()

    def _announce(self, key: Key, served: Served, seconds: float) -> None:
        first = served.run_seconds(1)
        self.tell(Loaded(*key, seconds, first, served.run_seconds(2) - first))
        log.info(
            "version_loaded",
            model_name=key[0],
            version=key[1],
            load_seconds=round(seconds, 3),
            single_row_us=round(first * 1e6),
        )

    def _load(self, key: Key) -> Served:
        found = self.cache.find(*key)
        if found is None:
            raise NotHere(f"model {key[0]!r} version {key[1]}: its file is not here")
        return self._served(*found)

    def _served(self, version: Version, content: bytes) -> Served:
        schema = schema_of(version.model_name, version.version, version.signature)
        if self.watch is None:
            model = OnnxModel(content, schema)
            run_seconds = warm(model, schema)
        else:
            with self.watch.loading(schema, _LOAD_SECONDS):
                model = OnnxModel(content, schema)
            run_seconds = warm(_InTime(model, schema, self.watch), schema)
        self.loads_count += 1
        return Served(
            schema,
            model,
            run_seconds=run_seconds,
            inline_seconds=self.limits.inline_seconds,
            queue_rows=self.limits.queue_rows,
            queue_bytes=self.limits.queue_bytes,
        )


@dataclass(frozen=True, slots=True)
class _InTime:
    """A model whose runs on generated rows must come to an end."""

    model: Model
    schema: Schema
    watch: BoardRuns

    def run(self, inputs: Sequence[Array], options: Any = None) -> list[Array]:
        """UnfitModel if it takes too long."""
        with self.watch.loading(self.schema, _WARM_SECONDS) as run:
            try:
                return self.model.run(inputs, run.options)
            except Exception as error:
                if run.is_overdue:
                    raise UnfitModel(
                        f"a run on generated rows did not end within {_WARM_SECONDS:.0f} s"
                    ) from error
                raise


def _wanted(plan: ServingPlan) -> list[Key]:
    """What has to be loaded, champions first; what is held back as a whole is not."""
    held = {(e.model_name, e.version) for e in plan.quarantines if not e.input_fingerprints}
    champions = [(name, m.champion) for name, m in plan.models.items() if m.champion is not None]
    others = [(name, each) for name, model in plan.models.items() for each in model.versions()]
    keys = dict.fromkeys((*champions, *others, *plan.pinned))
    return [each for each in keys if each not in held]
