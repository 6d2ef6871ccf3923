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
_WIDEST = 128
# Checkpoints that are no longer needed are dropped when so many have come together.
_ROOM = 256


@dataclass(frozen=True, slots=True)
class Looks:
    """What is looked at after a portion of panes; arrays of one length, shorter spans first."""

    # Place of the pane in the portion.
    panes: NDArray[np.intp]
    # Panes since this scale was looked at last: what it may spend.
    saved: Ints
    sums: Ints
    since_us: Ints
    # Which of them are looks at the longest span.
    longest: NDArray[np.intp]


class Spans:
    """Cumulative sums of panes, first column the rows."""

    def __init__(self, scales: tuple[int, ...], width: int) -> None:
        self._scales = np.array(scales, dtype=np.int64)
        # A scale is looked at again when a quarter of it has passed.
        self._strides = np.maximum(self._scales // 4, 1)
        self._reach = 4 * int(self._scales[-1])
        self._at = np.zeros(_ROOM, dtype=np.int64)
        self._ends_us = np.zeros(_ROOM, dtype=np.int64)
        self._sums = np.zeros((_ROOM, width), dtype=np.int64)
        self._held = 1
        self._looked = np.zeros(len(scales), dtype=np.int64)

    def add(self, sums: Ints, starts_us: Ints, ends_us: Ints) -> Looks:
        """Panes in order; [panes, width]."""
        fed = len(sums)
        if self._held + fed > len(self._at):
            self._drop(fed)
        held, end = self._held, self._held + fed
        last = int(self._at[held - 1])
        if not last:
            self._ends_us[0] = starts_us[0]
        self._at[held:end] = np.arange(last + 1, last + 1 + fed)
        self._ends_us[held:end] = ends_us
        np.cumsum(sums, axis=0, out=self._sums[held:end])
        self._sums[held:end] += self._sums[held - 1]
        self._held = end
        return self._looks(held)

    def _looks(self, first: int) -> Looks:
        """Of the panes from the place ``first`` on."""
        at, sums = self._at[: self._held], self._sums[: self._held]
        rows = np.ascontiguousarray(sums[:, 0])
        passed = rows[first - 1 :] // self._strides[:, None]
        is_due = passed[:, 1:] != passed[:, :-1]
        # Scale by scale, so that what lies between two looks is a difference of neighbours.
        scales, panes = np.divmod(is_due.ravel().nonzero()[0], is_due.shape[1])
        places = first + panes
        saved = self._save(scales, at[places])
        froms = self._from(at, rows, places, self._scales[scales])
        usable = froms >= 0
        if not usable.all():
            panes, saved, places, froms = (each[usable] for each in (panes, saved, places, froms))
            scales = scales[usable]
        spans = sums.take(places, axis=0)
        spans -= sums.take(froms, axis=0)
        longest = np.flatnonzero(scales == len(self._scales) - 1)
        return Looks(panes, saved, spans, self._ends_us[froms], longest)

    def _save(self, scales: NDArray[np.intp], numbers: Ints) -> Ints:
        """Panes between a look and the one before it."""
        before = self._looked[scales]
        is_same = scales[1:] == scales[:-1]
        np.copyto(before[1:], numbers[:-1], where=is_same)
        # Of several looks at one scale the last one stays.
        self._looked[scales] = numbers
        saved: Ints = numbers - before
        return saved

    def _from(self, at: Ints, rows: Ints, places: NDArray[np.intp], wanted: Ints) -> Ints:
        """The latest checkpoint, of those kept, that has the wanted rows after it; or -1."""
        newest = rows.searchsorted(rows[places] - wanted, side="right") - 1
        begin, now = at[np.maximum(newest, 0)], at[places]
        far = now - begin
        if far.max(initial=0) <= _NEAR:
            # Near ones are all kept.
            return newest
        # The finest spacing at which one is kept is this one or the next.
        level = np.ceil(np.log2(np.maximum(far, _NEAR) / _NEAR)).astype(np.int64)
        level += now - (begin >> level << level) > _NEAR << level
        begin = begin >> level << level
        found = np.minimum(at.searchsorted(begin), len(at) - 1)
        age = now - begin
        near = (rows[places] - rows[found] <= self._reach) | (age <= _NEAR)
        usable = (newest >= 0) & (at[found] == begin) & near & (age <= _MOST_PANES)
        froms: Ints = np.where(usable, found, -1)
        return froms

    def _kept(self) -> NDArray[np.intp]:
        at, rows = self._at[: self._held], self._sums[: self._held, 0]
        age = at[-1] - at
        spacing = np.where(at > 0, np.minimum(at & -at, _WIDEST), _WIDEST)
        near = (rows[-1] - rows <= self._reach) | (age <= _NEAR)
        return np.flatnonzero((age <= _NEAR * spacing) & near & (age <= _MOST_PANES))

    def _drop(self, room: int) -> None:
        kept = self._kept()
        size = max(_ROOM, len(kept) + room)
        for name in ("_at", "_ends_us", "_sums"):
            old = getattr(self, name)
            new = np.zeros((size, *old.shape[1:]), dtype=np.int64)
            new[: len(kept)] = old[kept]
            setattr(self, name, new)
        self._held = len(kept)

    def arrays(self) -> dict[str, Ints]:
        """Everything that is remembered. Differences, which are small and pack well."""
        kept = self._kept()
        sums = self._sums[kept]
        return {
            "at": self._at[kept],
            "ends_us": self._ends_us[kept],
            "first": sums[:1],
            "steps": np.diff(sums, axis=0),
            "looked": self._looked.copy(),
        }

    def restore(self, arrays: dict[str, Ints]) -> None:
        """The opposite of arrays; CorruptState where they are of other scales or another width."""
        width, scales = self._sums.shape[1], len(self._scales)
        steps, first, count = arrays["steps"], arrays["first"], len(arrays["at"])
        shapes = (first.shape, steps.shape, arrays["looked"].shape, arrays["ends_us"].shape)
        if shapes != ((1, width), (count - 1, width), (scales,), (count,)):
            raise CorruptState("the spans are of another reference")
        if any(each.dtype != np.int64 for each in arrays.values()):
            raise CorruptState("the spans are no whole numbers")
        self._at, self._ends_us = arrays["at"], arrays["ends_us"]
        self._sums = np.concatenate([first, first + np.cumsum(steps, axis=0)])
        self._held = count
        self._looked = arrays["looked"]
