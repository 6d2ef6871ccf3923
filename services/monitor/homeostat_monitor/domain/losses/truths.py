"""First truths as the judges of performance take them: columns of equal length, in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Finding

Micros = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Truths:
    """Ordered by (known at, event time), those of one moment as ties.py has it."""

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

    def only(self, rows: NDArray[np.bool_] | slice) -> "Truths":
        """Those rows, in their order."""
        return Truths(
            self.known_at_us[rows],
            self.event_times_us[rows],
            self.losses[rows],
            self.scores[rows],
            self.decisions[rows],
            self.truths[rows],
        )


class Task(StrEnum):
    """What a version predicts. The names are stored."""

    BINARY = "binary"
    MULTICLASS = "multiclass"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class Look:
    """What a judge of truths found at one moment; all it judges, breaches and others."""

    # Known-at time of the truth at which was looked, and how many truths were fed with it: many
    # may share one time.
    at_us: int
    fed: int
    findings: Sequence[Finding]
