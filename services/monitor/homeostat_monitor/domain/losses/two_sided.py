"""Has a mean left a known sample's, upwards or downwards, and has it come back?"""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.anchored import Anchored, Sample
from homeostat_monitor.domain.losses.timeline import Timeline

Floats = NDArray[np.float64]

# Values in one look at whether a shift that stands is over.
_BLOCK = 500
# A block within so many deviations of chance of the sample's mean ends it.
_CALM = 2.0
_MOST_MARKS = 256


@dataclass(slots=True)
class Standing:
    """A shift that has been told and is not over."""

    # 1: upwards, -1: downwards.
    direction: int
    since_us: int
    # Of all values since it began, as far as that can be told.
    rows: float
    total: float
    # Of the block that is being filled.
    block_rows: int = 0
    block_total: float = 0.0


class TwoSided:
    """Two anchored tests of values in 0..1, one for either direction."""

    def __init__(self, reference: Sample, rows_per_false_alarm: float) -> None:
        """``rows_per_false_alarm``: of both directions together."""
        mirrored = replace(reference, mean=1.0 - reference.mean)
        self.reference = reference
        self.standing: Standing | None = None
        # Values ever fed, and since the last look: how many and their sum.
        self.fed = 0
        self._tests = [
            Anchored(each, rows_per_false_alarm=2.0 * rows_per_false_alarm)
            for each in (reference, mirrored)
        ]
        self._timeline = Timeline(most=_MOST_MARKS)

    def allow(self, rows_per_false_alarm: float) -> None:
        """From now on so many values between two false alarms of either direction."""
        for each in self._tests:
            each.allow(2.0 * rows_per_false_alarm)

    def update(self, value: float, at_us: int) -> bool:
        """Takes one finite value in 0..1; whether a shift was told."""
        self._timeline.mark(self.fed, at_us)
        self.fed += 1
        if self.standing is not None:
            self._go_on(self.standing, value)
            return False
        up, down = self._tests
        # Both see every value, whichever tells.
        has_risen, has_fallen = up.update(value), down.update(1.0 - value)
        if has_risen:
            self.tell(1, up.rows, up.mean)
        elif has_fallen:
            self.tell(-1, down.rows, 1.0 - down.mean)
        return has_risen or has_fallen

    def tell(self, direction: int, rows: int, mean: float) -> None:
        """A shift of the newest so many values, with their mean, stands from now on."""
        since_us = self._timeline.at(max(self.fed - rows, 0))
        self.standing = Standing(direction, since_us, rows, rows * mean)
        for each in self._tests:
            each.clear()

    def _go_on(self, standing: Standing, value: float) -> None:
        standing.rows += 1
        standing.total += value
        standing.block_rows += 1
        standing.block_total += value
        if standing.block_rows < _BLOCK:
            return
        shift = (standing.block_total / _BLOCK - self.reference.mean) * standing.direction
        if shift <= _CALM * self.chance(_BLOCK):
            self.standing = None
        standing.block_rows, standing.block_total = 0, 0.0

    def chance(self, rows: float) -> float:
        """Deviation of chance between the mean of so many values and the reference's."""
        reference = self.reference
        spread = reference.variance * reference.clumping
        return math.sqrt(spread * (1.0 / max(rows, 1.0) + 1.0 / max(reference.rows, 1)))

    def newest(self) -> tuple[float, float]:
        """Rows and mean of what is judged at the moment: since the shift that stands, or since
        the likeliest start of one."""
        if self.standing is not None:
            return self.standing.rows, self.standing.total / max(self.standing.rows, 1.0)
        up, down = self._tests
        if up.evidence >= down.evidence:
            return float(up.rows), up.mean
        return float(down.rows), 1.0 - down.mean

    def level(self) -> Sample | None:
        """The level of the shift that stands, as a sample."""
        if self.standing is None:
            return None
        rows, mean = self.newest()
        return replace(self.reference, rows=int(rows), mean=min(max(mean, 0.0), 1.0))

    def dump(self) -> tuple[dict[str, Any], Floats, NDArray[np.int64]]:
        """Values and arrays, as ``loaded`` takes them."""
        standing = None if self.standing is None else asdict(self.standing)
        tests = np.stack([each.dump() for each in self._tests])
        return {"fed": self.fed, "standing": standing}, tests, self._timeline.dump()

    @classmethod
    def loaded(cls, values: dict[str, Any], tests: Floats, timeline: NDArray[np.int64]) -> Self:
        """The opposite of dump, with the budget that it had."""
        up, down = (Anchored.loaded(each) for each in tests)
        watch = cls(up.reference, 1.0)
        watch._tests = [up, down]
        watch.fed = int(values["fed"])
        if values["standing"] is not None:
            watch.standing = Standing(**values["standing"])
        watch._timeline = Timeline.loaded(timeline)
        return watch
