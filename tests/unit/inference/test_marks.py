"""Promises about time are plausible, and kept."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support.journals import MemoryJournal

from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.inference.v1.truth_pb2 import RecordOutcomesRequest
from homeostat_inference.app.book import BlockBook
from homeostat_inference.app.ports import Kind
from homeostat_inference.app.truth import MAX_LEAP_US, CallerMarks
from homeostat_inference.domain.errors import InvalidInput, NotKept
from homeostat_inference.domain.times import TimeBounds, bounds
from homeostat_inference.edges import keeper_api
from homeostat_inference.edges.callers import CallersPromises
from homeostat_inference.edges.keeper_api import KeeperTruthApi
from homeostat_inference.edges.marks_file import MarkFile
from homeostat_inference.edges.shadow_positions import (
    Position,
    bound_positions,
    load_positions,
    save_positions,
)
from homeostat_kit.clock import FixedClock

NOW_US = 1_700_000_000_000_000


def advance(marks: CallerMarks, mark_us: int, book: BlockBook | None = None) -> list[Any]:
    told: list[Any] = []
    book = book or BlockBook(MemoryJournal(), FixedClock(NOW_US))
    marks.advance(mark_us, book, told.append, latest_us=max(NOW_US, marks.mark_us or 0))
    return told


def test_a_mark_in_nanoseconds_is_refused_and_blocks_nothing() -> None:
    marks = CallerMarks(is_explicit=True, mark_us=NOW_US)
    with pytest.raises(InvalidInput, match="microseconds"):
        advance(marks, NOW_US * 1000)
    assert marks.mark_us == NOW_US
    assert advance(marks, NOW_US + 1) == [None]


def test_a_replay_may_run_ahead_of_the_clock_from_mark_to_mark() -> None:
    marks = CallerMarks(is_explicit=True, mark_us=None)
    for leaps in range(1, 4):
        assert advance(marks, NOW_US + leaps * MAX_LEAP_US) == [None]


class World:
    """The keeper's truth and its callers' promises, over a journal in memory."""

    def __init__(self, folder: Path) -> None:
        self.journal = MemoryJournal()
        self.marks = CallerMarks(is_explicit=True, mark_us=NOW_US)
        self.callers = CallersPromises(
            self.marks, MarkFile(folder / "mark"), self.journal, (), NOW_US
        )
        self.truth = KeeperTruthApi(
            champions=lambda name: {},
            journal=self.journal,
            advance=self.callers.advance,
            clock=FixedClock(NOW_US),
            times=self.times,
            secret=b"secret",
            durability="durable",
            is_leaving=lambda: False,
            promising=self.callers.promising,
        )

    def times(self, now_us: int) -> TimeBounds:
        return bounds(now_us, self.marks.mark_us, 1_000_000)


def truths_at(known_at_us: int) -> OutcomeBlock:
    return OutcomeBlock(
        model_name="m", row_count=1, known_at_us=known_at_us.to_bytes(8, "little", signed=True)
    )


async def test_truths_that_a_promise_overtook_are_refused_and_the_loop_goes_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked, promised = threading.Event(), threading.Event()

    def checks_slowly(*args: Any, **more: Any) -> OutcomeBlock:
        checked.set()
        assert promised.wait(60)
        return truths_at(NOW_US + 1)

    monkeypatch.setattr(keeper_api, "outcome_block", checks_slowly)
    world = World(tmp_path)
    asked = asyncio.create_task(world.truth.RecordOutcomes(RecordOutcomesRequest(), None))
    assert await asyncio.to_thread(checked.wait, 10)
    await world.callers.advance(NOW_US + 2, NOW_US)
    promised.set()
    with pytest.raises(InvalidInput, match="watermark"):
        await asked
    assert world.journal.kinds == [Kind.CALLER_MARK]


async def test_a_promise_that_the_journal_refused_is_none(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.journal.error = NotKept("full")
    with pytest.raises(NotKept):
        await world.callers.advance(NOW_US + 2, NOW_US)
    assert world.marks.mark_us == NOW_US


def test_where_a_loss_of_power_cut_a_journal_its_reader_goes_on_at_the_new_end(
    tmp_path: Path,
) -> None:
    file = tmp_path / "positions.json"
    save_positions(file, {"worker-0": Position(500, 7), "worker-1": Position(500, 7)})
    bound_positions(file, {"worker-0": 100, "worker-1": 900})
    assert load_positions(file) == {"worker-0": Position(100, 7), "worker-1": Position(500, 7)}
