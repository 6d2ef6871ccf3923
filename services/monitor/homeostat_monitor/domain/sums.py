"""Sums of a window: one histogram per feature and one of the scores, in one row of numbers.

Sums of parts add up to the sums of the whole, in any order: that is all the judges need.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.bins import Bins, CategoryBins, ColumnValues, NumberColumn
from homeostat_monitor.domain.errors import CorruptState

Counts = NDArray[np.int64]

# Under this name the scores are summed like a feature.
SCORE = "homeostat.score"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which numbers of a row of sums belong to which feature. Place 0 is the row count."""

    names: tuple[str, ...]
    bins: tuple[Bins, ...]
    starts: tuple[int, ...]
    width: int
    # Changes with anything that would make stored sums mean something else.
    fingerprint: str

    def histogram(self, name: str, sums: Counts) -> Counts:
        """The feature's bins without the null bin."""
        at = self.names.index(name)
        return sums[..., self.starts[at] : self.starts[at] + self.bins[at].width]

    def nulls(self, name: str, sums: Counts) -> Counts:
        """How many rows lacked the feature."""
        at = self.names.index(name)
        return np.asarray(sums[..., self.starts[at] + self.bins[at].width])

    def unseen(self, name: str, sums: Counts) -> Counts:
        """How many rows had a text that the reference never had; 0 for numbers."""
        at = self.names.index(name)
        bins = self.bins[at]
        if isinstance(bins, CategoryBins):
            return np.asarray(sums[..., self.starts[at] + bins.unseen])
        return np.zeros_like(sums[..., 0])

    def out_of_range(self, name: str, sums: Counts) -> int:
        """How many rows had a number outside the reference's range; 0 for texts."""
        at = self.names.index(name)
        bins = self.bins[at]
        if isinstance(bins, CategoryBins):
            return 0
        return int(sum(sums[self.starts[at] + place] for place in bins.outside))

    def empty(self) -> Counts:
        """The sums of no rows."""
        return np.zeros(self.width, dtype=np.int64)

    def to_bytes(self, sums: Counts) -> bytes:
        """Little-endian int64."""
        return sums.astype("<i8").tobytes()

    def from_bytes(self, data: bytes) -> Counts:
        """The opposite of to_bytes; CorruptState where the length is another."""
        if len(data) != self.width * 8:
            raise CorruptState(f"sums have {len(data)} bytes, the layout needs {self.width * 8}")
        return np.frombuffer(data, dtype="<i8").astype(np.int64)


def layout_of(features: Mapping[str, Bins], scores: Bins) -> Layout:
    """The row of sums for these features, in their order, then the scores."""
    bins = (*features.values(), scores)
    names = (*features, SCORE)
    ends = list(accumulate((each.width + 1 for each in bins), initial=1))
    digest = hashlib.sha256(b"sums-1")
    for name, each in zip(names, bins, strict=True):
        digest.update(name.encode() + b"\x00" + _bins_text(each) + b"\x01")
    return Layout(names, bins, tuple(ends[:-1]), ends[-1], digest.hexdigest()[:16])


def _bins_text(bins: Bins) -> bytes:
    if isinstance(bins, CategoryBins):
        return repr(sorted(bins.table.items())).encode()
    return bins.edges.astype(np.float64).tobytes()


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one version: when each happens, which sum it belongs to, and its columns."""

    # For every row the index of its sum, 0 .. groups - 1.
    groups: NDArray[np.intp]
    group_count: int
    # In the layout's order, without the scores.
    columns: Sequence[ColumnValues]
    scores: NDArray[np.float64]


def count(layout: Layout, rows: Rows) -> Counts:
    """One row of sums per group."""
    total = rows.group_count
    sums = np.zeros((total, layout.width), dtype=np.int64)
    sums[:, 0] = np.bincount(rows.groups, minlength=total)
    columns = (*rows.columns, NumberColumn(rows.scores))
    for bins, start, column in zip(layout.bins, layout.starts, columns, strict=True):
        width = bins.width + 1
        places = bins.assign(column)
        if total > 1:
            places = places + rows.groups * width
        histogram = np.bincount(places, minlength=total * width)
        sums[:, start : start + width] = histogram.reshape(total, width)
    return sums
