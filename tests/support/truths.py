"""Synthetic first truths: scores that mean what they say, unless told otherwise."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.truths import Truths

Floats = NDArray[np.float64]
SECOND_US = 1_000_000


def binary(
    rows: int,
    *,
    seed: int,
    start: int = 0,
    real: Callable[[Floats], Floats] = lambda scores: scores,
    shape: tuple[float, float] = (1.0, 2.0),
) -> Truths:
    """Scores of a beta distribution; the truth is positive with chance ``real(score)``. One truth
    a minute, from minute ``start`` on, known an hour after its event."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(*shape, rows)
    truths = (rng.random(rows) < real(scores)).astype(float)
    decisions = (scores >= 0.5).astype(float)
    return _rows(start, scores, decisions, truths, (decisions != truths).astype(float))


def multiclass(
    rows: int, *, seed: int, start: int = 0, real: Callable[[Floats], Floats] = lambda s: s
) -> Truths:
    """Four classes; the decision is right with chance ``real(confidence)``."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.4, 1.0, rows)
    decisions = rng.integers(0, 4, rows).astype(float)
    is_right = rng.random(rows) < real(scores)
    truths = np.where(is_right, decisions, (decisions + 1) % 4)
    return _rows(start, scores, decisions, truths, (~is_right).astype(float))


def regression(
    rows: int, *, seed: int, start: int = 0, bias: float = 0.0, noise: float = 1.0
) -> Truths:
    """Values around 10 with errors of Student's t with three degrees of freedom."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(10.0, 3.0, rows)
    truths = scores + bias + noise * rng.standard_t(3, rows)
    return _rows(start, scores, scores, truths, np.square(truths - scores))


def _rows(start: int, scores: Floats, decisions: Floats, truths: Floats, losses: Floats) -> Truths:
    events = (start + np.arange(len(scores), dtype=np.int64)) * 60 * SECOND_US
    return Truths(events + 3600 * SECOND_US, events, losses, scores, decisions, truths)
