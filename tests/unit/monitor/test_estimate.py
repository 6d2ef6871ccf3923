"""Performance without truth: right where the inputs move, withdrawn where it is wrong."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import truths as streams

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.score_losses import places_of
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.performance.estimate import CAVEAT, Estimate, Estimated
from homeostat_monitor.domain.state import pack
from homeostat_monitor.domain.windows.bins import NumberBins, NumberColumn, number_bins

HOUR = 3_600_000_000


def seeded(holdout: Truths | None = None, task: Task = Task.BINARY) -> tuple[Estimate, NumberBins]:
    rows = streams.binary(3000, seed=1) if holdout is None else holdout
    bins = number_bins(NumberColumn(rows.scores))
    return Estimate.seeded(rows, bins, task=task, length_us=HOUR), bins


def windows(
    estimate: Estimate, bins: NumberBins, rows: Truths, *, size: int = 500
) -> tuple[list[Estimated], list[Finding]]:
    found, findings = [], []
    for begin in range(0, len(rows), size):
        part = rows.only(slice(begin, begin + size))
        histogram = np.bincount(places_of(part.scores, bins), minlength=bins.width)
        made = estimate.window(begin * HOUR, (begin + size) * HOUR, histogram[: bins.width])
        found += [] if made is None else [made]
        findings += estimate.findings()
    return found, findings


def test_windows_like_the_hold_out_are_silent_and_estimated_rightly() -> None:
    held = looked = 0
    for seed in range(2, 8):
        estimate, bins = seeded()
        rows = streams.binary(5000, seed=seed)
        found, findings = windows(estimate, bins, rows)
        assert not any(each.is_breach for each in findings)
        realised = rows.losses.reshape(-1, 500).mean(axis=1)
        held += sum(
            each.low <= loss <= each.high for each, loss in zip(found, realised, strict=True)
        )
        looked += len(found)
    assert held / looked > 0.88
    assert looked == 60


def test_a_loss_that_rises_with_moved_inputs_is_seen_before_any_truth() -> None:
    """More rows in the middle, where the model is unsure."""
    estimate, bins = seeded()
    rows = streams.binary(3000, seed=3, shape=(8.0, 8.0))
    found, findings = windows(estimate, bins, rows)
    assert all(each.is_breach for each in findings)
    assert {each.rule for each in findings} == {Rule.ESTIMATED_PERFORMANCE}
    mean = float(np.mean([each.loss for each in found]))
    assert mean == pytest.approx(rows.losses.mean(), abs=0.03)
    assert mean > found[0].reference + 0.1


def test_a_change_of_concept_is_not_seen_but_the_back_test_withdraws_the_estimate() -> None:
    estimate, bins = seeded()
    rows = streams.binary(4000, seed=3, real=lambda s: 1 - s)
    _, findings = windows(estimate, bins, rows)
    assert findings
    assert not any(each.is_breach for each in findings)
    assert "cannot see a change of concept" in CAVEAT
    remarks = estimate.feed(rows)
    assert len(remarks) == 1
    assert "withdrawn" in remarks[0]
    assert estimate.absent_because == remarks[0] or "withdrawn" in (estimate.absent_because or "")
    assert windows(estimate, bins, rows) == ([], [])
    assert estimate.latest is None


def test_it_comes_back_when_it_was_right_for_long_enough() -> None:
    estimate, bins = seeded()
    estimate.feed(streams.binary(3000, seed=3, real=lambda s: 1 - s))
    assert estimate.feed(streams.binary(2500, seed=4)) == []
    remarks = estimate.feed(streams.binary(30_000, seed=5))
    assert "back" in remarks[0]
    assert estimate.absent_because is None
    assert windows(estimate, bins, streams.binary(500, seed=6))[0]


def test_a_right_estimate_is_hardly_ever_withdrawn() -> None:
    """Ten hold-outs of their own, 100 looks each."""
    withdrawn = missed = looks = 0
    for seed in range(10):
        estimate, _ = seeded(streams.binary(3000, seed=50 + seed))
        withdrawn += len(estimate.feed(streams.binary(50_000, seed=100 + seed)))
        looks, missed = looks + estimate.back_tests[0], missed + estimate.back_tests[1]
    assert withdrawn <= 1
    assert looks == 1000
    assert missed <= 110


def test_short_windows_wait_for_each_other() -> None:
    estimate, bins = seeded()
    found, _ = windows(estimate, bins, streams.binary(1000, seed=2), size=125)
    assert [each.rows for each in found] == [500, 500]
    assert [each.start_us for each in found] == [0, 500 * HOUR]


def test_of_several_classes_the_confidence_is_enough() -> None:
    estimate, bins = seeded(streams.multiclass(3000, seed=1), Task.MULTICLASS)
    rows = streams.multiclass(1000, seed=2)
    found, findings = windows(estimate, bins, rows)
    assert found[0].loss == pytest.approx(rows.losses.mean(), abs=0.05)
    assert not any(each.is_breach for each in findings)


def test_a_regression_needs_losses_in_every_range_of_values() -> None:
    rows = streams.regression(900, seed=1)
    estimate, _ = seeded(rows, Task.REGRESSION)
    assert "900 hold-out rows" in (estimate.absent_because or "")
    rng = np.random.default_rng(0)
    base = streams.regression(4000, seed=1)
    # Errors grow with the value.
    losses = np.square(rng.normal(size=4000) * np.abs(base.scores))
    times = base.known_at_us
    growing = Truths(times, times, losses, base.scores, base.scores, base.truths)
    estimate, bins = seeded(growing, Task.REGRESSION)
    assert estimate.absent_because is None
    large = base.scores > 13
    found, findings = windows(estimate, bins, growing.only(large).only(slice(500)))
    assert findings[0].is_breach
    assert found[0].loss == pytest.approx(losses[large][:500].mean(), rel=0.25)


def test_without_a_hold_out_it_is_absent_with_a_reason() -> None:
    bins = number_bins(NumberColumn(np.linspace(0, 1, 100)))
    estimate = Estimate.seeded(None, bins, task=Task.BINARY, length_us=HOUR)
    assert "no hold-out rows" in (estimate.absent_because or "")
    rows = streams.binary(1000, seed=2)
    assert windows(estimate, bins, rows) == ([], [])
    assert estimate.feed(rows) == []


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_changes_nothing(poison: float) -> None:
    rows = streams.binary(700, seed=2)
    clean, mixed = seeded()[0], seeded()[0]
    clean.feed(rows)
    doubled = np.repeat(np.arange(len(rows)), 2)
    poisoned = Truths(*(getattr(rows, name)[doubled] for name in Truths.__slots__))
    poisoned.scores[1::4] = poison
    poisoned.losses[3::4] = poison
    mixed.feed(poisoned)
    assert mixed.to_bytes() == clean.to_bytes()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 900), max_size=6))
def test_portions_and_stored_states_change_nothing(cuts: list[int]) -> None:
    holdout = streams.regression(3000, seed=1)
    rows = streams.regression(4000, seed=4, noise=2.0)
    whole, _ = seeded(holdout, Task.REGRESSION)
    expected = whole.feed(rows)
    assert expected
    estimate, _ = seeded(holdout, Task.REGRESSION)
    remarks: list[str] = []
    begun = 0
    for end in [*np.cumsum(cuts).tolist(), len(rows)]:
        state = estimate.to_bytes()
        estimate, _ = seeded(holdout, Task.REGRESSION)
        estimate.restore(state)
        remarks += estimate.feed(rows.only(slice(begun, max(begun, end))))
        begun = max(begun, end)
    assert remarks == expected
    assert estimate.to_bytes() == whole.to_bytes()


def test_what_is_no_state_is_refused_and_changes_nothing() -> None:
    estimate, bins = seeded()
    windows(estimate, bins, streams.binary(700, seed=2), size=100)
    before = estimate.to_bytes()
    damaged = bytearray(before)
    damaged[len(before) // 2] ^= 1
    other, _ = seeded(streams.regression(3000, seed=1), Task.REGRESSION)
    for state in (bytes(damaged), b"", pack("estimate-1", {}, {}), other.to_bytes()):
        with pytest.raises(CorruptState):
            estimate.restore(state)
    assert estimate.to_bytes() == before
    assert len(before) < 10_000
