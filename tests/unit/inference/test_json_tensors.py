"""JSON of the Open Inference Protocol: what goes in comes out, and what is wrong is named."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from homeostat.columns import DTYPES
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from homeostat_inference.domain.errors import InvalidInput
from homeostat_inference.domain.json_tensors import (
    Wanted,
    dumps,
    read_json,
    read_request,
    write_response,
)
from homeostat_inference.domain.tensors import raw_of

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, np.ndarray]:
    """A datatype and an array of it, of rank 1 to 3."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    datatype = draw(st.sampled_from([*DTYPES, "BYTES"]))
    if datatype == "BYTES":
        texts = draw(hnp.arrays(object, shape, elements=TEXT, fill=st.nothing()))
        return datatype, texts
    return datatype, draw(hnp.arrays(DTYPES[datatype], shape))


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def read(text: bytes, tail: bytes = b"") -> ModelInferRequest:
    return read_request(read_json(text), memoryview(tail), "risk", "").message


def same(raw: bytes, datatype: str, values: np.ndarray) -> bool:
    if datatype == "BYTES" or not datatype.startswith("FP"):
        return raw == raw_of(values)
    got = np.frombuffer(raw, DTYPES[datatype])
    return bool(np.array_equal(got, values.reshape(-1), equal_nan=True))


@settings(max_examples=200, deadline=None)
@given(tensors(), st.booleans())
def test_what_json_says_is_what_the_engine_gets(
    tensor: tuple[str, np.ndarray], is_nested: bool
) -> None:
    datatype, values = tensor
    data = values.tolist() if is_nested else values.reshape(-1).tolist()
    told = {"name": "x", "datatype": datatype, "shape": list(values.shape), "data": data}
    message = read(body(told, id="mine"))
    assert message.id == "mine"
    assert list(message.inputs[0].shape) == list(values.shape)
    assert same(message.raw_input_contents[0], datatype, values)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(tensors(), st.booleans()), min_size=1, max_size=4))
def test_bytes_behind_the_json_reach_their_own_inputs(
    told: list[tuple[tuple[str, np.ndarray], bool]],
) -> None:
    inputs, tail = [], b""
    for number, ((datatype, values), is_binary) in enumerate(told):
        each = {"name": str(number), "datatype": datatype, "shape": list(values.shape)}
        if is_binary:
            raw = raw_of(values)
            inputs.append({**each, "parameters": {"binary_data_size": len(raw)}})
            tail += raw
        else:
            inputs.append({**each, "data": values.reshape(-1).tolist()})
    message = read(body(*inputs), tail)
    for raw, ((datatype, values), _) in zip(message.raw_input_contents, told, strict=True):
        assert same(raw, datatype, values)
    with pytest.raises(InvalidInput, match="behind the JSON"):
        read(body(*inputs), tail + b"x")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(tensors(), st.booleans()), max_size=4))
def test_a_response_is_strict_json_with_the_bytes_that_were_asked_for(
    outputs: list[tuple[tuple[str, np.ndarray], bool]],
) -> None:
    response = ModelInferResponse(model_name="risk", model_version="3", id="mine")
    response.parameters["prediction_id"].string_param = "00-1"
    wanted = {}
    for number, ((datatype, values), is_binary) in enumerate(outputs):
        response.outputs.add(name=str(number), datatype=datatype, shape=values.shape)
        response.raw_output_contents.append(raw_of(values))
        wanted[str(number)] = is_binary
    text, tails = write_response(response, Wanted(by_name=wanted))

    def refuse(token: str) -> None:
        raise AssertionError(token)

    found = json.loads(text, parse_constant=refuse)
    assert (found["model_name"], found["model_version"], found["id"]) == ("risk", "3", "mine")
    assert found["parameters"] == {"prediction_id": "00-1"}
    left = list(tails)
    for told, ((datatype, values), is_binary) in zip(found["outputs"], outputs, strict=True):
        assert told["shape"] == list(values.shape)
        if is_binary:
            raw = left.pop(0)
            assert told["parameters"] == {"binary_data_size": len(raw)}
            assert raw == raw_of(values)
        else:
            # As NVIDIA's client reads it.
            got = np.array(told["data"], object if datatype == "BYTES" else DTYPES[datatype])
            assert same(raw_of(got.reshape(values.shape)), datatype, values)
    assert not left


@settings(max_examples=300, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["inputs", "outputs", "id", "name", "datatype", "shape", "data", "parameters"]
        ) | st.text(max_size=2),
        inner, max_size=4,
    ),
    max_leaves=20,
))  # fmt: skip
def test_whatever_json_comes_it_is_read_or_refused(told: Any) -> None:
    try:
        read(json.dumps(told).encode())
    except InvalidInput as error:
        assert len(str(error)) < 1000


