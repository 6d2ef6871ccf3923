"""Who answers, by the registry's word: canaries, pinned versions, fallbacks; as clients see it and
as the topic has it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from tests.support.broker import TestBroker
from tests.support.inference import (
    MODEL,
    RunningInference,
    StandInRegistry,
    a_model,
    a_registry,
    a_signature,
    an_inference,
    columns,
    expected_probability,
    read_topic,
    rows_of,
    tell,
)
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE_SECONDS, eventually

from homeostat.client import Client, infer_request
from homeostat.events.v1.column_pb2 import (
    ARM_CANARY,
    ARM_CHAMPION,
    ARM_FALLBACK,
    ARM_PINNED,
)
from homeostat.events.v1.serving_pb2 import Canary
from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.topics import PREDICTIONS
from homeostat_inference.app.routing import Split

WEIGHTS = {1: 1.0, 2: 2.0, 3: -1.0}
IDS = [f"client {number}" for number in range(300)]


@dataclass(frozen=True)
class World:
    registry: StandInRegistry
    running: RunningInference
    client: Client
    broker: str

    async def hear(self, change: VersionChanged) -> None:
        """The registry has spoken."""
        await tell(self.broker, change)

    async def ask(
        self, client_id: str | None = None, version: int | None = None
    ) -> tuple[int, str]:
        """Version and arm of an answer that is the version's own."""
        ids = None if client_id is None else [client_id]
        request = infer_request(MODEL, columns([0.7], ["red"]), client_ids=ids, version=version)
        answer = await self.client.infer(request)
        expected = expected_probability(0.7, "red", WEIGHTS[answer.version])
        assert np.isclose(answer.outputs["probabilities"][0, 1], expected)
        return answer.version, str(answer.parameters["homeostat_arm"])

    async def ask_all(self) -> dict[str, tuple[int, str]]:
        """The same of every client."""
        limit = asyncio.Semaphore(20)

        async def one(client_id: str) -> tuple[int, str]:
            async with limit:
                return await self.ask(client_id)

        found = await asyncio.gather(*map(one, IDS))
        return dict(zip(IDS, found, strict=True))

    async def until(
        self,
        expected: tuple[int, str],
        client_id: str | None = None,
        seconds: float = PATIENCE_SECONDS,
    ) -> None:
        async def is_so() -> bool:
            return await self.ask(client_id) == expected

        await eventually(is_so, seconds=seconds, what=f"answers by {expected}")


@pytest.fixture(params=["native", "grpcio"])
async def world(
    request: pytest.FixtureRequest, embedded_broker: TestBroker, tmp_path: Path
) -> AsyncIterator[World]:
    async with a_registry() as registry:
        for version in (2, 3):
            registry.add(version, a_model(WEIGHTS[version]), a_signature())
        async with (
            an_inference(
                port=free_port(),
                broker=embedded_broker.address,
                registry=registry.address,
                folder=tmp_path / "inference",
                transport=request.param,
            ) as running,
            Client(running.address) as client,
        ):
            yield World(registry, running, client, embedded_broker.address)


def in_canary(share: float, version: int = 2) -> set[str]:
    split = Split.of(MODEL, version, share)
    return {each for each in IDS if split.takes(each.encode())}


async def test_a_canary_answers_its_clients_and_they_stay_with_it(world: World) -> None:
    few, many = in_canary(0.3), in_canary(0.6)
    assert few < many
    await world.hear(world.registry.share_out(canary=Canary(version=2, share=0.3)))
    await world.until((2, "canary"), min(few))
    first, second = await world.ask_all(), await world.ask_all()
    assert first == second
    assert {each for each, answer in first.items() if answer == (2, "canary")} == few
    assert {each for each, answer in first.items() if answer == (1, "champion")} == {*IDS} - few
    await world.hear(world.registry.share_out(canary=Canary(version=2, share=0.6)))
    await world.until((2, "canary"), min(many - few))
    assert {each for each, answer in (await world.ask_all()).items() if answer[0] == 2} == many


