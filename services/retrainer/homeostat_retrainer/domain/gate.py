"""What counts as better: paired gains on the hold-out, and a bound for the best of several.

The registry recomputes this from the evidence and has the word; here it saves hopeless proposals.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import copysign, inf, sqrt
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

    @property
    def z(self) -> float:
        """The mean in standard errors; what the registry's gate looks at."""
        if self.deviation <= 0:
            return 0.0 if self.mean == 0 else copysign(inf, self.mean)
        return self.mean * sqrt(self.rows) / self.deviation

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


def choose(champion: Floats, candidates: Sequence[Floats | None]) -> int | None:
    """The place of the candidate to propose, by losses on the hold-out; None if there is none.

    The surest gain leads. Of those that pass, the first in order (longest window first) that is
    within one standard error of it is taken: what a short window gains beyond noise, it keeps; a
    model of the last few days does not win by luck.
    """
    gains = [None if each is None else paired_gain(champion, each) for each in candidates]
    tried = [(gain.z, -place) for place, gain in enumerate(gains) if gain is not None]
    if not tried:
        return None
    surest = -max(tried)[1]
    for place, losses in enumerate(candidates):
        gain = gains[place]
        if gain is None or losses is None or gain.lower_bound(len(candidates)) <= 0:
            continue
        leader = candidates[surest]
        if leader is not None and paired_gain(losses, leader).z <= 1:
            return place
    return surest
