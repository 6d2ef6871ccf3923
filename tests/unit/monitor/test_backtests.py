"""Backtests as they are asked for: one at a time, and nobody's once nobody waits."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from homeostat_monitor.app.portions import Portion
from homeostat_monitor.app.replaying import Marks
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import BadRequest, UnusableReference
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.past import backtests
from homeostat_monitor.past.backtests import Backtests, Busy, Ended, NoPast, Question, Step
from homeostat_monitor.past.beside import Beside
from homeostat_monitor.past.ledger import PastSpan
from homeostat_monitor.ports import KnownVersion, Standing

POLICY = Policy("delays")
ROWS = 100


def a_portion(number: int) -> Portion:
    times = np.arange(number * ROWS, (number + 1) * ROWS, dtype=np.int64)
    nothing = np.full(ROWS, np.nan)
    return Portion(
        times,
        np.ones(ROWS, dtype=np.int32),
        {},
        np.stack([nothing] * 3),
        nothing,
        times * 0,
        np.array([f"{each:020d}".encode() for each in times]),
    )


@dataclass
class World:
    """Ledger, registry and database in one; rows come as ``portions``."""

    portions: int = 3
    last_us: int | None = 10**12
    remarks: tuple[str, ...] = ("no reference",)
    # Set when a portion was given: the next waits for ``go_on``.
    given: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    is_closed: bool = False
    spans: list[PastSpan] = field(default_factory=list)

    async def last_event_us(self, model_name: str, version: int | None) -> int | None:
        return self.last_us

    async def files(self, span: PastSpan) -> AsyncGenerator[tuple[int, bytes]]:
        self.spans.append(span)
        try:
            for number in range(self.portions):
                yield self.portions * ROWS, bytes([number])
                self.given.set()
                await self.go_on.wait()
        finally:
            self.is_closed = True

    async def fresh(self, subject: Subject, policy: Policy) -> KnownVersion:
        return KnownVersion(subject, Task.BINARY, None, self.remarks)

    async def marks(self) -> Marks:
        return Marks({})

    async def promotions(self, model_name: str) -> list[Any]:
        return []

    async def current_us(self, topic: str) -> int:
        return 10**13

    async def champion(self, model_name: str) -> Standing | None:
        return Standing(Subject(model_name, 1))

    async def tallies(self, subject: Subject) -> dict[str, int]:
        return {"late_rows": 3}

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[None]:
        yield None


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    async def read_policy(connection: Any, name: str) -> Policy:
        return POLICY

    monkeypatch.setattr(backtests, "read_policy", read_policy)
    monkeypatch.setattr(backtests, "portion_of", lambda data: a_portion(data[0]))
    return World()


def made(world: Any, ledger: Any = "the same") -> Backtests:
    return Backtests(world, world, world, world if ledger == "the same" else ledger)


async def said(asked: Backtests, question: Question) -> list[Step | Ended]:
    return [each async for each in asked.run(question)]


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        (Question(POLICY, days=0.0), "days: 0.0"),
        (Question(POLICY, days=float("nan")), "days: nan"),
        (Question(POLICY, days=1e9), "at most 3660"),
    ],
)
async def test_a_span_that_is_none_is_refused(
    world: World, question: Question, problem: str
) -> None:
    with pytest.raises(BadRequest, match=problem):
        await said(made(world), question)


async def test_who_knows_no_ledger_says_how_to_name_one(world: World) -> None:
    with pytest.raises(NoPast, match="HOMEOSTAT_MONITOR_LEDGER_ADDRESS"):
        await said(made(world, None), Question(POLICY))


async def test_a_ledger_without_a_past_is_said_to_be_one(world: World) -> None:
    world.last_us = None
    with pytest.raises(NoPast, match="no predictions of delays: there is nothing to test on"):
        await said(made(world), Question(POLICY))


async def test_without_any_reference_there_is_nothing_to_judge_by(world: World) -> None:
    world.go_on.set()
    with pytest.raises(UnusableReference, match=r"delays.*no reference.*homeostat push"):
        await said(made(world), Question(POLICY))


async def test_it_tells_how_far_it_has_come_and_what_live_traffic_knew_otherwise(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtests, "_require_reference", lambda backtest, name: None)
    world.go_on.set()
    *steps, ended = await said(made(world), Question(POLICY, days=1.0))
    assert steps == [Step(rows, 300, 0) for rows in (100, 200, 300)]
    assert isinstance(ended, Ended)
    assert (ended.event_from_us, ended.event_before_us) == (10**12 + 1 - 86_400_000_000, 10**12 + 1)
    assert ended.result.rows == 300
    assert any("3 predictions came late" in each for each in ended.result.remarks)
    assert world.spans == [PastSpan("delays", None, ended.event_from_us, ended.event_before_us)]


async def test_a_second_one_is_refused_until_the_first_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtests, "_require_reference", lambda backtest, name: None)
    asked = made(world)
    first = asyncio.create_task(said(asked, Question(POLICY)))
    await asyncio.wait_for(world.given.wait(), 10)
    with pytest.raises(Busy, match="a backtest of delays runs already"):
        await said(asked, Question(POLICY))
    world.go_on.set()
    await asyncio.wait_for(first, 10)
    assert await said(asked, Question(POLICY))


async def test_who_stops_asking_ends_theirs(world: World) -> None:
    asked = made(world)
    async with aclosing(asked.run(Question(POLICY))) as steps:
        assert await anext(steps) == Step(100, 300, 0)
    assert world.is_closed
    task = asyncio.create_task(said(asked, Question(POLICY)))
    await asyncio.wait_for(world.given.wait(), 10)
    world.is_closed = False
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.is_closed
    assert asked._running is None


async def test_work_beside_ends_between_a_few_rows_where_nobody_waits() -> None:
    done: list[int] = []
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    go_on = threading.Event()

    def work(portion: Portion) -> None:
        done.append(len(portion))
        loop.call_soon_threadsafe(begun.set)
        go_on.wait(10)

    many = a_portion(0).only(np.zeros(20_000, dtype=np.intp))
    with Beside("test") as beside:
        task = asyncio.create_task(beside.play(work, many))
        await asyncio.wait_for(begun.wait(), 10)
    go_on.set()
    await asyncio.wait_for(task, 10)
    assert done == [4_000]
