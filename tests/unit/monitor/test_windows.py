"""Windows and panes: how long, and which are due."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat_monitor.domain.windows.window import (
    PANE_LENGTHS_US,
    Skipped,
    Window,
    due_windows,
    pane_length_us,
)

SECOND_US = 1_000_000


def sums_of(rows_by_start: dict[int, int]) -> dict[int, np.ndarray]:
    return {start: np.array([rows, rows]) for start, rows in rows_by_start.items()}


@pytest.mark.parametrize(
    ("rows_a_second", "length_us"),
    [(100, SECOND_US), (5, 10 * SECOND_US), (1, 60 * SECOND_US)],
)
def test_a_pane_is_the_shortest_that_usually_holds_25_rows(
    rows_a_second: int, length_us: int
) -> None:
    times = np.arange(20_000, dtype=np.int64) * (SECOND_US // rows_a_second)
    assert pane_length_us(times) == length_us


def test_nights_without_rows_do_not_make_panes_longer() -> None:
    times = np.concatenate(
        [np.arange(3000) * 10_000 + day * 86_400 * SECOND_US for day in range(5)]
    )
    assert pane_length_us(times.astype(np.int64)) == SECOND_US


def test_panes_are_at_most_a_day() -> None:
    assert pane_length_us(np.array([0, 10**15], dtype=np.int64)) == PANE_LENGTHS_US[-1]
    assert pane_length_us(np.empty(0, dtype=np.int64)) == PANE_LENGTHS_US[-1]


def test_a_pane_of_one_row_is_due_and_an_empty_one_is_none() -> None:
    sums = sums_of({0: 1, 10: 0, 20: 3})
    due = list(due_windows(sums, length_us=10, from_us=0, until_us=30, fewest_rows=1))
    assert [(each.start_us, each.end_us, each.rows) for each in due] == [(0, 10, 1), (20, 30, 3)]


def test_windows_still_wait_for_a_hundred_rows() -> None:
    due = list(due_windows(sums_of({0: 60, 10: 60}), length_us=10, from_us=0, until_us=20))
    assert [(each.start_us, each.end_us) for each in due] == [(0, 20)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.lists(st.integers(0, 300)))
def test_panes_are_the_same_whenever_one_looks(rows: list[int], marks: list[int]) -> None:
    sums = sums_of({10 * place: each for place, each in enumerate(rows)})
    end = 10 * len(rows)

    def due(begin: int, until: int) -> list[Window | Skipped]:
        return list(due_windows(sums, length_us=10, from_us=begin, until_us=until, fewest_rows=1))

    at_once = [(each.start_us, each.rows) for each in due(0, end)]
    found, begin = [], 0
    for mark in [*sorted(marks), end]:
        for each in due(begin, min(mark, end)):
            found.append((each.start_us, each.rows))
            begin = each.end_us
    assert found == at_once
