"""Columns of blocks to Arrow and back, whatever their types and nulls."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat.columns import pack, unpack
from homeostat.events.v1.column_pb2 import Column
from homeostat_ledger.domain.columns import check, to_array, to_column
from homeostat_ledger.domain.errors import Unreadable

texts = st.lists(st.text(max_size=3), min_size=1, max_size=20)
dtypes = st.sampled_from(["?", "i1", "<i4", "<i8", "u1", "<u8", "<f4", "<f8"])


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[Column], list[int]]:
    """Some blocks' parts of one column."""
    dtype, width = draw(dtypes | st.just("text")), draw(st.integers(1, 3))
    parts, rows = [], draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    for count in rows:
        seed = draw(st.integers(0, 2**31))
        random = np.random.default_rng(seed)
        values: Any
        if dtype == "text":
            values = np.array([f"t{each}" for each in random.integers(0, 4, count * width)], object)
        else:
            values = random.integers(0, 2, count * width).astype(dtype)
        valid = random.random(count) < draw(st.sampled_from([0.5, 1.0]))
        shaped = values if width == 1 else values.reshape(count, width)
        parts.append(pack("x", shaped, valid))
    return parts, rows


@given(columns())
def test_columns_of_many_blocks_come_back_as_they_were(
    drawn: tuple[list[Column], list[int]],
) -> None:
    parts, rows = drawn
    for part, count in zip(parts, rows, strict=True):
        check([part], count)
    back = to_column("x", to_array(parts, rows))
    values, valid = unpack(back, sum(rows))
    each = [unpack(part, count) for part, count in zip(parts, rows, strict=True)]
    expected = np.concatenate([part[0] for part in each])
    assert valid.tolist() == np.concatenate([part[1] for part in each]).tolist()
    assert back.datatype == parts[0].datatype
    assert values[valid].tolist() == expected[valid].tolist()


def test_nan_is_not_null() -> None:
    column = pack("x", np.array([math.nan, 1.0]))
    assert to_array([column], [2]).null_count == 0


@pytest.mark.parametrize(
    "column",
    [
        Column(name="x", datatype="FP32", values=b"\0" * 7),
        Column(name="x", datatype="FP99", values=b"\0" * 8),
        Column(name="x", datatype="BYTES", values=b"\1\0\0\0" * 2, dictionary=["a"]),
        Column(name="x", datatype="BYTES", values=b"\xff" * 8, dictionary=["a"]),
        Column(name="x", datatype="INT8", values=b"\0\0", validity=b"\1\1"),
        Column(name="x", datatype="INT8", values=b"\0\0", width=2**31),
    ],
)
def test_a_column_that_does_not_fit_is_unreadable(column: Column) -> None:
    with pytest.raises(Unreadable):
        check([column], 2)
