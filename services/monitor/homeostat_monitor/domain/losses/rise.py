"""The level that a loss is compared with, and a rise above it that was told."""

import math
from dataclasses import dataclass

from homeostat_monitor.domain.losses.certain import log_chance
from homeostat_monitor.domain.losses.recent import Recent

# A further rise is told when its mean is so many deviations of chance above what was told last: it
# opens no alert, so it spends nothing of the budget.
_CERTAIN = 2.0
# A level that is accepted may show no deviation at all.
_LEAST_VARIANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Level:
    """What the mean loss is compared with, scaled."""

    mean: float
    rows: int
    # Of one loss, as far as one says something new.
    variance: float

    @property
    def highest(self) -> float:
        """The level is known no better than this."""
        return self.mean + self._chance(self.rows)

    def is_below(self, mean: float, rows: int, *, above: float | None = None) -> bool:
        """Whether so many losses of this mean exceed the level, or what they are said to be
        ``above``, by more than chance."""
        chance = math.hypot(self._chance(rows), self._chance(self.rows))
        return mean - (self.mean if above is None else above) > _CERTAIN * chance

    def is_left(self, recent: Recent, told: "Rise | None", log_level: float) -> bool:
        """Whether the change that ADWIN has just told of is a rise. It compares with what it kept:
        after a calm spell it tells of a change where the loss is back at the level, and after the
        anchored test it tells of the same rise once more. A rise is what is above the level too, by
        more than chance makes with ``log_level`` (certain.py); a further one is surely above what
        was told, where what came before was no longer at the level."""
        rows, mean = recent.rows, recent.mean
        dropped, before = recent.dropped
        if mean <= before or not self.is_below(mean, rows):
            return False
        if told is None:
            away = mean - self.mean
            return log_chance(away, self.variance, rows, self.rows) < log_level
        return self.is_below(before, dropped) and self.is_below(mean, rows, above=told.told)

    def _chance(self, rows: int) -> float:
        return math.sqrt(self.variance / max(rows, 1))


@dataclass(slots=True)
class Rise:
    """Not answered yet: scaled losses since it was told."""

    since_us: int
    # Mean of the losses that told it.
    told: float
    rows: int = 0
    total: float = 0.0
    squares: float = 0.0
    has_persisted: bool = False

    def take(self, value: float) -> None:
        """One more scaled loss."""
        self.rows += 1
        self.total += value
        self.squares += value * value

    @property
    def mean(self) -> float:
        """Since it was told; at that moment, of what told it."""
        return self.total / self.rows if self.rows else self.told

    @property
    def variance(self) -> float:
        """Of one loss around that mean; never 0."""
        return max(self.squares / max(self.rows, 1) - self.mean * self.mean, _LEAST_VARIANCE)
