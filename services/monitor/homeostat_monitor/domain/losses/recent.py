"""What ADWIN keeps of a stream, what it dropped last, and when what was fed."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses import adwin
from homeostat_monitor.domain.losses.timeline import Timeline


class Recent:
    """river's ADWIN with the mean of what it dropped at its last detection."""

    def __init__(self) -> None:
        self._adwin = adwin.fresh()
        self._timeline = Timeline()
        # Values ever fed, and since ADWIN began anew: how many and their sum.
        self.fed = 0
        self._rows = 0
        self._total = 0.0

    def take(self, value: float, at_us: int) -> bool:
        """One finite value in 0..1; whether its level has changed."""
        if self._adwin.drift_detected:
            # river begins anew with the value after a detection.
            self._rows, self._total = 0, 0.0
        self._timeline.mark(self.fed, at_us)
        self.fed += 1
        self._rows += 1
        self._total += value
        self._adwin.update(value)
        return self._adwin.drift_detected

    @property
    def rows(self) -> int:
        """Values that are kept."""
        return self._adwin.width

    @property
    def mean(self) -> float:
        """Their mean."""
        return self._adwin.estimation

    @property
    def dropped(self) -> tuple[int, float]:
        """Values that are not kept any more, and their mean; 0 where there are none."""
        rows = self._rows - self._adwin.width
        return rows, (self._total - self._adwin.total) / rows if rows > 0 else 0.0

    def since(self, rows: int) -> int:
        """When the oldest of the newest so many values was fed."""
        return self._timeline.at(max(self.fed - rows, 0))

    def dump(self) -> tuple[dict[str, Any], NDArray[np.int64]]:
        """Values and an array, as ``loaded`` takes them."""
        counts = {"fed": self.fed, "rows": self._rows, "total": self._total}
        return counts | {"adwin": dict(adwin.dump(self._adwin))}, self._timeline.dump()

    @classmethod
    def loaded(cls, values: dict[str, Any], timeline: NDArray[np.int64]) -> Self:
        """The opposite of dump."""
        recent = cls()
        recent._adwin = adwin.load(values["adwin"])
        recent._timeline = Timeline.loaded(timeline)
        recent.fed, recent._rows = int(values["fed"]), int(values["rows"])
        recent._total = float(values["total"])
        return recent
