"""When to look although nothing came: a stream that stopped brings no window that would say so.

Looks are at fixed times after the last window: after 2, 4, 8 ... lengths, then every hour (or
length) of two weeks, since who fell silent in the evening is missed in the morning. So a model that
fell silent for good costs nothing in the end, and what is found does not depend on how many marks
came at once. All looks at one silence are one test: the longer it lasts the less likely it is.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.windows.window import Window

DAY_US = 86_400_000_000
_HOUR_US = 3_600_000_000
_LONGEST_US = 14 * DAY_US
# Of windows so long that two weeks have few of them.
_FEWEST_LOOKS = 4


@runtime_checkable
class Patient(Protocol):
    """A detector that can say whether rows should have come."""

    @property
    def until_us(self) -> int | None:
        """The end of the last window; None: there was none yet."""
        ...

    def overdue(self, now_us: int) -> Finding | None:
        """A breach where rows should have come since the last window and none did."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """At a time without rows since the last window's end, and the mark that makes it certain."""

    since_us: int
    at_us: int
    mark_us: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """What is known of the time without windows."""

    length_us: int
    # Of all closed sums, ascending: one that is too thin to be a window waits, and is no silence.
    starts: Sequence[int]
    # The end of the last window; None: there was none yet.
    since_us: int | None
    # Up to here was looked before.
    looked_until_us: int | None


def next_look(since_us: int, after_us: int, length_us: int) -> int | None:
    """The first look after that time; ``since_us``: the end of the last window. None: no more."""
    return next((each for each in _times(since_us, length_us) if each > after_us), None)


def parts(
    windows: Sequence[Window],
    marks: Sequence[int],
    quiet: Quiet,
) -> Iterator[tuple[list[Window], list[Look]]]:
    """Windows in their order, with the looks that were due before the next one was closed."""
    since_us = quiet.since_us
    part: list[Window] = []
    for window in windows:
        mark = marks[bisect_left(marks, window.end_us)]
        looks = list(_looks(quiet, since_us, marks, mark))
        if looks:
            yield part, looks
            part = []
        part.append(window)
        since_us = window.end_us
    yield part, list(_looks(quiet, since_us, marks, marks[-1] + 1))


def _looks(quiet: Quiet, since_us: int | None, marks: Sequence[int], before: int) -> Iterator[Look]:
    """Those whose mark comes before another."""
    if since_us is None:
        return
    first = bisect_left(quiet.starts, since_us)
    for at_us in _times(since_us, quiet.length_us):
        place = bisect_left(marks, at_us)
        if place == len(marks) or marks[place] >= before:
            return
        if first < len(quiet.starts) and quiet.starts[first] + quiet.length_us <= at_us:
            return
        if quiet.looked_until_us is None or at_us > quiet.looked_until_us:
            yield Look(since_us, at_us, marks[place])


def _times(since_us: int, length_us: int) -> Iterator[int]:
    gap = 2 * length_us
    while gap <= max(_LONGEST_US, _FEWEST_LOOKS * length_us):
        yield since_us + gap
        gap += max(length_us, min(gap, _HOUR_US))
