"""What a worker does with what the keeper tells it."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support.waiting import eventually

from homeostat_inference.domain.errors import NotKept
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.control import AskMark, Assignment, Marked, Message
from homeostat_inference.settings import InferenceSettings
from homeostat_inference.worker import Worker


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Worker, list[Any]]]:
    """One that has no slot yet, and what it says."""
    said: list[Message] = []
    board, bell = Board.create("worker-0"), os.eventfd(0)
    assignment = Assignment(0, "127.0.0.1:1", None, "unix:/nowhere", is_successor=True)
    made = Worker(InferenceSettings(data_folder=tmp_path), assignment, board, bell)
    monkeypatch.setattr(made, "_control", SimpleNamespace(send=said.append), raising=False)
    yield made, said
    board.close()
    os.close(bell)


async def test_who_waits_for_a_slot_keeps_no_promise_in_its_journal(
    worker: tuple[Worker, list[Any]], tmp_path: Path
) -> None:
    waiting, said = worker
    await waiting._obey(AskMark(7, 1_000))
    assert [(type(each), each.number, bool(each.error)) for each in said] == [(Marked, 7, True)]
    assert not list(tmp_path.rglob("*"))  # noqa: ASYNC240 - an empty folder


async def test_a_slow_disk_holds_up_no_call_that_waits_on_the_event_loop(
    worker: tuple[Worker, list[Any]],
) -> None:
    made, _ = worker
    threads: list[threading.Thread] = []

    def note(*told: Any) -> None:
        threads.append(threading.current_thread())

    made._loop = asyncio.get_running_loop()
    made._journal = SimpleNamespace(records_count=0)  # type: ignore[assignment]
    made._book = SimpleNamespace(  # type: ignore[assignment]
        open_rows=1, has_older_than=lambda opened_us: True, seal_older_than=note, mark=note
    )
    ticking = asyncio.create_task(made._tick())
    await eventually(lambda: len(threads) > 2)
    ticking.cancel()
    assert threading.main_thread() not in threads


def test_a_promise_that_the_journal_refused_is_shown_to_nobody(
    worker: tuple[Worker, list[Any]],
) -> None:
    made, _ = worker
    told: list[Any] = []
    made._journal = SimpleNamespace(records_count=0)  # type: ignore[assignment]
    made._book = SimpleNamespace(mark=lambda kind, mark_us, done: told.append(done))  # type: ignore[assignment]
    made._promise(1_000_000_000)
    told[0](NotKept("full"))
    assert made._board.get(Word.LAST_MARK_US) == 0
    told[0](None)
    assert made._board.get(Word.LAST_MARK_US) > 0
