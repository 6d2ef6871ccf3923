"""When which value was fed: bounded, and exact enough to date what a detector sees."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Marks along the detector's window: enough to say when it begins within 0.1 %.
_MOST_MARKS = 1024


@dataclass(slots=True)
class Timeline:
    """A bounded list of (count, known at), thinned as it grows."""

    counts: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    stride: int = 1
    most: int = _MOST_MARKS

    def mark(self, count: int, known_at_us: int) -> None:
        """The value of that number became known then; numbers only grow."""
        if count % self.stride:
            return
        self.counts.append(count)
        self.times.append(known_at_us)
        if len(self.counts) > self.most:
            self.stride *= 2
            kept = [i for i, each in enumerate(self.counts) if each % self.stride == 0]
            self.counts = [self.counts[i] for i in kept]
            self.times = [self.times[i] for i in kept]

    def at(self, count: int) -> int:
        """Known-at time of that value, or of the last marked one before it."""
        place = max(bisect_right(self.counts, count) - 1, 0)
        return self.times[place] if self.times else 0

    def dump(self) -> NDArray[np.int64]:
        """Everything, as one row of numbers."""
        return np.array([self.stride, self.most, *self.counts, *self.times], dtype=np.int64)

    @classmethod
    def loaded(cls, stored: NDArray[np.int64]) -> Self:
        """The opposite of dump."""
        stride, most, *marks = stored.tolist()
        half = len(marks) // 2
        return cls(marks[:half], marks[half:], stride, most)
