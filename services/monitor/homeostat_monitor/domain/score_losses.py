"""What a score alone leads to expect of the loss: its mean per score bin, and how well known."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.bins import NumberBins, NumberColumn
from homeostat_monitor.domain.truths import Truths

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# So many rows of the mean loss are added to every bin: one lucky row is no promise.
_PRIOR_ROWS = 5.0
# Rows in a block by which it is seen how much the expected loss moves by nature.
BLOCK = 500
_FEWEST_BLOCKS = 4
_MARGIN_OVER_WORST = 1.25
_DEVIATIONS = 3.0


@dataclass(frozen=True, slots=True)
class Expected:
    """A mean loss that scores lead to expect."""

    loss: float
    # Deviation of the expectation itself, and of the mean of so many rows' losses from it.
    unsure: float
    chance: float

    @property
    def deviation(self) -> float:
        """Of what becomes true from what was expected."""
        return math.hypot(self.unsure, self.chance)


@dataclass(frozen=True, slots=True)
class ScoreLosses:
    """Per bin of the scores, as the layout counts them."""

    rows: int
    mean: float
    means: Floats
    # Of one loss within the bin.
    variances: Floats
    # Of the bin's mean itself.
    unsure: Floats
    # Variance over the hold-out's rows of what their bins lead to expect.
    spread: float
    # How far blocks of the hold-out are above its mean by nature; 0 where there are too few.
    natural: float

    @classmethod
    def of(cls, rows: Truths, bins: NumberBins) -> Self:
        """From finite hold-out rows, at least two."""
        places = places_of(rows.scores, bins)
        counts = np.bincount(places, minlength=bins.width).astype(np.float64)
        sums = np.bincount(places, weights=rows.losses, minlength=bins.width)
        squares = np.bincount(places, weights=np.square(rows.losses), minlength=bins.width)
        mean, variance = float(rows.losses.mean()), float(rows.losses.var())
        weight = counts + _PRIOR_ROWS
        means = (sums + _PRIOR_ROWS * mean) / weight
        second = (squares + _PRIOR_ROWS * (variance + mean * mean)) / weight
        variances = np.maximum(second - np.square(means), 0.0)
        # Of a bin that the hold-out never had nothing is known but the usual spread.
        unsure = np.where(counts > 0, variances / weight, max(variance, variances.max()))
        expected = means[places]
        spread, natural = float(expected.var()), _natural(expected)
        return cls(len(rows), mean, means, variances, unsure, spread, natural)

    def expect(self, histogram: Counts) -> Expected:
        """Of rows with these scores; there is at least one."""
        rows = float(histogram.sum())
        share = histogram / rows
        unsure = float((np.square(share) * self.unsure).sum())
        chance = float((share * self.variances).sum()) / rows
        return Expected(float((share * self.means).sum()), math.sqrt(unsure), math.sqrt(chance))

    def mix_chance(self, rows: int) -> float:
        """Deviation by chance of the expected loss of so many rows of the hold-out's scores from
        the hold-out's mean."""
        return math.sqrt(self.spread * (1 / max(rows, 1) + 1 / max(self.rows, 1)))


def places_of(scores: Floats, bins: NumberBins) -> NDArray[np.intp]:
    """Each finite score's bin."""
    return bins.assign(NumberColumn(scores.astype(bins.edges.dtype)))


def _natural(expected: Floats) -> float:
    whole = len(expected) // BLOCK
    if whole < _FEWEST_BLOCKS:
        return 0.0
    blocks = expected[: whole * BLOCK].reshape(whole, BLOCK).mean(axis=1) - expected.mean()
    return max(_MARGIN_OVER_WORST * float(blocks.max()), _DEVIATIONS * float(blocks.std()))
