"""The keeper's view of the registry: what is to be served, and the files that it takes."""

import asyncio
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat_inference.app.plan import ModelPlan, ServingPlan
from homeostat_inference.app.planning import Planner, Proven, model_plan, wanted
from homeostat_inference.app.supervising import CrashBook
from homeostat_inference.domain.errors import InvalidInput, NotServed
from homeostat_inference.domain.schema import Schema, schema_of
from homeostat_inference.edges.events import wait_for
from homeostat_inference.edges.versions import (
    DamagedArtifact,
    Registry,
    RegistryAway,
    VersionCache,
    write_whole,
)
from homeostat_kit.logs import get_logger

# A version that could not be had is not asked for again at once.
_RETRY_SECONDS = 5.0
_REMEMBERED_FAILURES = 256
# What could not be loaded may be loaded now: memory was short, or the machine was busy.
_UNFIT_SECONDS = 60.0
# Versions that are fetched at the same time; one is held whole while it comes.
_FETCHES = 8
# A registry that has just given no answer is not asked by whoever names a version.
_AWAY_SECONDS = 1.0
Key = tuple[str, int]
log = get_logger("homeostat_inference.following")


@dataclass(slots=True)
class Following:
    """Follows the registry and says, plan by plan, what workers are to serve."""

    registry: Registry
    cache: VersionCache
    planner: Planner
    crashes: CrashBook
    plan_file: Path
    # Hears every new plan.
    publish: Callable[[ServingPlan], None]
    # Hears of champions that can't be had: model name, version, revision, why.
    failed: Callable[[str, int, int, str], None]
    has_snapshot: bool = False
    # Since when, monotonic; None while it answers.
    away_since: float | None = None
    _here: set[Key] = field(default_factory=set)
    # What is being fetched; whoever wants it too waits for the same.
    _fetches: "dict[Key, asyncio.Task[None]]" = field(default_factory=dict)
    _may_fetch: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_FETCHES))
    # Named by requests that wait for it; no plan may have it so far.
    _asked: Counter[Key] = field(default_factory=Counter)
    # Versions that a worker could not load, and since when.
    _unfit: dict[Key, float] = field(default_factory=dict)
    # When the registry gave no answer last, and what it was about.
    _silent: tuple[float, str] = (-_AWAY_SECONDS, "")
    _schemas: dict[Key, Schema] = field(default_factory=dict)
    _failures: "OrderedDict[Key, tuple[float, str]]" = field(default_factory=OrderedDict)
    _poke: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    # Whether something that is wanted may not be here.
    _is_behind: bool = False
    _was_told: bool = False

    def begin(self) -> None:
        """Takes up the last plan and what was held back, as far as they can be read."""
        with suppress(OSError):
            self.cache.clean()
        try:
            stored = json.loads(self.plan_file.read_text())
            plan = ServingPlan.from_json(json.dumps(stored["plan"]))
            self.crashes.restore(stored["held"])
            self.planner.restore(stored["planner"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return
        self.planner.begin_with(plan)
        self._here = {key for key in self.planner.versions() if self.cache.has(*key)}

    @property
    def plan(self) -> ServingPlan:
        """What workers are told now."""
        return self.planner.plan

    @property
    def failures(self) -> dict[Key, str]:
        """Versions that could not be had lately, and why."""
        return {key: reason for key, (_, reason) in self._failures.items()}

    @property
    def open_work_count(self) -> int:
        """What is still to be fetched, as far as it is known."""
        return len(self._fetches) + self._is_behind

    async def run(self, interval_seconds: float, stop: asyncio.Event) -> None:
        """Asks again and again, and at once when a file is missing."""
        while not stop.is_set():
            self._poke.clear()
            await self.look()
            await wait_for((stop, self._poke), 0.2 if not self.has_snapshot else interval_seconds)

    async def bring(self, stop: asyncio.Event) -> None:
        """Fetches what is wanted, beside `run`: a kill switch does not wait for a large file."""
        while not stop.is_set():
            await wait_for((stop, self._wanted), _RETRY_SECONDS)
            self._wanted.clear()
            self._fetch_all()

    async def look(self) -> None:
        """Follows a snapshot with the files that are here; says once if the registry is away."""
        try:
            snapshot = await self.registry.snapshot()
        except RegistryAway as error:
            self._note_away(error)
            return
        self.away_since = None
        for model in snapshot.models:
            self._follow(model_plan(model))
        self._was_told = True
        self.renew()
        self._want()

    def _follow(self, model: ModelPlan) -> None:
        known = self.planner.models.get(model.name)
        self.planner.follow(model)
        if known is not None and model.revision > known.revision:
            self._unfit = {key: at for key, at in self._unfit.items() if key[0] != model.name}

    def _want(self) -> None:
        self._is_behind = True
        self._wanted.set()

    def _note_away(self, error: RegistryAway) -> None:
        if self.away_since is None:
            log.warning("registry_away", reason=str(error))
            self.away_since = time.monotonic()

    async def hear(self, change: VersionChanged) -> None:
        """What the topic says, which may be newer than the last snapshot."""
        known = self.planner.models.get(change.model_name) or ModelPlan(change.model_name, 0)
        if change.revision > known.revision:
            champion = change.champion_version if change.HasField("champion_version") else None
            self._follow(replace(known, revision=change.revision, champion=champion))
            # The registry itself may be slow to answer.
            self.renew()
        self._want()
        await self.look()

    async def pin(self, key: Key) -> None:
        """Makes a named version part of the plan; NotServed or RegistryAway if it can't be."""
        if key[0] not in self.planner.models:
            raise NotServed(f"unknown model {key[0][:128]!r}")
        if key not in self._here:
            reason = self._failed_lately(key)
            if reason:
                raise NotServed(reason)
            await self._ask(key)
        self.planner.pin(key)
        self.renew()

    async def _ask(self, key: Key) -> None:
        at, reason = self._silent
        if time.monotonic() - at < _AWAY_SECONDS:
            raise RegistryAway(reason)
        self._asked[key] += 1
        try:
            await self._fetched(key)
            if key not in self._here:
                raise NotServed(self._failed_lately(key) or "it could not be fetched")
        finally:
            self._asked[key] -= 1
            self._asked += Counter()

    def note_unfit(self, key: Key) -> None:
        """A worker can't load it: who was champion before goes on in its place, for a while."""
        self._unfit[key] = time.monotonic()
        self.renew()

    def forgive(self, key: Key) -> None:
        """It is loaded again, if it can be."""
        self._unfit.pop(key, None)
        self.renew()
        self.publish(self.plan)

    def note_loaded(self, model_name: str, version: int, revision: int) -> None:
        """A worker has this champion loaded."""
        self.planner.proven[model_name] = Proven(version, revision)

    def forget_file(self, key: Key) -> None:
        """A worker found the file damaged: it has to be fetched anew."""
        self._here.discard(key)
        self._poke.set()

    def renew(self) -> None:
        """Publishes the next plan, if anything has changed."""
        since = time.monotonic() - _UNFIT_SECONDS
        due = [key for key, at in self._unfit.items() if at <= since]
        for key in due:
            del self._unfit[key]
        self.planner.unfit = self._unfit.keys() | self.crashes.unloadable()
        plan = self.planner.renewed(
            self._here.__contains__,
            self.crashes.plans(),
            self.crashes.suspects(time.monotonic()),
        )
        if plan is None:
            if due:
                # The same one: workers try once more what they could not load.
                self.publish(self.plan)
            return
        self._keep(plan)
        log.info("plan_made", number=plan.number, models=len(plan.models))
        self.publish(plan)

    def _keep(self, plan: ServingPlan) -> None:
        stored = {
            "plan": json.loads(plan.to_json()),
            "held": self.crashes.stored(),
            "planner": self.planner.stored(),
        }
        named = self.planner.versions() | self._fetches.keys() | self._asked.keys()
        self._here &= named
        try:
            write_whole(self.plan_file, json.dumps(stored).encode())
            self.cache.prune(named)
        except OSError as error:
            # The copy on disk is for the next start; this process serves without it.
            log.warning("plan_not_kept", reason=str(error))
        self._schemas = {key: each for key, each in self._schemas.items() if key in self._here}

    def _missing(self) -> list[Key]:
        """What is wanted, is not here, and is worth asking for; champions first."""
        models = list(self.planner.models.values())
        champions = [(each.name, each.champion) for each in models if each.champion is not None]
        others = [(each.name, version) for each in models for version in wanted(each)]
        return [
            key
            for key in dict.fromkeys((*champions, *others))
            if key not in self._here and not self._failed_lately(key)
        ]

    def _fetch_all(self) -> None:
        """Begins to fetch what is missing: what is small does not wait for what is large."""
        for key in self._missing():
            self._fetch(key)
        self._see_whether_all_is_here()

    def _see_whether_all_is_here(self) -> None:
        if not self._wanted.is_set() and not self._missing():
            self._is_behind = False
            self.has_snapshot = self.has_snapshot or self._was_told

    def _fetch(self, key: Key) -> "asyncio.Task[None]":
        task = self._fetches.get(key)
        if task is None:
            task = asyncio.create_task(self._bring(key), name="fetch")
            self._fetches[key] = task
            task.add_done_callback(lambda task: self._end_fetch(key, task))
        return task

    async def _fetched(self, key: Key) -> None:
        """Waits until it is here, or is known not to come; RegistryAway if nobody knows."""
        await asyncio.shield(self._fetch(key))

    def _end_fetch(self, key: Key, task: "asyncio.Task[None]") -> None:
        del self._fetches[key]
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, RegistryAway):
            self._silent = (time.monotonic(), str(error))
            if key in self.planner.versions():
                self._note_away(error)
        elif error is not None:
            log.error("fetch_failed", model_name=key[0], version=key[1], exc_info=error)
            self._note_failure(key, repr(error))
        else:
            # What is here can serve while the next one is fetched.
            self.renew()
            self._see_whether_all_is_here()

    async def _bring(self, key: Key) -> None:
        try:
            async with self._may_fetch:
                found = await asyncio.to_thread(self.cache.find, *key)
                if found is None:
                    version = await self.registry.version(*key)
                    content = await self.registry.download(version.model_sha256)
                    await asyncio.to_thread(self.cache.keep, version, content)
            self._here.add(key)
            self._failures.pop(key, None)
        except (DamagedArtifact, NotServed, OSError) as error:
            self._note_failure(key, str(error))

    def _note_failure(self, key: Key, reason: str) -> None:
        is_known = key in self._failures
        self._failures[key] = (time.monotonic(), reason)
        while len(self._failures) > _REMEMBERED_FAILURES:
            self._failures.popitem(last=False)
        if is_known:
            return
        # Of what only a request named, there may be very many.
        tell = log.error if key in self.planner.versions() else log.info
        tell("version_not_fetched", model_name=key[0], version=key[1], reason=reason[:500])
        model = self.planner.models.get(key[0])
        if model is not None and model.champion == key[1]:
            self.failed(*key, model.revision, reason)

    def _failed_lately(self, key: Key) -> str:
        at, reason = self._failures.get(key, (0.0, ""))
        return reason if reason and time.monotonic() - at < _RETRY_SECONDS else ""

    def schema(self, model_name: str) -> Schema | None:
        """Of the model's champion, or of its fallback where there is none."""
        model = self.plan.models.get(model_name)
        if model is None:
            return None
        version = model.champion if model.champion is not None else model.fallback
        if version is None:
            return None
        key = (model_name, version)
        if key not in self._schemas:
            described = self.cache.described(*key)
            if described is None:
                return None
            try:
                self._schemas[key] = schema_of(*key, described.signature)
            except InvalidInput:
                return None
        return self._schemas[key]
