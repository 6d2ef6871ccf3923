"""What a score alone leads to expect of the loss: its mean per score bin, and how well known."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.windows.bins import NumberBins, NumberColumn

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# So many rows of the mean loss are added to every bin: one lucky row is no promise.
_PRIOR_ROWS = 5.0
# Rows in a block by which it is seen how much the expected loss moves by nature.
BLOCK = 500
_FEWEST_BLOCKS = 4
_MARGIN_OVER_WORST = 1.25
_DEVIATIONS = 3.0
# Blocks that tell a habit of their own, where their means vary so much more than chance has it.
_FEWEST_OF_HABIT = 8
_MORE_THAN_CHANCE = 2.0


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
    natural: "Natural"

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


@dataclass(frozen=True, slots=True)
class Natural:
    """How far blocks of the hold-out are above its mean by nature."""

    # With a margin, or so many deviations; 0 where there are too few blocks.
    worst: float
    # Of the blocks' means, and as how many independent ones they count; 0: as chance has it.
    deviation: float
    independent: float

    def at(self, level: float) -> float:
        """What a further block is above the mean with that chance: a prediction interval of as
        many normal means as the blocks count for."""
        if not self.independent:
            return self.worst
        from scipy.special import stdtrit  # noqa: PLC0415 - scipy takes a second to import

        freedom = max(self.independent - 1, 1.0)
        away = float(stdtrit(freedom, 1 - level)) * math.sqrt(1 + 1 / self.independent)
        return max(self.worst, away * self.deviation)


def _natural(expected: Floats) -> Natural:
    whole = len(expected) // BLOCK
    if whole < _FEWEST_BLOCKS:
        return Natural(0.0, 0.0, 0.0)
    blocks = expected[: whole * BLOCK].reshape(whole, BLOCK).mean(axis=1) - expected.mean()
    worst = max(_MARGIN_OVER_WORST * float(blocks.max()), _DEVIATIONS * float(blocks.std()))
    deviation = float(blocks.std(ddof=1))
    by_chance = float(expected.std()) / math.sqrt(BLOCK)
    if whole < _FEWEST_OF_HABIT or deviation <= _MORE_THAN_CHANCE * by_chance:
        return Natural(worst, 0.0, 0.0)
    # Neighbours that are alike count for fewer: AR(1), by the first autocorrelation.
    together = float((blocks[1:] * blocks[:-1]).sum() / np.square(blocks).sum())
    alike = min(max(together, 0.0), 1 - 1 / whole)
    return Natural(worst, deviation, max(whole * (1 - alike) / (1 + alike), 2.0))
