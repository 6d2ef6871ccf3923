"""No row is trained on before its truth was known, and none that the candidate is judged by."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat_retrainer.domain.errors import CannotRun
from homeostat_retrainer.domain.gate import Gain, choose, paired_gain
from homeostat_retrainer.domain.split import Windows, holdout_length, split, without_seen

times = st.lists(st.integers(0, 5000), min_size=1, max_size=3000).map(
    lambda drawn: np.sort(np.array(drawn, dtype=np.int64))
)


@given(times, st.integers(-1, 5000), st.integers(300, 4000))
@settings(max_examples=200, deadline=None)
def test_training_ends_before_the_holdout_begins(
    known_at: np.ndarray, trained_to: int, reference_rows: int
) -> None:
    try:
        parts = split(
            known_at,
            champion_trained_to_us=trained_to,
            reference_rows=reference_rows,
            windows=Windows(),
        )
    except CannotRun:
        return
    begin, end = parts.holdout
    assert end == len(known_at)
    assert end - begin >= 300
    assert known_at[begin] > trained_to
    for start, stop in parts.training.values():
        assert known_at[stop - 1] < known_at[begin]
        assert stop - start >= 300


def test_a_row_that_was_corrected_after_the_champion_saw_it_judges_nobody() -> None:
    known_at = np.array([1, 2, 3, 6, 7, 8])
    first_known_at = np.array([1, 1, 3, 4, 5, 8])
    kept = without_seen(known_at, first_known_at, champion_trained_to_us=4)
    assert known_at[kept].tolist() == [1, 2, 3, 7, 8]


def test_windows_are_the_three_lengths_without_repeats() -> None:
    known_at = np.arange(100_000)
    parts = split(known_at, champion_trained_to_us=0, reference_rows=20_000, windows=Windows(2.0))
    lengths = {name: stop - start for name, (start, stop) in parts.training.items()}
    assert lengths == {"everything": 40_000, "reference": 20_000, "quarter": 5_000}
    few = split(known_at[:4000], champion_trained_to_us=0, reference_rows=20_000, windows=Windows())
    assert list(few.training) == ["everything"]


@pytest.mark.parametrize(
    ("rows", "reference_rows", "expected"),
    [(500, 500, 300), (5000, 5000, 1000), (90_000, 27_000, 2000), (90_000, 4000, 800)],
)
def test_the_holdout_is_a_fifth_within_bounds(
    rows: int, reference_rows: int, expected: int
) -> None:
    assert holdout_length(rows, reference_rows) == expected


def test_too_little_new_truth_is_said() -> None:
    with pytest.raises(CannotRun, match="newer than the champion's training"):
        split(np.arange(1000), champion_trained_to_us=800, reference_rows=1000, windows=Windows())


def test_the_bound_is_one_sided_and_corrected_for_the_best_of_several() -> None:
    gain = Gain(mean=0.01, deviation=0.1, rows=400)
    assert gain.lower_bound(1) == pytest.approx(0.01 - 1.6449 * 0.005, abs=1e-6)
    assert gain.lower_bound(3) == pytest.approx(0.01 - 2.1280 * 0.005, abs=1e-6)


def test_a_candidate_that_is_no_better_rarely_passes() -> None:
    random = np.random.default_rng(0)
    passed = 0
    for _ in range(500):
        champion = random.exponential(size=500)
        candidates = [champion + random.normal(size=500) for _ in range(3)]
        place = choose(champion, candidates)
        assert place is not None
        passed += paired_gain(champion, candidates[place]).lower_bound(3) > 0
    assert passed / 500 < 0.08


def losses(gain: float, spread: float, seed: int) -> np.ndarray:
    return 1 - gain + np.random.default_rng(seed).normal(0, spread, 1000)


CHAMPION = np.ones(1000)


def test_the_surest_is_proposed_and_a_failed_candidate_is_none() -> None:
    assert choose(CHAMPION, [None, losses(0.0, 0.5, 1), losses(0.02, 0.01, 2)]) == 2
    assert choose(CHAMPION, [None, None]) is None


def test_of_equals_the_longest_window_is_proposed() -> None:
    assert choose(CHAMPION, [losses(0.10, 0.5, 1), losses(0.101, 0.5, 2)]) == 0


def test_a_shorter_window_wins_where_its_gain_is_beyond_noise() -> None:
    assert choose(CHAMPION, [losses(0.10, 0.5, 1), losses(0.30, 0.5, 2)]) == 1


def test_a_longer_window_that_does_not_pass_is_not_preferred() -> None:
    assert choose(CHAMPION, [losses(0.0, 0.5, 1), losses(0.04, 0.5, 2)]) == 1
