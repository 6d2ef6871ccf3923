"""What a slot does with its processes: one that takes too much memory, one that follows another."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.inference import MODEL, a_signature, columns
from tests.support.waiting import eventually

from homeostat_inference.app.plan import ModelPlan, ServingPlan
from homeostat_inference.app.supervising import DeadRun
from homeostat_inference.domain.schema import schema_of
from homeostat_inference.edges import slot_watch
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.board_runs import BoardRuns
from homeostat_inference.edges.control import (
    AskMark,
    Control,
    Leave,
    Marked,
    Message,
    Prepared,
    Ready,
    Take,
    TellHealth,
    TellPlan,
)
from homeostat_inference.edges.nursery import Child, Nursery
from homeostat_inference.edges.slot_orders import Orders
from homeostat_inference.edges.slot_watch import LEAVING, READY, STARTING
from homeostat_inference.edges.slots import WorkerSlot

MIB = 1 << 20
ROWS = tuple(columns([1.0], ["red"]).values())


def a_slot(monkeypatch: pytest.MonkeyPatch, state: str) -> tuple[WorkerSlot, list[str]]:
    """A slot whose process may take 100 MiB, and what was done to that process."""
    done: list[str] = []
    slot = WorkerSlot(
        "worker-0", 0, cast(Any, None), cast(Any, None), memory_bytes=100 * MIB, may_overlap=False
    )
    child = SimpleNamespace(send_signal=lambda number: done.append(signal.Signals(number).name))
    monkeypatch.setattr(slot, "process", SimpleNamespace(child=child))
    monkeypatch.setattr(slot, "recycle", lambda why: done.append(f"recycled: {why}"))
    slot.state = state
    return slot, done


@pytest.mark.parametrize(
    ("memory_mib", "state", "expected"),
    [
        (99, READY, []),
        (149, READY, ["recycled: it held 149 MiB, 100 MiB are allowed"]),
        (149, STARTING, []),
        (151, READY, ["SIGKILL"]),
        (151, STARTING, ["SIGKILL"]),
    ],
)
def test_a_process_that_takes_far_more_than_it_may_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, memory_mib: int, state: str, expected: list[str]
) -> None:
    slot, done = a_slot(monkeypatch, state)
    slot._watch.weigh(memory_mib * MIB)
    assert done == expected


@dataclass
class Born:
    """A process that a test plays."""

    told: Mapping[str, Any]
    control: Control
    board: Board
    child: Child = field(init=False)
    heard: list[Message] = field(default_factory=list)
    signals: list[signal.Signals] = field(default_factory=list)

    async def hear(self) -> None:
        while (message := await self.control.receive()) is not None:
            self.heard.append(message)

    def end(self, status: int = 0) -> None:
        if not self.child.ended.done():
            self.child.ended.set_result(status)

    def plans(self) -> list[int]:
        return [ServingPlan.from_json(e.plan).number for e in self.heard if type(e) is TellPlan]

    def runs(self, rows: int = 1) -> None:
        """Shows on its board that it runs, or loads, a version."""
        runs = BoardRuns(self.board, SimpleNamespace, limit_ns=10**12)
        schema = schema_of(MODEL, 3, a_signature())
        if rows:
            runs.enter(schema, 10**18, ROWS, rows)
        else:
            runs.loading(schema, 60.0).__enter__()


class Played(Child):
    """Signals reach the test."""

    born: Born

    def send_signal(self, number: signal.Signals) -> None:
        self.born.signals.append(number)
        if number == signal.SIGKILL:
            self.born.end(number)


@dataclass
class World:
    """A slot, with a test in the place of its processes."""

    slot: WorkerSlot = field(init=False)
    born: list[Born] = field(default_factory=list)
    plan: ServingPlan = field(default_factory=ServingPlan)
    health: TellHealth = field(default_factory=lambda: TellHealth([], False, False))
    blamed: list[list[DeadRun]] = field(default_factory=list)
    hearing: list["asyncio.Task[None]"] = field(default_factory=list)

    async def fork(self, told: Mapping[str, Any], descriptors: Sequence[int]) -> Child:
        control = await Control.over(socket.socket(fileno=os.dup(descriptors[0])))
        born = Born(told, control, Board.open(os.dup(descriptors[1])))
        child = Played(1, os.eventfd(0), asyncio.get_running_loop().create_future())
        child.born, born.child = born, child
        self.born.append(born)
        self.hearing.append(asyncio.create_task(born.hear()))
        return child

    async def until(self, is_so: Callable[[], bool], what: str = "") -> None:
        async def condition() -> bool:
            return is_so()

        await eventually(condition, what=what)

    async def next_born(self, count: int) -> Born:
        await self.until(lambda: len(self.born) >= count, f"{count} processes")
        born = self.born[count - 1]
        await self.until(lambda: any(isinstance(e, TellPlan) for e in born.heard), "a plan")
        return born

    async def ready(self) -> Born:
        """The first one serves."""
        born = await self.next_born(1)
        born.control.send(Ready(1, 0))
        await self.until(lambda: self.slot.is_ready, "it is ready")
        return born


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    orders = Orders(
        mark_us=lambda: None,
        assignment=dict,
        given=list,
        plan=lambda: made.plan,
        health=lambda: made.health,
        heard=lambda slot, message: None,
        crashed=lambda slot, runs, reason: made.blamed.append(runs),
    )
    nursery = cast(Nursery, SimpleNamespace(fork=made.fork))
    made.slot = WorkerSlot("worker-0", 0, nursery, orders, memory_bytes=1 << 40, may_overlap=True)
    living = asyncio.create_task(made.slot.live(asyncio.Event()))
    yield made
    for each in (living, *made.hearing):
        each.cancel()


async def test_a_promise_is_asked_of_who_serves_and_never_of_who_is_to_follow(
    world: World,
) -> None:
    first = await world.ready()
    world.slot.recycle("it is too large")
    second = await world.next_born(2)
    second.control.send(Prepared())
    await world.until(lambda: world.slot.state == LEAVING, "the first is told to leave")
    asking = asyncio.create_task(world.slot.marks.mark(5))
    await world.until(lambda: any(isinstance(e, AskMark) for e in first.heard), "it is asked")
    first.end()
    await world.until(lambda: any(isinstance(e, Take) for e in second.heard), "the next one takes")
    assert not any(isinstance(each, AskMark) for each in second.heard)
    second.control.send(Ready(1, 0))
    await world.until(lambda: any(isinstance(e, AskMark) for e in second.heard), "it is asked too")
    (asked,) = (each for each in second.heard if isinstance(each, AskMark))
    second.control.send(Marked(asked.number, ""))
    assert await asking == ""


async def test_who_follows_hears_before_it_takes_over_what_was_published_meanwhile(
    world: World,
) -> None:
    first = await world.ready()
    world.slot.recycle("it is too large")
    second = await world.next_born(2)
    world.plan = ServingPlan(7, {MODEL: ModelPlan(MODEL, 2, champion=3, is_on_fallback=True)})
    world.health = TellHealth(["trouble"], True, True)
    world.slot.send(TellPlan(world.plan.to_json()))
    second.control.send(Prepared())
    await world.until(lambda: world.slot.state == LEAVING, "the first is told to leave")
    first.end()
    await world.until(lambda: any(isinstance(e, Take) for e in second.heard), "the next one takes")
    before = second.heard[: [type(each) for each in second.heard].index(Take)]
    assert second.plans()[-1] == 7 and world.health in before


async def test_who_serves_goes_on_when_who_is_to_follow_dies_before_it_is_prepared(
    world: World,
) -> None:
    first = await world.ready()
    world.slot.recycle("it is too large")
    (await world.next_born(2)).end(signal.SIGSEGV)
    await world.until(lambda: world.slot.is_swollen, "it is given up")
    world.slot.recycle("it is too large")
    assert world.slot.is_ready and len(world.born) == 2
    assert not any(isinstance(each, Leave) for each in first.heard)


async def test_who_has_just_followed_is_not_replaced_again(world: World) -> None:
    first = await world.ready()
    world.slot.recycle("it is too large")
    second = await world.next_born(2)
    second.control.send(Prepared())
    await world.until(lambda: world.slot.state == LEAVING, "the first is told to leave")
    first.end()
    await world.until(lambda: any(isinstance(e, Take) for e in second.heard), "the next one takes")
    second.control.send(Ready(1, 0))
    await world.until(lambda: world.slot.is_ready, "the second is ready")
    world.slot.recycle("it is too large")
    assert world.slot.is_swollen and len(world.born) == 2


@pytest.mark.parametrize(
    ("status", "is_blamed"),
    [(signal.SIGSEGV, True), (signal.SIGKILL, False), (signal.SIGTERM, False), (70 << 8, True)],
)
async def test_what_runs_is_not_blamed_for_who_is_killed_from_outside(
    world: World, status: int, is_blamed: bool
) -> None:
    first = await world.ready()
    first.runs()
    first.end(status)
    await world.until(lambda: bool(world.blamed), "its end is told of")
    assert [[each.key for each in runs] for runs in world.blamed] == [
        [(MODEL, 3)] if is_blamed else []
    ]


async def test_what_runs_is_blamed_for_who_is_killed_because_of_it_and_not_for_who_starts_slowly(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_watch, "START_SECONDS", 0.0)
    starting = await world.next_born(1)
    starting.runs(rows=0)
    await world.until(lambda: len(world.blamed) == 1, "it is killed")
    monkeypatch.setattr(slot_watch, "START_SECONDS", 60.0)
    hung = await world.next_born(2)
    runs = BoardRuns(hung.board, SimpleNamespace, limit_ns=0)
    runs.enter(schema_of(MODEL, 3, a_signature()), 1, ROWS, 1)
    await world.until(lambda: len(world.blamed) == 2, "it is killed")
    assert [len(each) for each in world.blamed] == [0, 1]


async def test_a_slot_whose_processes_never_get_ready_has_no_writer(world: World) -> None:
    assert world.slot.has_writer
    for count in (1, 2):
        (await world.next_born(count)).end(signal.SIGSEGV)
    third = await world.next_born(3)
    assert not world.slot.has_writer
    third.board.set(Word.IS_WRITING, 1)
    assert world.slot.has_writer
    third.control.send(Ready(1, 0))
    await world.until(lambda: world.slot.is_ready)
    third.end(signal.SIGSEGV)
    await world.next_born(4)
    assert world.slot.has_writer


async def test_a_process_of_whom_the_keeper_can_not_hear_is_ended_and_followed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(message: Message) -> None:
        raise ZeroDivisionError

    first = await world.ready()
    monkeypatch.setattr(world.slot, "_heed", fails)
    first.control.send(Ready(1, 0))
    await world.next_born(2)
    assert first.signals == [signal.SIGKILL]
    assert "ZeroDivisionError" in world.slot.last_end
