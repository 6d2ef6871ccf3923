"""Two forms of a model are equal where they decide alike, within what is told."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from homeostat.advise.equivalence import Equality, Tolerance, compare, value_tolerance, why_not
from homeostat.events.v1.column_pb2 import TASK_BINARY, TASK_MULTICLASS, TASK_REGRESSION
from homeostat.registry.v1.registry_pb2 import Signature

BINARY = Signature(task=TASK_BINARY, classes=["no", "yes"], decision_threshold=0.5)
MULTICLASS = Signature(task=TASK_MULTICLASS, classes=["a", "b", "c"])
REGRESSION = Signature(task=TASK_REGRESSION)
SCORES = arrays(
    np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=st.floats(0, 1, width=32)
)
ANY = arrays(np.float32, st.tuples(st.integers(1, 40), st.just(1)), elements=st.floats(width=32))


def compared(signature: Signature, one: Any, two: Any, **tolerance: Any) -> Equality:
    return compare(
        signature,
        np.asarray(one, np.float32),
        np.asarray(two, np.float32),
        Tolerance(**tolerance),
    )


@given(SCORES)
def test_a_form_equals_itself(scores: np.ndarray) -> None:
    for signature in (BINARY, MULTICLASS):
        equality = compare(signature, scores, scores, Tolerance())
        assert equality.share == 1.0
        assert equality.max_score_difference == 0.0
        assert why_not(equality, signature, Tolerance()) == ""


@given(ANY)
def test_a_value_equals_itself_even_where_it_is_not_finite(values: np.ndarray) -> None:
    equality = compare(REGRESSION, values, values, Tolerance())
    assert equality.share == 1.0
    assert why_not(equality, REGRESSION, Tolerance()) == ""


@given(SCORES, st.data())
def test_it_matters_not_which_form_is_named_first(scores: np.ndarray, data: st.DataObject) -> None:
    other = data.draw(arrays(np.float32, scores.shape, elements=st.floats(0, 1, width=32)))
    one = compare(BINARY, scores, other, Tolerance())
    two = compare(BINARY, other, scores, Tolerance())
    assert (one.equal_count, one.max_score_difference) == (
        two.equal_count,
        two.max_score_difference,
    )
    assert 0 <= one.equal_count <= one.row_count == len(scores)


@given(SCORES, st.floats(0, 0.1), st.floats(0, 0.1))
def test_more_tolerance_never_finds_fewer_equal(scores: np.ndarray, one: float, two: float) -> None:
    other = scores[::-1].copy()
    few, many = sorted((one, two))
    counts = [
        compare(REGRESSION, scores[:, :1], other[:, :1], Tolerance(value=value)).equal_count
        for value in (few, many)
    ]
    assert counts[0] <= counts[1]


def test_a_row_on_the_other_side_of_the_threshold_is_not_equal() -> None:
    equality = compared(BINARY, [[0.51, 0.49], [0.2, 0.8]], [[0.49, 0.51], [0.2, 0.8]])
    assert equality.equal_count == 1
    assert "1 of 2 rows are decided alike" in why_not(equality, BINARY, Tolerance())


def test_the_same_decision_with_another_score_is_told() -> None:
    equality = compared(BINARY, [[0.1, 0.9]], [[0.3, 0.7]])
    assert equality.share == 1.0
    assert "a score differs by 0.2" in why_not(equality, BINARY, Tolerance())
    assert why_not(equality, BINARY, Tolerance(score_difference=0.3)) == ""


def test_the_likeliest_class_decides_among_many() -> None:
    equality = compared(
        MULTICLASS, [[0.4, 0.35, 0.25]] * 2, [[0.39, 0.36, 0.25], [0.3, 0.45, 0.25]]
    )
    assert equality.equal_count == 1


def test_a_row_that_lost_its_number_is_not_equal() -> None:
    for other in (np.nan, np.inf):
        equality = compared(BINARY, [[0.1, 0.9], [0.2, 0.8]], [[0.1, 0.9], [0.2, other]])
        assert equality.equal_count == 1
        assert equality.max_score_difference == np.inf
        value = compared(REGRESSION, [[1.0], [2.0]], [[1.0], [other]])
        assert value.equal_count == 1
        assert why_not(value, REGRESSION, Tolerance(share=0.5)) != ""


def test_values_are_equal_within_a_hundredth_of_their_deviation() -> None:
    values = np.arange(1000, dtype=np.float32).reshape(-1, 1)
    allowed = value_tolerance(REGRESSION, values, None)
    assert allowed == pytest.approx(values.std() / 100, rel=1e-3)
    assert compare(REGRESSION, values, values + allowed * 0.9, Tolerance()).share == 1.0
    assert compare(REGRESSION, values, values + allowed * 1.1, Tolerance()).share == 0.0
    assert value_tolerance(REGRESSION, values, 0.5) == 0.5
    assert value_tolerance(BINARY, values, 0.5) == 0.0


def test_answers_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        compared(BINARY, [[0.1, 0.9]], [[0.9]])
