"""Truth against scores: what chance and moving scores make is silent, another meaning is told."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import truths as streams

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.concept import ConceptWatch
from homeostat_monitor.domain.losses.truths import Look, Task, Truths
from homeostat_monitor.domain.state import pack


def seeded(task: Task = Task.BINARY, rows: int = 3000, *, budget: float = 0.1) -> ConceptWatch:
    make = {
        Task.BINARY: streams.binary,
        Task.MULTICLASS: streams.multiclass,
        Task.REGRESSION: streams.regression,
    }[task]
    return ConceptWatch.seeded(make(rows, seed=1), task=task, false_alarms_per_month=budget)


def told(looks: Sequence[Look]) -> list[Finding]:
    return [each for look in looks for each in look.findings if each.is_breach]


def first_told(looks: Sequence[Look]) -> int | None:
    """How many truths were fed with the first breach."""
    return next((look.fed for look in looks if told([look])), None)


@pytest.mark.parametrize("task", list(Task))
def test_truth_that_follows_from_the_scores_is_silent(task: Task) -> None:
    make = {
        Task.BINARY: streams.binary,
        Task.MULTICLASS: streams.multiclass,
        Task.REGRESSION: streams.regression,
    }[task]
    for seed in range(2, 5):
        looks = seeded(task).feed(make(6000, seed=seed, start=10_000))
        assert len(looks) == 60
        assert told(looks) == []


def test_the_measured_rate_of_false_alarms_is_within_its_budget() -> None:
    """Ten a month where a month has 100,000 truths: one in 10,000. Six are due in these 60,000."""
    alarms = 0
    for seed in range(12):
        holdout = streams.binary(1500, seed=100 + seed)
        watch = ConceptWatch.seeded(holdout, task=Task.BINARY, false_alarms_per_month=10.0)
        looks = watch.feed(streams.binary(5000, seed=200 + seed, start=9000))
        alarms += bool(told(looks))
    assert alarms <= 6


def test_a_change_that_leaves_the_loss_as_it_is_is_told() -> None:
    """Scores around 0.2 become true half as often again: the decision is as right as before in
    every row where it was right, and the loss of the others falls and rises."""
    watch = seeded()
    calm = streams.binary(3000, seed=2, start=10_000)
    changed = streams.binary(
        4000, seed=3, start=13_000, real=lambda s: np.where(s < 0.5, s + 0.1, s - 0.1)
    )
    assert told(watch.feed(calm)) == []
    looks = watch.feed(changed)
    fed = first_told(looks)
    assert fed is not None
    assert fed < 5000
    finding = told(looks)[0]
    assert finding.rule is Rule.CONCEPT
    assert finding.observed > finding.threshold > 0
    assert finding.since_us is not None
    assert finding.since_us >= calm.known_at_us[-600]


@pytest.mark.parametrize("step", [-0.12, 0.12])
def test_both_directions_are_told_by_name(step: float) -> None:
    watch = seeded()
    looks = watch.feed(streams.binary(3000, seed=4, start=10_000, real=lambda s: s + step))
    fed = first_told(looks)
    assert fed is not None
    assert fed < 1200
    side = "truth_above_score" if step > 0 else "truth_below_score"
    assert told(looks)[0].statistic.startswith(side)


def test_scores_that_move_alone_are_no_change_of_concept() -> None:
    """The inputs moved: many more high scores, each as true as it says."""
    for seed in range(3):
        looks = seeded().feed(streams.binary(6000, seed=seed, start=10_000, shape=(4.0, 2.0)))
        assert told(looks) == []


def test_a_model_that_was_never_calibrated_may_move_from_band_to_band() -> None:
    """High scores always said too much: more of them make the mean residual fall, which is no
    change of concept."""

    def real(scores: np.ndarray) -> np.ndarray:
        return np.where(scores > 0.5, scores - 0.2, scores)

    holdout = streams.binary(6000, seed=1, real=real, shape=(1.0, 1.5))
    watch = ConceptWatch.seeded(holdout, task=Task.BINARY)
    looks = watch.feed(streams.binary(5000, seed=2, start=9000, real=real, shape=(2.0, 1.5)))
    assert [each for each in told(looks) if each.statistic.endswith("of_all_scores")] == []


def test_confidence_that_is_no_longer_deserved_is_told() -> None:
    watch = seeded(Task.MULTICLASS)
    looks = watch.feed(streams.multiclass(3000, seed=2, start=10_000, real=lambda s: s - 0.12))
    fed = first_told(looks)
    assert fed is not None
    assert fed < 1500
    assert told(looks)[0].statistic.startswith("truth_below_score")


def test_a_bias_of_a_regression_is_told_under_long_tails() -> None:
    watch = seeded(Task.REGRESSION)
    assert told(watch.feed(streams.regression(4000, seed=2, start=10_000))) == []
    looks = watch.feed(streams.regression(2000, seed=3, start=14_000, bias=0.5))
    fed = first_told(looks)
    assert fed is not None
    assert fed < 5000
    assert told(looks)[-1].observed == pytest.approx(0.5, abs=0.25)


def test_a_shift_that_ends_is_no_breach_any_more() -> None:
    watch = seeded()
    looks = watch.feed(streams.binary(2000, seed=4, start=10_000, real=lambda s: s + 0.15))
    assert told(looks[-1:])
    looks = watch.feed(streams.binary(8000, seed=5, start=12_000))
    assert told(looks[-1:]) == []


def test_an_accepted_level_is_the_new_reference() -> None:
    watch = seeded()
    watch.feed(streams.binary(4000, seed=4, start=10_000, real=lambda s: s + 0.1))
    watch.rebase()
    looks = watch.feed(streams.binary(4000, seed=5, start=14_000, real=lambda s: s + 0.1))
    assert [each for each in told(looks) if each.statistic.endswith("of_all_scores")] == []


def test_without_a_hold_out_it_learns_from_the_first_truths() -> None:
    watch = ConceptWatch.seeded(None, task=Task.BINARY)
    assert watch.feed(streams.binary(999, seed=1)) == []
    assert watch.is_learning
    watch.feed(streams.binary(3001, seed=2, start=999))
    assert not watch.is_learning
    assert told(watch.feed(streams.binary(2000, seed=3, start=4000, real=lambda s: s + 0.2)))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_changes_nothing(poison: float) -> None:
    rows = streams.binary(1500, seed=2, start=10_000)
    expected = seeded().feed(rows)
    watch = seeded()
    doubled = np.repeat(np.arange(len(rows)), 2)
    mixed = Truths(*(getattr(rows, name)[doubled] for name in Truths.__slots__))
    mixed.scores[1::4] = poison
    mixed.truths[3::4] = poison
    assert watch.feed(mixed) == expected
    assert watch.not_usable == len(rows)


@settings(max_examples=6, deadline=None)
@given(st.lists(st.integers(1, 900), max_size=4), st.booleans())
def test_portions_and_stored_states_change_nothing(cuts: list[int], has_seed: bool) -> None:
    holdout = streams.binary(1200, seed=1) if has_seed else None
    rows = streams.binary(2500, seed=4, start=10_000, real=lambda s: s + 0.12)
    whole = ConceptWatch.seeded(holdout, task=Task.BINARY)
    expected = whole.feed(rows)
    watch = ConceptWatch.seeded(holdout, task=Task.BINARY)
    found: list[Look] = []
    begun = 0
    for end in [*np.cumsum(cuts).tolist(), len(rows)]:
        state = watch.to_bytes()
        watch = ConceptWatch.seeded(None, task=Task.BINARY)
        watch.restore(state)
        found += watch.feed(rows.only(slice(begun, max(begun, end))))
        begun = max(begun, end)
    assert found == expected
    assert watch.to_bytes() == whole.to_bytes()


def test_what_is_no_state_is_refused_and_changes_nothing() -> None:
    watch = seeded()
    before = watch.to_bytes()
    damaged = bytearray(before)
    damaged[len(before) // 2] ^= 1
    other = seeded(Task.REGRESSION).to_bytes()
    for state in (bytes(damaged), b"", b"nonsense", pack("concept-0", {}, {}), other):
        with pytest.raises(CorruptState):
            watch.restore(state)
    assert watch.to_bytes() == before


def test_a_state_stays_small() -> None:
    watch = seeded()
    watch.feed(streams.binary(20_000, seed=2, start=10_000))
    assert len(watch.to_bytes()) < 60_000
