"""Losses on a scale from 0 to 1, where the bounds of the sequential tests hold."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Losses of regressions have long tails; in deviations from the mean.
_CLIP = (-1.0, 4.0)
# The few largest losses say nothing of the usual spread: they count as this quantile.
_TAIL = 0.99


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps a loss into 0..1 and back. Without a deviation losses are taken as they are: what is
    beyond 0..1 counts as its end."""

    mean: float = 0.0
    deviation: float = 0.0

    @classmethod
    def of(cls, losses: Floats) -> Self:
        """From finite losses of any size, at least one; its mean and deviation are those of losses
        whose tail is cut off, so that one outlier of the past does not hide the rest."""
        usual = np.minimum(losses, np.quantile(losses, _TAIL))
        mean, deviation = float(usual.mean()), float(usual.std())
        # A perfect past has no deviation; any loss at all is then a full step.
        return cls(mean, deviation or max(abs(mean), 1e-9))

    def forward(self, losses: Floats) -> Floats:
        """Each in 0..1."""
        if self.deviation <= 0.0:
            return np.clip(losses, 0.0, 1.0)
        low, high = _CLIP
        scaled: Floats = (np.clip((losses - self.mean) / self.deviation, low, high) - low) / (
            high - low
        )
        return scaled

    def back(self, value: float) -> float:
        """In the loss's own unit; what was clipped stays clipped."""
        if self.deviation <= 0.0:
            return value
        low, high = _CLIP
        return self.mean + self.deviation * (low + value * (high - low))