async def test_several_rows_go_to_the_side_of_the_first(world: World) -> None:
    canary = in_canary(0.5)
    one, other = min(canary), min({*IDS} - canary)
    await world.hear(world.registry.share_out(canary=Canary(version=2, share=0.5)))
    await world.until((2, "canary"), one)
    for ids, expected in (([one, other], 2), ([other, one], 1)):
        request = infer_request(MODEL, columns([1.0, 1.0], ["red", "red"]), client_ids=ids)
        assert (await world.client.infer(request)).version == expected


async def test_without_ids_a_canary_gets_about_its_share(world: World) -> None:
    await world.hear(world.registry.share_out(canary=Canary(version=2, share=0.5)))
    await world.until((2, "canary"), min(in_canary(0.5)))
    answers = Counter([await world.ask() for _ in range(200)])
    assert set(answers) == {(1, "champion"), (2, "canary")}
    # Seven standard errors.
    assert abs(answers[2, "canary"] - 100) < 50


async def test_the_kill_switch_switches_and_switches_back(world: World) -> None:
    ready = world.registry.share_out(fallback_version=3, canary=Canary(version=2, share=0.5))
    await world.hear(ready)
    await world.until((2, "canary"), min(in_canary(0.5)))
    switched = world.registry.share_out(
        fallback_version=3, canary=Canary(version=2, share=0.5), is_on_fallback=True
    )
    await world.hear(switched)
    # A second is meant; a busy machine is given more.
    await world.until((3, "fallback"), seconds=5.0)
    assert set((await world.ask_all()).values()) == {(3, "fallback")}
    assert await world.ask(version=1) == (1, "pinned")
    await world.hear(world.registry.share_out(fallback_version=3))
    await world.until((1, "champion"), seconds=5.0)
    assert set((await world.ask_all()).values()) == {(1, "champion")}


async def test_a_champion_that_cannot_be_loaded_is_stood_in_for(world: World) -> None:
    world.registry.add(4, b"no model", a_signature())
    await world.hear(world.registry.share_out(fallback_version=3))
    await world.hear(world.registry.promote(4))
    await world.until((3, "fallback"))
    world.registry.add(5, a_model(WEIGHTS[2]), a_signature())
    await world.hear(world.registry.promote(2))
    await world.until((2, "champion"))


async def test_every_row_on_the_topic_names_its_arm(world: World) -> None:
    canary = in_canary(0.5)
    await world.hear(
        world.registry.share_out(fallback_version=3, canary=Canary(version=2, share=0.5))
    )
    await world.until((2, "canary"), min(canary))
    asked = Counter([await world.ask(each) for each in IDS[:40]])
    asked[await world.ask(version=2)] += 1
    asked[await world.ask(version=1)] += 1
    await world.hear(world.registry.share_out(fallback_version=3, is_on_fallback=True))
    await world.until((3, "fallback"))
    asked[await world.ask()] += 1
    names = {
        "champion": ARM_CHAMPION,
        "canary": ARM_CANARY,
        "pinned": ARM_PINNED,
        "fallback": ARM_FALLBACK,
    }
    expected = {(version, names[arm]) for version, arm in asked}
    # Those that were waited for are on it, too.
    found = await read_topic(
        world.broker,
        PREDICTIONS,
        lambda found: (
            {(e.version, e.arm) for _, e in found if e.row_count} >= expected
            and rows_of(found) >= asked.total()
        ),
    )
    assert {(each.version, each.arm) for _, each in found if each.row_count} == expected


async def test_two_models_share_out_their_traffic_apart(world: World) -> None:
    registry = world.registry
    for version in (1, 2):
        registry.add(version, a_model(WEIGHTS[version]), a_signature(), model_name="other")
    await world.hear(registry.promote(1, model_name="other"))
    await world.hear(registry.share_out("other", fallback_version=2, is_on_fallback=True))

    async def is_on_fallback() -> bool:
        request = infer_request("other", columns([0.7], ["red"]))
        try:
            return (await world.client.infer(request)).version == 2
        except grpc.aio.AioRpcError:
            return False

    await eventually(is_on_fallback)
    assert await world.ask() == (1, "champion")
