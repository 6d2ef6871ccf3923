"""Packed columns keep what was put in, and refuse what does not fit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from homeostat.columns import DTYPES, nulls_of, pack, pack_validity, unpack, unpack_validity
from homeostat.events.v1.column_pb2 import Column

_ARRAYS = st.sampled_from(sorted(DTYPES)).flatmap(
    lambda name: hnp.arrays(DTYPES[name], st.integers(1, 50))
)


@given(_ARRAYS)
def test_numbers_survive_the_round_trip_bit_for_bit(values: np.ndarray) -> None:
    found, valid = unpack(pack("x", values), len(values))
    assert found.tobytes() == values.tobytes()
    assert valid.all()


@given(st.lists(st.text(max_size=8), min_size=1, max_size=60))
def test_strings_survive_the_round_trip(texts: list[str]) -> None:
    values = np.array(texts, dtype=object)
    column = Column.FromString(pack("x", values).SerializeToString())
    found, _ = unpack(column, len(texts))
    assert found.tolist() == texts


@given(hnp.arrays(np.bool_, st.integers(1, 70)))
def test_validity_survives_the_round_trip(valid: np.ndarray) -> None:
    assert (unpack_validity(pack_validity(valid), len(valid)) == valid).all()


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(2, 5))))
def test_wide_columns_keep_their_shape(values: np.ndarray) -> None:
    found, _ = unpack(pack("x", values), len(values))
    assert found.shape == values.shape


def test_a_column_of_wrong_length_is_refused() -> None:
    column = pack("x", np.arange(4, dtype=np.int32))
    with pytest.raises(ValueError, match="expected 20"):
        unpack(column, 5)


def test_a_code_outside_the_dictionary_is_refused() -> None:
    column = Column(name="x", datatype="BYTES", values=np.array([3], "<i4").tobytes())
    column.dictionary.append("only")
    with pytest.raises(ValueError, match="outside its dictionary"):
        unpack(column, 1)


def test_an_unknown_datatype_is_refused() -> None:
    with pytest.raises(ValueError, match="COMPLEX"):
        unpack(Column(name="x", datatype="COMPLEX", values=b""), 0)


def test_nan_and_empty_text_are_null() -> None:
    assert nulls_of(np.array([1.0, np.nan])).tolist() == [False, True]
    assert nulls_of(np.array(["a", "", None], dtype=object)).tolist() == [False, True, True]
    assert not nulls_of(np.array([0, 1])).any()
