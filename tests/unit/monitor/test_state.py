"""Stored states: exact, or refused."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.state import pack, unpack

KINDS = st.sampled_from(["<i8", "<i4", "<u8", "<f8", "|u1", "|b1"])


@given(
    array=KINDS.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=1))),
    number=st.floats(allow_nan=False),
)
def test_a_state_comes_back_bit_for_bit(array: np.ndarray, number: float) -> None:
    state = unpack("a-1", pack("a-1", {"n": number, "t": "é", "none": None}, {"x": array}))
    assert state.values == {"n": number, "t": "é", "none": None}
    assert state.arrays["x"].dtype == array.dtype
    assert state.arrays["x"].shape == array.shape
    assert state.arrays["x"].tobytes() == array.tobytes()


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_is_refused(place: int, bit: int) -> None:
    data = bytearray(pack("a-1", {"n": 1}, {"x": np.arange(50)}))
    data[place % len(data)] ^= 1 << bit
    with pytest.raises(CorruptState):
        unpack("a-1", bytes(data))


@given(length=st.integers(0, 200))
def test_a_torn_state_is_refused(length: int) -> None:
    data = pack("a-1", {"n": 1}, {"x": np.arange(50)})
    with pytest.raises(CorruptState):
        unpack("a-1", data[: min(length, len(data) - 1)])


def test_another_form_is_refused() -> None:
    with pytest.raises(CorruptState, match="a-2"):
        unpack("a-2", pack("a-1", {}, {}))


def test_objects_are_never_stored() -> None:
    with pytest.raises(TypeError):
        pack("a-1", {}, {"x": np.array([object()])})
