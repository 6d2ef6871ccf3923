"""First truths as the judges of performance take them: columns of equal length, in order."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Micros = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truths:
    """Ordered by (known at, event time, loss, prediction id)."""

    known_at_us: Micros
    event_times_us: Micros
    # 0 or 1 (classification), squared error (regression).
    losses: Floats
    # Probability of the positive class (binary), of the decided class (multiclass), or the value.
    scores: Floats
    # Class index or value.
    decisions: Floats
    # Class index or value.
    truths: Floats

    def __len__(self) -> int:
        return len(self.known_at_us)
