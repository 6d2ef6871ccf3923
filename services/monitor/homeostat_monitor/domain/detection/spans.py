"""The past as few cumulative sums: enough of them to look back over spans of any wanted length.

A checkpoint is the sum of everything up to the end of a pane. Near ones are all kept, of older ones
every second, every fourth and so on, so that a span is at most a sixteenth longer than asked for.
Which ones are kept depends on the number of panes and rows alone, never on how they were fed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.errors import CorruptState

Ints = NDArray[np.int64]

# Checkpoints kept of each spacing.
_NEAR = 16
# Panes back; panes of hardly any rows end the look-back before the longest span is reached.
_MOST_PANES = 1024
_MOST_LEVELS = 7


@dataclass(frozen=True, slots=True)
class Looks:
    """What is looked at after a portion of panes; arrays of one length, by pane."""

    # Place of the pane in the portion, and of the scale.
    panes: NDArray[np.intp]
    scales: NDArray[np.intp]
    # Panes since this scale was looked at last: what it may spend.
    saved: Ints
    sums: Ints
    since_us: Ints


class Spans:
    """Cumulative sums of panes, first column the rows."""

    def __init__(self, scales: tuple[int, ...], width: int) -> None:
        self._scales = np.array(scales, dtype=np.int64)
        # A scale is looked at again when an eighth of it has passed.
        self._strides = np.maximum(self._scales // 8, 1)
        self._reach = 4 * int(self._scales[-1])
        self._at = np.zeros(1, dtype=np.int64)
        self._ends_us = np.zeros(1, dtype=np.int64)
        self._sums = np.zeros((1, width), dtype=np.int64)
        self._looked = np.zeros(len(scales), dtype=np.int64)

    def add(self, sums: Ints, starts_us: Ints, ends_us: Ints) -> Looks:
        """Panes in order; [panes, width]."""
        fed, kept = len(sums), len(self._at)
        last = int(self._at[-1])
        if not last:
            self._ends_us[0] = starts_us[0]
        at = np.concatenate([self._at, last + 1 + np.arange(fed)])
        ends = np.concatenate([self._ends_us, ends_us])
        whole = np.concatenate([self._sums, self._sums[-1] + np.cumsum(sums, axis=0)])
        looks = self._looks(at, ends, whole, kept)
        keep = self._kept(at, whole[:, 0])
        self._at, self._ends_us, self._sums = at[keep], ends[keep], whole[keep]
        return looks

    def _looks(self, at: Ints, ends_us: Ints, whole: Ints, kept: int) -> Looks:
        rows = whole[:, 0]
        passed = rows[kept - 1 :, None] // self._strides
        # Scale by scale, so that what lies between two looks is a difference of neighbours.
        scales, panes = np.nonzero((passed[1:] != passed[:-1]).T)
        numbers = at[kept + panes]
        saved = self._save(scales, numbers)
        froms = self._from(at, rows, kept + panes, self._scales[scales])
        usable = froms >= 0
        order = np.flatnonzero(usable)[np.argsort(panes[usable], kind="stable")]
        froms, panes = froms[order], panes[order]
        return Looks(
            panes=panes,
            scales=scales[order],
            saved=saved[order],
            sums=whole[kept + panes] - whole[froms],
            since_us=ends_us[froms],
        )

    def _save(self, scales: NDArray[np.intp], numbers: Ints) -> Ints:
        if not len(scales):
            return numbers
        is_first = np.concatenate([[True], scales[1:] != scales[:-1]])
        before = np.where(is_first, self._looked[scales], np.concatenate([[0], numbers[:-1]]))
        is_last = np.concatenate([is_first[1:], [True]])
        self._looked[scales[is_last]] = numbers[is_last]
        saved: Ints = numbers - before
        return saved

    def _from(self, at: Ints, rows: Ints, places: NDArray[np.intp], wanted: Ints) -> Ints:
        """The latest checkpoint, of those kept, that has the wanted rows after it; or -1."""
        newest = np.searchsorted(rows, rows[places] - wanted, side="right") - 1
        begin, now = at[np.maximum(newest, 0)], at[places]
        # The finest spacing at which one is kept is this one or the next.
        level = np.ceil(np.log2(np.maximum(now - begin, _NEAR) / _NEAR)).astype(np.int64)
        level += now - (begin >> level << level) > _NEAR << level
        begin = begin >> level << level
        found = np.minimum(np.searchsorted(at, begin), len(at) - 1)
        age = now - begin
        near = (rows[places] - rows[found] <= self._reach) | (age <= _NEAR)
        usable = (newest >= 0) & (at[found] == begin) & near & (age <= _MOST_PANES)
        froms: Ints = np.where(usable, found, -1)
        return froms

    def _kept(self, at: Ints, rows: Ints) -> NDArray[np.bool_]:
        age = at[-1] - at
        lowest = np.where(at > 0, at & -at, 1 << _MOST_LEVELS)
        spaced = age <= _NEAR * np.minimum(lowest, 1 << _MOST_LEVELS)
        near = (rows[-1] - rows <= self._reach) | (age <= _NEAR)
        kept: NDArray[np.bool_] = spaced & near & (age <= _MOST_PANES)
        return kept

    def arrays(self) -> dict[str, Ints]:
        """Everything that is remembered. Differences, which are small and pack well."""
        return {
            "at": self._at,
            "ends_us": self._ends_us,
            "first": self._sums[:1],
            "steps": np.diff(self._sums, axis=0),
            "looked": self._looked,
        }

    def restore(self, arrays: dict[str, Ints]) -> None:
        """The opposite of arrays; CorruptState where they are of other scales or another width."""
        width, scales = self._sums.shape[1], len(self._scales)
        steps, first, count = arrays["steps"], arrays["first"], len(arrays["at"])
        shapes = (first.shape, steps.shape, arrays["looked"].shape, arrays["ends_us"].shape)
        if shapes != ((1, width), (count - 1, width), (scales,), (count,)):
            raise CorruptState("the spans are of another reference")
        self._at, self._ends_us = arrays["at"], arrays["ends_us"]
        self._sums = np.concatenate([first, first + np.cumsum(steps, axis=0)])
        self._looked = arrays["looked"]
