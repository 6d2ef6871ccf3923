"""What is kept of judged windows: fine for the newest, coarser with age, by doubling twice.

A window's coarseness depends on its age and on nothing else, so that windows may be joined early
or late, once or again and again: what is seen of them at a moment is the same.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby

from homeostat_monitor.domain.windows.window import Window

# Blocks of one coarseness that are kept before they are joined, and of how many finer ones each is.
_KEPT = 32
_JOINED = 4
# What a diagnosis is to look back on, at the least.
_LEAST_SPAN_US = 10 * 86_400_000_000
_LEAST_ROWS = 20_000
_MOST_LEVELS = 16


def levels_of(length_us: int, rows_per_us: float) -> int:
    """Coarsest level that spans ten days and 20,000 rows; 0: windows stay as they are."""
    span = max(_LEAST_SPAN_US, _LEAST_ROWS / rows_per_us if rows_per_us > 0 else 0)
    level = 0
    while length_us * _JOINED**level * _KEPT < span and level < _MOST_LEVELS:
        level += 1
    return level


def kept(windows: Iterable[Window], *, at_us: int, length_us: int, levels: int) -> list[Window]:
    """Windows, oldest first, as they are kept at that time; those far past are gone."""
    parts = [(_block(each, at_us, length_us, levels), each) for each in windows]
    return [
        _whole([each for _, each in part])
        for (level, _), part in groupby(parts, key=lambda pair: pair[0])
        if level <= levels
    ]


def coarse(
    windows: Iterable[Window], *, before_us: int, length_us: int, levels: int
) -> list[Window]:
    """Whole blocks of the coarsest kind that ended by then: the same whatever came since."""
    size = length_us * _JOINED**levels
    until = before_us - before_us % size
    joined = groupby(windows, key=lambda each: each.start_us // size)
    return [_whole(list(part)) for block, part in joined if (block + 1) * size <= until]


def _block(window: Window, at_us: int, length_us: int, levels: int) -> tuple[int, int]:
    """Level and number of the block that it belongs to at that time."""
    for level in range(levels + 1):
        size = length_us * _JOINED**level
        wider = size * _JOINED
        # All blocks within one wider block grow old together.
        age = at_us // wider - window.start_us // wider
        if age * _JOINED <= _KEPT or (level == levels and age * _JOINED <= 2 * _KEPT):
            return level, window.start_us // size
    return levels + 1, 0


def _whole(parts: Sequence[Window]) -> Window:
    if len(parts) == 1:
        return parts[0]
    sums = parts[0].sums.copy()
    for each in parts[1:]:
        sums += each.sums
    return Window(parts[0].start_us, parts[-1].end_us, sums)
