"""The keeper's view of the registry: what is to be served, and the files that it takes."""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat_inference.app.plan import ModelPlan, ServingPlan
from homeostat_inference.app.planning import Planner, Proven, model_plan, wanted
from homeostat_inference.app.supervising import CrashBook
from homeostat_inference.domain.errors import InvalidInput, NotServed
from homeostat_inference.domain.schema import Schema, schema_of
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
    fetching_count: int = 0
    _here: set[Key] = field(default_factory=set)
    # Being fetched; nobody may have named it in a plan so far.
    _bringing: set[Key] = field(default_factory=set)
    _schemas: dict[Key, Schema] = field(default_factory=dict)
    _failures: "OrderedDict[Key, tuple[float, str]]" = field(default_factory=OrderedDict)
    _poke: asyncio.Event = field(default_factory=asyncio.Event)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    # Whether something that is wanted may not be here.
    _is_behind: bool = False
    _was_told: bool = False

    def begin(self) -> None:
        """Takes up the last plan and what was held back, as far as they can be read."""
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
        return self.fetching_count + self._is_behind

    async def run(self, interval_seconds: float, stop: asyncio.Event) -> None:
        """Asks again and again, and at once when a file is missing."""
        while not stop.is_set():
            self._poke.clear()
            await self.look()
            await _first_of(stop, self._poke, 0.2 if not self.has_snapshot else interval_seconds)

    async def bring(self, stop: asyncio.Event) -> None:
        """Fetches what is wanted, beside `run`: a kill switch does not wait for a large file."""
        while not stop.is_set():
            await _first_of(stop, self._wanted, _RETRY_SECONDS)
            self._wanted.clear()
            await self._bring_all()

    async def look(self) -> None:
        """Follows a snapshot with the files that are here; says once if the registry is away."""
        try:
            snapshot = await self.registry.snapshot()
        except RegistryAway as error:
            self._note_away(error)
            return
        self.away_since = None
        for model in snapshot.models:
            self.planner.follow(model_plan(model))
        self._was_told = True
        self.renew()
        self._want()

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
            self.planner.follow(replace(known, revision=change.revision, champion=champion))
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
            await self._bring(key)
            if key not in self._here:
                raise NotServed(self._failed_lately(key) or "it could not be fetched")
        self.planner.pin(key)
        self.renew()

    def note_unfit(self, key: Key) -> None:
        """Nobody can load it: who was champion before goes on in its place."""
        self.planner.unfit.add(key)
        self.renew()

    def note_loaded(self, model_name: str, version: int, revision: int) -> None:
        """A worker has this champion loaded."""
        self.planner.proven[model_name] = Proven(version, revision)

    def forget_file(self, key: Key) -> None:
        """A worker found the file damaged: it has to be fetched anew."""
        self._here.discard(key)
        self._poke.set()

    def renew(self) -> None:
        """Publishes the next plan, if anything has changed."""
        plan = self.planner.renewed(
            self._here.__contains__,
            self.crashes.plans(),
            self.crashes.suspects(time.monotonic()),
        )
        if plan is None:
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
        named = self.planner.versions() | self._bringing
        self._here &= named
        try:
            write_whole(self.plan_file, json.dumps(stored).encode())
            self.cache.prune(named)
        except OSError as error:
            # The copy on disk is for the next start; this process serves without it.
            log.warning("plan_not_kept", reason=str(error))
        self._schemas = {key: each for key, each in self._schemas.items() if key in self._here}

    async def _bring_all(self) -> None:
        """Files of everything that is wanted, champions first."""
        models = list(self.planner.models.values())
        champions = [(each.name, each.champion) for each in models if each.champion is not None]
        others = [(each.name, version) for each in models for version in wanted(each)]
        for key in dict.fromkeys((*champions, *others)):
            if key in self._here or self._failed_lately(key):
                continue
            try:
                await self._bring(key)
            except RegistryAway as error:
                self._note_away(error)
                return
            # What is here can serve while the next one is fetched.
            self.renew()
        if not self._wanted.is_set():
            self._is_behind = False
            self.has_snapshot = self.has_snapshot or self._was_told

    async def _bring(self, key: Key) -> None:
        self.fetching_count += 1
        self._bringing.add(key)
        try:
            found = await asyncio.to_thread(self.cache.find, *key)
            if found is None:
                version = await self.registry.version(*key)
                content = await self.registry.download(version.model_sha256)
                await asyncio.to_thread(self.cache.keep, version, content)
            self._here.add(key)
            self._failures.pop(key, None)
        except (DamagedArtifact, NotServed, OSError) as error:
            self._note_failure(key, str(error))
        finally:
            self.fetching_count -= 1
            self._bringing.discard(key)

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


async def _first_of(stop: asyncio.Event, poke: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.ensure_future(each.wait()) for each in (stop, poke)]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
