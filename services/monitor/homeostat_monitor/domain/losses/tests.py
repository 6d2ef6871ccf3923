"""The anchored tests of a version's loss and what the budget of false alarms allows them."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses import certain
from homeostat_monitor.domain.losses.anchored import Anchored, Sample, dumped, loaded
from homeostat_monitor.domain.losses.pace import Pace

# The pace of truths is looked at after every so many of them.
_LOOK_EVERY = 100
# One part of the budget for the test anchored at the reference, one for ADWIN.
_PARTS = 2.0


class LossTests:
    """Against the reference, and against the level of the rise that stands."""

    def __init__(self, rows_per_false_alarm: float, false_alarms_per_month: float) -> None:
        """As ``LossWatch.seeded`` takes them."""
        self._least_rows = rows_per_false_alarm
        self._budget = false_alarms_per_month / _PARTS
        self._pace = Pace()
        self.anchored: Anchored | None = None
        # Anchored at the level of the rise that stands, once that is known.
        self.further: Anchored | None = None

    def count(self, known_at_us: int) -> None:
        """One more loss: how many come in a month decides what each may spend."""
        self._pace.take(known_at_us)
        if self._pace.fed % _LOOK_EVERY == 0:
            for each in (self.anchored, self.further):
                if each is not None:
                    each.allow(self._allowed())

    def refer_to(self, sample: Sample) -> None:
        """What is the reference from now on."""
        self.anchored = self._at(sample)

    def refer_further_to(self, rows: int, mean: float, variance: float) -> None:
        """The level of a rise: so many losses."""
        self.further = self._at(self.like_reference(rows, mean, variance))

    def like_reference(self, rows: int, mean: float, variance: float) -> Sample:
        """Losses that hang together as the reference's do."""
        clumping = 1.0 if self.anchored is None else self.anchored.reference.clumping
        return Sample(rows, mean, variance, clumping)

    def clear(self) -> None:
        """Begins anew; what is known of the reference stays."""
        self.further = None
        if self.anchored is not None:
            self.anchored.clear()

    @property
    def log_level(self) -> float:
        """What one find of ADWIN may spend (certain.py)."""
        return certain.log_level(self._allowed())

    def _allowed(self) -> float:
        return max(self._least_rows, self._pace.rows_per_false_alarm(self._budget))

    def _at(self, sample: Sample) -> Anchored:
        return Anchored(sample, rows_per_false_alarm=self._allowed())

    def dump(self) -> tuple[dict[str, Any], dict[str, NDArray[np.float64]]]:
        """Values and arrays, as ``restore`` takes them."""
        arrays = {"anchored": dumped(self.anchored), "further": dumped(self.further)}
        return {"pace": asdict(self._pace)}, arrays

    def restore(self, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """The opposite of dump. KeyError, TypeError, CorruptState."""
        pace = Pace(**values["pace"])
        anchored, further = loaded(arrays["anchored"]), loaded(arrays["further"])
        self._pace, self.anchored, self.further = pace, anchored, further