X = {"name": "x", "datatype": "FP32", "shape": [2, 1], "data": [1.0, 2.0]}

REFUSED: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "expected JSON"),
    "no UTF-8": (b'{"id": "\xff"}', "expected JSON"),
    "too deep": (b"[" * 100_000 + b"]" * 100_000, "too deep"),
    "a number of too many digits": (b'{"id": ' + b"9" * 10_000 + b"}", "expected JSON"),
    "no object": (b"[]", "object"),
    "no inputs": (b"{}", "inputs"),
    "id of a number": (body(X, id=3), "id"),
    "lone surrogate in a parameter's name": (
        body(X, parameters={"\ud800": 1}),
        "surrogate",
    ),
    "lone surrogate": (body(X, id="\ud800"), "surrogate"),
    "neither data nor bytes": (body({**X, "data": None} | {"data": None}), "data"),
    "strings as numbers": (body({**X, "data": ["1.0", "2.0"]}), "got strings"),
    "booleans as numbers": (body({**X, "data": [True, False]}), "true or false"),
    "fractions as whole numbers": (body({**X, "datatype": "INT64"}), "fraction"),
    "null as a whole number": (
        body({**X, "datatype": "INT64", "data": [1, None]}),
        "got null",
    ),
    "too large": (body({**X, "datatype": "UINT8", "data": [0, 256]}), "UINT8 can hold"),
    "negative": (body({**X, "datatype": "UINT8", "data": [0, -1]}), "UINT8 can hold"),
    "numbers as strings": (body({**X, "datatype": "BYTES"}), "expected strings"),
    "too few": (body({**X, "data": [1.0]}), "expected 2 values"),
    "nested otherwise": (body({**X, "data": [[1.0, 2.0]]}), "lists of 1"),
    "nested in part": (body({**X, "data": [[1.0], 2.0]}), "nested"),
    "nested too deep for the shape": (body({**X, "data": [[[1.0]], [[2.0]]]}), "got lists"),
    "negative shape": (body({**X, "shape": [-1, 1]}), "shape"),
    "shape of fractions": (body({**X, "shape": [2.0, 1]}), "shape"),
    "giant shape": (body({**X, "shape": [2**31 - 1] * 8}), "values for shape"),
    "too many dimensions": (body({**X, "shape": [1] * 9, "data": [1.0]}), "at most 8"),
    "unknown datatype": (body({**X, "datatype": "FP8"}), "FP8"),
    "shared memory": (
        body({**X, "parameters": {"shared_memory_region": "a"}}),
        "shared_memory_region",
    ),
    "classification": (
        body(X, outputs=[{"name": "y", "parameters": {"classification": 3}}]),
        "classification",
    ),
    "size that is none": (
        body(
            {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": -1}}
        ),
        "number of bytes",
    ),
    "bytes that did not come": (
        body(
            {"name": "x", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}}
        ),
        "Inference-Header-Content-Length",
    ),
    "data and bytes": (body({**X, "parameters": {"binary_data_size": 8}}), "either"),
    "parameter of another kind": (body(X, parameters={"a": [1]}), "parameter 'a'"),
    "parameter beyond 64 bits": (body(X, parameters={"a": 2**64}), "parameter 'a'"),
    "wish that is none": (body(X, parameters={"binary_data_output": 1}), "binary_data_output"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_named(what: str) -> None:
    text, words = REFUSED[what]
    with pytest.raises(InvalidInput, match=words):
        read(text)


def test_nan_and_null_mean_a_missing_float() -> None:
    data = [math.nan, None, math.inf, 1]
    text = body({"name": "x", "datatype": "FP64", "shape": [4], "data": data})
    assert b"NaN" in text
    values = np.frombuffer(read(text).raw_input_contents[0], "<f8")
    assert math.isnan(values[0]) and math.isnan(values[1]) and math.isinf(values[2])


def test_parameters_keep_their_kinds() -> None:
    told = {"a": True, "b": -3, "c": 2**63, "d": 0.5, "e": "text"}
    found = read(body(X, parameters=told)).parameters
    kinds = {name: each.WhichOneof("parameter_choice") for name, each in found.items()}
    assert kinds == {
        "a": "bool_param", "b": "int64_param", "c": "uint64_param", "d": "double_param",
        "e": "string_param",
    }  # fmt: skip


def test_json_is_written_strictly() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps({"a": math.nan})
