"""Intervals of rolling metrics hold what they promise, where neighbours resemble each other too."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter

from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.performance.dependent import widening
from homeostat_monitor.domain.performance.figures import figures, sums_of
from homeostat_monitor.domain.performance.rolling import Rolling

ROWS, STREAMS = 1000, 60


def alike(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Normal values, each nine tenths of the one before."""
    steps = rng.normal(size=rows + 200)
    return lfilter([np.sqrt(1 - 0.81)], [1, -0.9], steps)[200:]


def binary(rng: np.random.Generator, rows: int) -> Truths:
    scores = 1 / (1 + np.exp(0.5 - 1.2 * alike(rng, rows)))
    truths = (rng.random(rows) < scores).astype(float)
    decisions = (scores >= 0.5).astype(float)
    return columns(scores, decisions, truths, (decisions != truths).astype(float))


def regression(rng: np.random.Generator, rows: int) -> Truths:
    scores = rng.normal(size=rows)
    truths = scores + alike(rng, rows)
    return columns(scores, scores, truths, (truths - scores) ** 2)


def columns(*values: np.ndarray) -> Truths:
    scores, decisions, truths, losses = values
    at = np.arange(len(scores), dtype=np.int64)
    return Truths(at, at, losses, scores, decisions, truths)


@pytest.mark.parametrize(
    ("task", "draw", "names"),
    [
        (Task.BINARY, binary, {"accuracy", "log_loss", "auc", "recall"}),
        (Task.REGRESSION, regression, {"mae", "rmse", "bias"}),
    ],
)
def test_intervals_hold_where_neighbours_are_alike(
    task: Task, draw: Callable[[np.random.Generator, int], Truths], names: set[str]
) -> None:
    """Intervals of independent rows held the truth in a third to nine tenths of these streams."""
    many = sums_of(draw(np.random.default_rng(0), 300_000), task, 0.0)
    true = {name: value for name, value, _, _ in figures(many, task)}
    held = dict.fromkeys(names, 0)
    for seed in range(STREAMS):
        rolling = Rolling.seeded(None, task=task)
        rolling.feed(draw(np.random.default_rng([seed, 1]), ROWS))
        for each in rolling.metrics():
            if each.span == "newest" and each.name in names:
                held[each.name] += each.low <= true[each.name] <= each.high
    assert min(held.values()) >= 0.83 * STREAMS, held


def test_independent_rows_widen_nothing() -> None:
    rng = np.random.default_rng(0)
    wider = [widening(rng.random(1000)) for _ in range(200)]
    assert np.mean([each == 1.0 for each in wider]) > 0.75
    assert np.mean(wider) < 1.1
    assert widening(np.ones(1000)) == 1.0
    assert widening(np.zeros(0)) == 1.0
