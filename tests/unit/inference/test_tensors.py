"""Tensors come out of requests as they went in, raw or typed, or are refused in words."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from homeostat.columns import DTYPES
from homeostat.inference.v2.open_inference_pb2 import InferTensorContents
from homeostat_inference.domain.errors import InvalidInput
from homeostat_inference.domain.tensors import (
    CONTENTS_FIELD,
    fill,
    join,
    raw_of,
    read_raw,
    read_typed,
)

NUMBERS = sorted(DTYPES)


@st.composite
def values_of(draw: st.DrawFn, datatype: str) -> Any:
    """Any array of that datatype."""
    if datatype == "BYTES":
        texts = draw(st.lists(st.text(), max_size=20))
        found = np.empty(len(texts), dtype=object)
        found[:] = texts
        return found
    return draw(arrays.arrays(DTYPES[datatype], st.integers(0, 20)))


@given(datatype=st.sampled_from([*NUMBERS, "BYTES"]), data=st.data())
def test_raw_contents_come_out_as_they_went_in(datatype: str, data: st.DataObject) -> None:
    values = data.draw(values_of(datatype))
    packed = read_raw(datatype, raw_of(values), len(values), "x")
    np.testing.assert_array_equal(join(datatype, [packed]), values)


@given(datatype=st.sampled_from(sorted(CONTENTS_FIELD)), data=st.data())
def test_typed_contents_come_out_as_they_went_in(datatype: str, data: st.DataObject) -> None:
    values = data.draw(values_of(datatype))
    contents = InferTensorContents()
    fill(contents, datatype, values)
    packed = read_typed(datatype, contents, len(values), "x")
    np.testing.assert_array_equal(join(datatype, [packed]), values)


@given(raw=st.binary(max_size=60), count=st.integers(0, 8))
def test_any_bytes_are_strings_or_refused(raw: bytes, count: int) -> None:
    try:
        found = read_raw("BYTES", raw, count, "x")
    except InvalidInput as error:
        assert str(error).startswith("x: expected")
    else:
        assert len(found) == count


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT8", 128), ("UINT8", 256), ("INT16", -40_000), ("UINT16", 70_000)]
)
def test_typed_contents_beyond_their_datatype_are_refused(datatype: str, value: int) -> None:
    contents = InferTensorContents()
    getattr(contents, CONTENTS_FIELD[datatype]).append(value)
    with pytest.raises(InvalidInput, match=datatype):
        read_typed(datatype, contents, 1, "x")


def test_half_floats_have_no_typed_contents() -> None:
    with pytest.raises(InvalidInput, match="raw"):
        read_typed("FP16", InferTensorContents(), 1, "x")
