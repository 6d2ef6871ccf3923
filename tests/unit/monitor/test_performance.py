"""Rolling metrics: the figures of the newest truths, with intervals that hold what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import truths as streams

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.performance import intervals
from homeostat_monitor.domain.performance.rolling import Metric, Rolling
from homeostat_monitor.domain.state import pack

_MAKE = {
    Task.BINARY: streams.binary,
    Task.MULTICLASS: streams.multiclass,
    Task.REGRESSION: streams.regression,
}


def by_name(rolling: Rolling, span: str = "newest") -> dict[str, Metric]:
    return {each.name: each for each in rolling.metrics() if each.span == span}


@pytest.mark.parametrize("task", list(Task))
def test_without_truths_there_are_no_metrics(task: Task) -> None:
    assert Rolling.seeded(_MAKE[task](500, seed=1), task=task).metrics() == []


def test_binary_figures_are_those_of_the_books() -> None:
    rows = streams.binary(1000, seed=3, shape=(1.0, 1.2))
    rolling = Rolling.seeded(None, task=Task.BINARY)
    rolling.feed(rows)
    found = by_name(rolling)
    said, true = rows.decisions == 1, rows.truths == 1
    positives, negatives = rows.scores[true], rows.scores[~true]
    area = (positives[:, None] > negatives[None, :]).mean()
    precision, recall = (said & true).sum() / said.sum(), (said & true).sum() / true.sum()
    costs = -np.log(np.where(true, rows.scores, 1 - rows.scores))
    expected = {
        "accuracy": (said == true).mean(),
        "loss": (said != true).mean(),
        "auc": area,
        "log_loss": costs.mean(),
        "brier": np.square(rows.truths - rows.scores).mean(),
        "bias": (rows.truths - rows.scores).mean(),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value)
        assert found[name].low < value < found[name].high
        assert found[name].rows == 1000
        assert math.isnan(found[name].reference)
    assert by_name(rolling, "all")["auc"].value == pytest.approx(area, abs=2e-3)


def test_figures_of_a_regression_are_those_of_the_books() -> None:
    rows = streams.regression(1000, seed=3, bias=0.3)
    rolling = Rolling.seeded(None, task=Task.REGRESSION)
    rolling.feed(rows)
    errors = rows.truths - rows.scores
    expected = {
        "mae": np.abs(errors).mean(),
        "rmse": math.sqrt(np.square(errors).mean()),
        "loss": np.square(errors).mean(),
        "bias": errors.mean(),
        "r2": 1 - np.square(errors).mean() / rows.truths.var(),
    }
    for span in ("newest", "all"):
        found = by_name(rolling, span)
        assert {name: each.value for name, each in found.items()} == pytest.approx(expected)
        assert all(each.low < each.value < each.high for each in found.values())


def test_only_the_newest_thousand_count_for_the_newest() -> None:
    rolling = Rolling.seeded(streams.binary(3000, seed=1), task=Task.BINARY)
    rolling.feed(streams.binary(4000, seed=2))
    rolling.feed(streams.binary(1000, seed=3, real=lambda s: 1 - s))
    newest, whole = by_name(rolling), by_name(rolling, "all")
    assert newest["auc"].value < 0.4
    assert whole["auc"].value > 0.55
    assert (newest["auc"].rows, whole["auc"].rows) == (1000, 5000)
    assert newest["accuracy"].reference == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize("task", list(Task))
def test_intervals_hold_what_they_promise(task: Task) -> None:
    """Of 150 samples 95 % are due to hold the truth, which a very large sample shows."""
    large = Rolling.seeded(_MAKE[task](100_000, seed=999), task=task)
    truth = dict(large._reference)
    held = dict.fromkeys(truth, 0)
    for seed in range(150):
        rolling = Rolling.seeded(None, task=task)
        rolling.feed(_MAKE[task](800, seed=seed))
        for each in by_name(rolling).values():
            held[each.name] += each.low <= truth[each.name] <= each.high
    # A t distribution with three degrees of freedom has no fourth moment: the intervals of its
    # squares are too short, and nobody's are not.
    least = {"rmse": 105, "loss": 105, "r2": 100} if task is Task.REGRESSION else {}
    for name, count in held.items():
        assert count >= least.get(name, 134), name


def test_one_class_alone_has_no_auc_and_perfect_order_is_not_certain() -> None:
    rolling = Rolling.seeded(None, task=Task.BINARY)
    rolling.feed(streams.binary(100, seed=1, real=lambda s: 0 * s))
    found = by_name(rolling)
    assert math.isnan(found["auc"].value)
    assert math.isnan(found["recall"].value)
    assert found["accuracy"].high <= 1.0
    area, low, high = intervals.auc(np.array([0.0, 10.0]), np.array([20.0, 0.0]))
    assert (area, high) == pytest.approx((1.0, 1.0))
    assert 0.6 < low < 0.8


def test_constant_truths_have_no_share_explained() -> None:
    rows = streams.regression(50, seed=1)
    flat = Truths(
        rows.known_at_us,
        rows.event_times_us,
        rows.losses,
        rows.scores,
        rows.scores,
        0 * rows.truths,
    )
    rolling = Rolling.seeded(None, task=Task.REGRESSION)
    rolling.feed(flat)
    assert math.isnan(by_name(rolling)["r2"].value)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 1e200])
def test_a_value_that_is_not_usable_changes_nothing(poison: float) -> None:
    rows = streams.regression(500, seed=2)
    clean, rolling = (Rolling.seeded(None, task=Task.REGRESSION) for _ in range(2))
    clean.feed(rows)
    doubled = np.repeat(np.arange(len(rows)), 2)
    mixed = Truths(*(getattr(rows, name)[doubled] for name in Truths.__slots__))
    mixed.truths[1::2] = poison
    rolling.feed(mixed)
    assert rolling.metrics() == clean.metrics()
    assert rolling.not_usable == 500


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(list(Task)), st.lists(st.integers(1, 900), max_size=5))
def test_portions_and_stored_states_change_nothing(task: Task, cuts: list[int]) -> None:
    rows = _MAKE[task](2500, seed=4)
    whole = Rolling.seeded(None, task=task)
    whole.feed(rows)
    rolling = Rolling.seeded(None, task=task)
    begun = 0
    for end in [*np.cumsum(cuts).tolist(), len(rows)]:
        state = rolling.to_bytes()
        rolling = Rolling.seeded(None, task=task)
        rolling.restore(state)
        rolling.feed(rows.only(slice(begun, max(begun, end))))
        begun = max(begun, end)
    assert rolling.to_bytes() == whole.to_bytes()
    assert len(rolling.to_bytes()) < 40_000


def test_what_is_no_state_is_refused_and_changes_nothing() -> None:
    rolling = Rolling.seeded(None, task=Task.BINARY)
    rolling.feed(streams.binary(500, seed=1))
    before = rolling.to_bytes()
    damaged = bytearray(before)
    damaged[len(before) // 2] ^= 1
    other = Rolling.seeded(None, task=Task.MULTICLASS).to_bytes()
    for state in (bytes(damaged), b"", pack("rolling-0", {}, {}), other):
        with pytest.raises(CorruptState):
            rolling.restore(state)
    assert rolling.to_bytes() == before
