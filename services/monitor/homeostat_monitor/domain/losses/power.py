"""What the budget buys of the loss watch: the smallest rise that would be seen in time."""

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.anchored import Anchored

Floats = NDArray[np.float64]

_STEPS = 30


def smallest_rise(test: Anchored, values: Floats, rows: int, *, is_binary: bool) -> float | None:
    """Of the mean, on the test's scale from 0 to 1, with probability 0.9 within so many losses;
    None: not even the greatest. ``values``: the reference's, which rise as a whole; ``is_binary``:
    more of them become 1. By halving; nothing is simulated, and ADWIN may see it earlier."""
    low, high = 0.0, 1.0
    if not test.sees(*_raised(values, high, is_binary=is_binary), rows):
        return None
    for _ in range(_STEPS):
        middle = (low + high) / 2
        is_seen = test.sees(*_raised(values, middle, is_binary=is_binary), rows)
        low, high = (low, middle) if is_seen else (middle, high)
    raised, shares = _raised(values, high, is_binary=is_binary)
    return float(raised @ shares) - float(values.mean())


def _raised(values: Floats, by: float, *, is_binary: bool) -> tuple[Floats, Floats]:
    """Values and their shares."""
    if is_binary:
        rate = min(float(values.mean()) + by, 1.0)
        return np.array([0.0, 1.0]), np.array([1.0 - rate, rate])
    return np.minimum(values + by, 1.0), np.full(len(values), 1.0 / len(values))
