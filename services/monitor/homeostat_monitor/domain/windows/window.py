"""Windows of event time: how long, aligned how, and which are due."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.windows.layout import Counts

HOUR_US = 3_600_000_000
# Tried from the shortest: a shorter window sees a change earlier.
LENGTHS_US = tuple(hours * HOUR_US for hours in (1, 3, 6, 12, 24, 168))
# A distance between histograms is mostly noise below this.
TYPICAL_ROWS = 500
# Fewer rows than this are not judged but wait for the next window.
FEWEST_ROWS = 100
# Panes of i.i.d. mode: a detector joins them to spans, so they may be as short as traffic allows.
PANE_LENGTHS_US = tuple(seconds * 1_000_000 for seconds in (1, 10, 60, 600, 3_600, 21_600, 86_400))
TYPICAL_PANE_ROWS = 25
# A window is merged forward over at most so many lengths.
_MOST_MERGED = 7


def window_length_us(event_times: NDArray[np.int64]) -> int:
    """The shortest length whose median reference window holds enough rows, else the longest."""
    return _shortest(event_times, LENGTHS_US, TYPICAL_ROWS)


def pane_length_us(event_times: NDArray[np.int64]) -> int:
    """The shortest pane whose median nonempty reference pane holds enough rows, else the longest.

    ``event_times``: microseconds, in any order.
    """
    return _shortest(event_times, PANE_LENGTHS_US, TYPICAL_PANE_ROWS)


def _shortest(event_times: NDArray[np.int64], lengths_us: tuple[int, ...], rows: int) -> int:
    for length in lengths_us:
        _, counts = np.unique(event_times // length, return_counts=True)
        if len(counts) and float(np.median(counts)) >= rows:
            return length
    return lengths_us[-1]


@dataclass(frozen=True, slots=True)
class Window:
    """Sums of [start_us, end_us), ready to be judged."""

    start_us: int
    end_us: int
    sums: Counts

    @property
    def rows(self) -> int:
        return int(self.sums[0])


@dataclass(frozen=True, slots=True)
class Skipped:
    """A span with too few rows to say anything about."""

    start_us: int
    end_us: int
    rows: int


def due_windows(
    sums_by_start: Mapping[int, Counts],
    *,
    length_us: int,
    from_us: int,
    until_us: int,
    fewest_rows: int = FEWEST_ROWS,
) -> Iterator[Window | Skipped]:
    """Windows in [from_us, until_us) in order; thin ones are merged forward, in the end skipped.

    The same sums give the same windows however often ``until_us`` stopped in between, as long as
    the caller goes on from the end of the last window it got. Panes are due with ``fewest_rows``
    of 1: each is a window of its own, and an empty one is none.
    """
    begin = from_us
    merged: Counts | None = None
    for start in sorted(sums_by_start):
        end = start + length_us
        if start < from_us or end > until_us or not sums_by_start[start][0]:
            continue
        if merged is not None and end - begin > _MOST_MERGED * length_us:
            yield Skipped(begin, start, int(merged[0]))
            merged = None
        if merged is None:
            begin = start
        merged = sums_by_start[start] if merged is None else merged + sums_by_start[start]
        if merged[0] >= max(fewest_rows, 1):
            yield Window(begin, end, merged)
            merged = None


def merge(parts: Iterable[tuple[int, Counts]]) -> dict[int, Counts]:
    """Sums per window start over all partitions."""
    whole: dict[int, Counts] = {}
    for start, sums in parts:
        whole[start] = whole[start] + sums if start in whole else sums
    return whole
