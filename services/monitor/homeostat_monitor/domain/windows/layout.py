"""What the numbers of a row of sums mean: histograms, moments, products of pairs, a sketch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.windows.bins import Bins, CategoryBins

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]

# Under this name the scores are summed like a feature.
SCORE = "homeostat.score"
# A number is summed in steps of 1 / 256 reference deviation around the reference's mean ...
STEPS = 256
# ... clipped so many deviations away: 8192 squares of it are still exact in a float.
MOST_DEVIATIONS = 4096
# Buckets of the sketch of whole rows.
BUCKETS = 256


@dataclass(frozen=True, slots=True)
class Extras:
    """What is summed beside the histograms; fixed by the reference."""

    # Number feature -> mean and deviation of the reference.
    scales: Mapping[str, tuple[float, float]]
    # Feature -> one small whole number per bin (null bin excluded): its centred rank.
    scores: Mapping[str, tuple[int, ...]]
    # Pairs of features whose products of scores are summed.
    pairs: tuple[tuple[str, str], ...] = ()
    has_sketch: bool = True


NO_EXTRAS = Extras({}, {}, (), has_sketch=False)


@dataclass(frozen=True, slots=True)
class Layout:
    """Which numbers of a row of sums belong to which feature. Place 0 is the row count; then come
    the histograms, the moments, the pairs, the sketch."""

    names: tuple[str, ...]
    bins: tuple[Bins, ...]
    starts: tuple[int, ...]
    width: int
    # Changes with anything that would make stored sums mean something else.
    fingerprint: str
    extras: Extras = NO_EXTRAS
    # Where the histograms end and the moments, the pairs and the sketch begin.
    moments_start: int = 0
    pairs_start: int = 0
    sketch_start: int = 0

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

    def moments(self, name: str, sums: Counts) -> tuple[Counts, Counts] | None:
        """Sum and sum of squares of a number feature's present values, in 1 / STEPS reference
        deviations from the reference's mean; None for texts and scores.

        All values were one and the same (within a step) where rows x squares = sum x sum.
        """
        if name not in self.extras.scales:
            return None
        at = self.moments_start + 2 * list(self.extras.scales).index(name)
        return np.asarray(sums[..., at]), np.asarray(sums[..., at + 1])

    def mean_and_deviation(self, name: str, sums: Counts) -> tuple[float, float] | None:
        """Of a number feature's present values, in its own unit; None where there are none."""
        both = self.moments(name, sums)
        present = int(self.histogram(name, sums).sum())
        if both is None or not present:
            return None
        mean, deviation = self.extras.scales[name]
        first = int(both[0]) / present
        second = max(int(both[1]) / present - first * first, 0.0)
        return mean + first * deviation / STEPS, float(np.sqrt(second)) * deviation / STEPS

    def pair(self, number: int, sums: Counts) -> tuple[Counts, Counts]:
        """Of one of ``extras.pairs``: rows where both were present, sum of products of scores."""
        at = self.pairs_start + 2 * number
        return np.asarray(sums[..., at]), np.asarray(sums[..., at + 1])

    def sketch(self, sums: Counts) -> Counts:
        """How many rows fell into each bucket by a hash of all their inputs. Rows that are alike
        share a bucket: of n different rows about n (n - 1) / 2 BUCKETS pairs do."""
        return sums[..., self.sketch_start :]

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


def layout_of(features: Mapping[str, Bins], scores: Bins, extras: Extras = NO_EXTRAS) -> Layout:
    """The row of sums for these features, in their order, then the scores, then the extras."""
    bins = (*features.values(), scores)
    names = (*features, SCORE)
    ends = list(accumulate((each.width + 1 for each in bins), initial=1))
    digest = hashlib.sha256(b"sums-2")
    for name, each in zip(names, bins, strict=True):
        digest.update(name.encode() + b"\x00" + _bins_text(each) + b"\x01")
    digest.update(_extras_text(extras))
    pairs_start = ends[-1] + 2 * len(extras.scales)
    sketch_start = pairs_start + 2 * len(extras.pairs)
    return Layout(
        names=names,
        bins=bins,
        starts=tuple(ends[:-1]),
        width=sketch_start + BUCKETS * extras.has_sketch,
        fingerprint=digest.hexdigest()[:16],
        extras=extras,
        moments_start=ends[-1],
        pairs_start=pairs_start,
        sketch_start=sketch_start,
    )


def _bins_text(bins: Bins) -> bytes:
    if isinstance(bins, CategoryBins):
        return repr(sorted(bins.table.items())).encode()
    return bins.edges.astype(np.float64).tobytes()


def _extras_text(extras: Extras) -> bytes:
    scales = [
        (name, mean.hex(), deviation.hex()) for name, (mean, deviation) in extras.scales.items()
    ]
    used = {name for pair in extras.pairs for name in pair}
    scores = [(name, values) for name, values in extras.scores.items() if name in used]
    return repr((STEPS, scales, scores, extras.pairs, extras.has_sketch)).encode()


def score_table(layout: Layout) -> Counts:
    """The score of every place of the row up to the moments; 0 for nulls and where none is."""
    table = np.zeros(layout.moments_start, dtype=np.int64)
    for name, start in zip(layout.names, layout.starts, strict=True):
        values: Sequence[int] = layout.extras.scores.get(name, ())
        table[start : start + len(values)] = values
    return table
