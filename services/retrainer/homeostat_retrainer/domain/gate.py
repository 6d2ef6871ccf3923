"""What counts as better: paired gains on the hold-out, and a bound for the best of several.

The registry recomputes this from the evidence and has the word; here it saves hopeless proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# One-sided: the chance to promote a candidate that is no better.
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Gain:
    """Champion's loss minus candidate's, per row; positive is better."""

    mean: float
    deviation: float
    rows: int

    def lower_bound(self, candidates: int, alpha: float = ALPHA) -> float:
        """What the true gain exceeds with confidence 1 - alpha, also for the best of so many."""
        if self.rows < 2:
            return float("-inf")
        z = NormalDist().inv_cdf(1 - alpha / max(1, candidates))
        return self.mean - z * self.deviation / sqrt(self.rows)


def paired_gain(champion_losses: Floats, candidate_losses: Floats) -> Gain:
    """Mean and deviation (n - 1) of the paired differences."""
    gains = champion_losses - candidate_losses
    deviation = float(gains.std(ddof=1)) if len(gains) > 1 else 0.0
    return Gain(float(gains.mean()), deviation, len(gains))


def best(gains: Sequence[Gain | None], candidates: int) -> int | None:
    """The place of the candidate with the greatest lower bound; None if there is none."""
    tried = [(gain.lower_bound(candidates), -i) for i, gain in enumerate(gains) if gain is not None]
    return -max(tried)[1] if tried else None
