"""Scores are what the textbooks say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat_flights.score import WEEK_US, auc, score


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    truths = np.array([float(each) for each, _ in rows])
    scores = np.array([each / 5 for _, each in rows])
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a in scores[truths == 1]
        for b in scores[truths == 0]
    ]
    if pairs:
        assert auc(truths, scores) == pytest.approx(np.mean(pairs))
    else:
        assert np.isnan(auc(truths, scores))


def test_weeks_are_scored_apart_on_the_same_rows() -> None:
    times = np.array([0, 1, WEEK_US, WEEK_US + 1])
    truths = np.array([1.0, 0.0, 1.0, 0.0])
    found = score(times, truths, np.array([0.9, 0.1, 0.9, 0.1]), np.array([0.1, 0.9, 0.9, 0.1]))
    assert [week.accuracy_loop for week in found.weeks] == [1.0, 1.0]
    assert [week.auc_never for week in found.weeks] == [0.0, 1.0]
    assert found.accuracy_never == 0.5
    assert found.auc_never == 0.5
