"""Promises about time are plausible, and kept."""

from typing import Any

import pytest

from homeostat_inference.app.book import BlockBook
from homeostat_inference.app.ports import Chain, Done, Kind
from homeostat_inference.app.truth import MAX_LEAP_US, CallerMarks
from homeostat_inference.domain.errors import InvalidInput
from homeostat_kit.clock import FixedClock

NOW_US = 1_700_000_000_000_000


class MemoryJournal:
    """Keeps everything, or refuses it."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.kinds: list[Kind] = []

    def append(
        self,
        kind: Kind,
        payload: bytes,
        *,
        done: Done | None = None,
        chain: Chain | None = None,
        must: bool = False,
    ) -> None:
        if self.error is None:
            self.kinds.append(kind)
        if done is not None:
            done(self.error)

    def commit(self) -> None:
        pass


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
