"""When a silence is looked at: soon after it began, in the morning after, and not for ever."""

from itertools import pairwise

import pytest

from homeostat_monitor.domain.windows.looks import DAY_US, Look, Quiet, next_look, parts
from homeostat_monitor.domain.windows.window import HOUR_US

SECOND_US = 1_000_000


def times(length_us: int) -> list[int]:
    found: list[int] = []
    at = next_look(0, 0, length_us)
    while at is not None:
        found.append(at)
        at = next_look(0, at, length_us)
    return found


@pytest.mark.parametrize("length_us", [SECOND_US, 60 * SECOND_US, HOUR_US, DAY_US, 7 * DAY_US])
def test_looks_begin_at_once_come_every_hour_and_end(length_us: int) -> None:
    found = times(length_us)
    assert found[0] == 2 * length_us
    assert max(b - a for a, b in pairwise(found)) <= max(HOUR_US, length_us)
    assert 14 * DAY_US - max(HOUR_US, length_us) < found[-1] <= max(14 * DAY_US, 4 * length_us)
    assert len(found) < 400


def test_the_same_looks_are_had_however_the_marks_came() -> None:
    marks = [each * HOUR_US // 3 for each in range(1, 100)]

    def looks(quiet: Quiet, passed: list[int]) -> list[Look]:
        return [look for _, found in parts([], passed, quiet) for look in found]

    at_once = looks(Quiet(HOUR_US, [], 0, None), marks)
    one_by_one = []
    until = None
    for mark in marks:
        one_by_one += looks(Quiet(HOUR_US, [], 0, until), [mark])
        until = mark
    assert one_by_one == at_once
    assert len(at_once) == 32
