"""How the keeper follows a registry that is slow, silent, or changes its mind."""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from tests.support.waiting import eventually

from homeostat.events.v1.serving_pb2 import Serving
from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.registry.v1.registry_pb2 import GetSnapshotResponse, Model, Version
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.planning import Planner
from homeostat_inference.app.supervising import LOAD_CRASHES, CrashBook, DeadRun
from homeostat_inference.domain.errors import NotServed
from homeostat_inference.edges import following as module
from homeostat_inference.edges.following import Following
from homeostat_inference.edges.versions import Registry, RegistryAway, VersionCache

CONTENT = b"a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Told:
    """A registry that a test plays."""

    models: list[Model] = field(default_factory=list)
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)
    # Versions whose files do not come before the event.
    held_up: dict[tuple[str, int], asyncio.Event] = field(default_factory=dict)
    is_away: bool = False

    async def snapshot(self) -> GetSnapshotResponse:
        if self.is_away:
            raise RegistryAway("gone")
        return GetSnapshotResponse(models=self.models)

    async def version(self, model_name: str, version: int) -> Version:
        self.asked[model_name, version] += 1
        if self.is_away:
            raise RegistryAway("gone")
        if (model_name, version) in self.held_up:
            await self.held_up[model_name, version].wait()
        return Version(model_name=model_name, version=version, model_sha256=SHA256)

    async def download(self, sha256: str) -> bytes:
        return CONTENT


@dataclass
class World:
    registry: Told
    following: Following
    published: list[ServingPlan]

    def tell(self, name: str, revision: int, champion: int, **serving: object) -> None:
        """The registry's word on a model; the last one stands."""
        others = [each for each in self.registry.models if each.name != name]
        told = Serving(**serving)  # type: ignore[arg-type]
        model = Model(name=name, revision=revision, champion_version=champion, serving=told)
        self.registry.models = [*others, model]

    def champion(self, name: str = "risk") -> int | None:
        model = self.following.plan.models.get(name)
        return model.champion if model else None

    async def follows(self) -> None:
        """Looks, and begins to fetch."""
        await self.following.look()
        self.following._wanted.clear()
        self.following._fetch_all()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async def condition() -> bool:
            return is_so()

        await eventually(condition)


@pytest.fixture
def world(tmp_path: Path) -> World:
    registry, published = Told(), list[ServingPlan]()
    following = Following(
        cast(Registry, registry),
        VersionCache(tmp_path),
        Planner(pinned_limit=4),
        CrashBook(),
        tmp_path / "plan.json",
        published.append,
        lambda *told: None,
    )
    return World(registry, following, published)


async def test_what_is_small_does_not_wait_for_what_is_large(world: World) -> None:
    world.registry.held_up["slow", 1] = asyncio.Event()
    world.tell("slow", 1, champion=1)
    world.tell("risk", 1, champion=1)
    await world.follows()
    await world.until(lambda: world.champion() == 1)
    await asyncio.wait_for(world.following.pin(("risk", 2)), 5)
    assert world.following.plan.pinned == (("risk", 2),)
    world.tell("risk", 2, champion=1, fallback_version=3, is_on_fallback=True)
    await world.follows()
    await world.until(lambda: world.following.plan.models["risk"].fallback == 3)
    assert world.following.open_work_count and not world.following.has_snapshot
    world.registry.held_up["slow", 1].set()
    await world.until(lambda: world.champion("slow") == 1)
    assert world.following.has_snapshot and not world.following.open_work_count


async def test_who_names_a_version_that_is_being_fetched_waits_for_the_same(world: World) -> None:
    world.tell("risk", 1, champion=1)
    await world.follows()
    world.registry.held_up["risk", 2] = asyncio.Event()
    naming = [asyncio.create_task(world.following.pin(("risk", 2))) for _ in range(20)]
    await world.until(lambda: world.registry.asked["risk", 2] > 0)
    world.registry.held_up["risk", 2].set()
    await asyncio.wait_for(asyncio.gather(*naming), 60)
    assert world.registry.asked["risk", 2] == 1


async def test_a_registry_that_gave_no_answer_is_left_alone_for_a_moment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_AWAY_SECONDS", 3600.0)
    world.following._silent = (-1e9, "")
    world.tell("risk", 1, champion=1)
    await world.follows()
    await world.until(lambda: world.champion() == 1)
    world.registry.is_away = True
    for version in range(2, 12):
        with pytest.raises(RegistryAway):
            await world.following.pin(("risk", version))
    assert sum(world.registry.asked.values()) == 2
    with pytest.raises(NotServed):
        await world.following.pin(("other", 1))


async def proven(world: World) -> None:
    """Version 1 serves; then 2 becomes champion, which a worker can't load."""
    world.tell("risk", 1, champion=1)
    await world.follows()
    await world.until(lambda: world.champion() == 1)
    world.following.note_loaded("risk", 1, 1)
    world.tell("risk", 2, champion=2)
    await world.follows()
    await world.until(lambda: world.champion() == 2)
    world.following.note_unfit(("risk", 2))
    assert world.champion() == 1


async def test_what_could_not_be_loaded_once_is_tried_again_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await proven(world)
    world.following.renew()
    assert world.champion() == 1
    monkeypatch.setattr(module, "_UNFIT_SECONDS", 0.0)
    world.following.renew()
    assert world.champion() == 2 and world.published[-1] == world.following.plan


async def test_where_a_fallback_answers_the_same_plan_is_told_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await proven(world)
    world.tell("risk", 3, champion=2, fallback_version=1)
    await world.follows()
    world.following.note_unfit(("risk", 2))
    assert world.champion() == 2
    world.published.clear()
    monkeypatch.setattr(module, "_UNFIT_SECONDS", 0.0)
    world.following.renew()
    assert world.published == [world.following.plan]


@pytest.mark.parametrize("how", ["snapshot", "topic", "release", "restart"])
async def test_what_could_not_be_loaded_is_tried_again_at_once(world: World, how: str) -> None:
    await proven(world)
    following = world.following
    if how == "snapshot":
        world.tell("risk", 3, champion=2)
        await following.look()
    elif how == "topic":
        world.registry.is_away = True
        await following.hear(VersionChanged(model_name="risk", revision=3, champion_version=2))
    elif how == "release":
        following.forgive(("risk", 2))
    else:
        following.planner = Planner(pinned_limit=4)
        following._unfit = {}
        following.begin()
        assert world.champion() == 1
        await world.follows()
    await world.until(lambda: world.champion() == 2)


async def test_a_version_that_ends_whoever_loads_it_stays_out_until_it_is_released(
    world: World,
) -> None:
    await proven(world)
    for _ in range(LOAD_CRASHES):
        world.following.crashes.note([DeadRun("risk", 2, 0)], "SIGSEGV", 0.0, 0)
    world.following.forgive(("risk", 2))
    assert world.champion() == 1
    assert world.following.crashes.release("risk", 2, "") == 1
    world.following.forgive(("risk", 2))
    assert world.champion() == 2
