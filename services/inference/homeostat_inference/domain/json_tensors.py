"""Requests and responses of the Open Inference Protocol as JSON, with the binary extension.

Numbers may be written flat or nested as the shape says. `NaN`, `Infinity` and `-Infinity`, which
Python and NVIDIA's clients write, are read; so is null in a float tensor, as NaN. What is written
is strict JSON: NaN becomes null, infinities become the strings "Infinity" and "-Infinity".
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np

from homeostat.columns import DTYPES
from homeostat.inference.v2.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
)
from homeostat_inference.domain.errors import InvalidInput
from homeostat_inference.domain.tensors import Array, raw_of, read_raw

BINARY_SIZE = "binary_data_size"
BINARY_OUTPUT = "binary_data"
BINARY_OUTPUTS = "binary_data_output"
# What would be an answer of another kind, or data that we can't see.
_NOT_SERVED = ("classification", "shared_memory_region")
_MAX_RANK = 8
_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
# Which Python types JSON may give for a datatype, by numpy's kind.
_KINDS: Mapping[str, frozenset[type]] = MappingProxyType(
    {
        "b": frozenset({bool}),
        "i": frozenset({int}),
        "u": frozenset({int}),
        "f": frozenset({int, float, type(None)}),
    }
)
_WORDS = {"b": "true or false", "i": "whole numbers", "u": "whole numbers", "f": "numbers or null"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which outputs the client wants to have as bytes behind the JSON."""

    is_default: bool = False
    by_name: Mapping[str, bool] = field(default_factory=dict)

    def is_binary(self, output: str) -> bool:
        """Whether this one."""
        return self.by_name.get(output, self.is_default)


@dataclass(frozen=True, slots=True)
class JsonRequest:
    """A request as the engine takes it, and how its answer is to be written."""

    message: ModelInferRequest
    wanted: Wanted


def read_json(text: bytes) -> dict[str, Any]:
    """The object; InvalidInput if it is none, or nested too deep."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise InvalidInput("expected JSON of a sane depth, got it nested too deep") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InvalidInput(f"expected JSON: {str(error)[:200]}") from None
    return _object(found, "the body")


def read_request(
    document: Mapping[str, Any], tail: memoryview, model_name: str, version: str
) -> JsonRequest:
    """The request of a body's JSON and of the bytes behind it; InvalidInput with what is wrong."""
    message = ModelInferRequest(
        model_name=model_name, model_version=version, id=_text(document.get("id", ""), "id")
    )
    parameters = _object(document.get("parameters", {}), "parameters")
    is_default = _flag(parameters.get(BINARY_OUTPUTS, False), BINARY_OUTPUTS)
    for name, value in parameters.items():
        if name != BINARY_OUTPUTS:
            key = _text(name, "a parameter's name")
            _fill(message.parameters[key], value, f"parameter {name[:128]!r}")
    at = 0
    for number, told in enumerate(_list(document.get("inputs"), "inputs")):
        at = _add_input(message, _object(told, f"input {number}"), tail, at)
    if at != len(tail):
        raise InvalidInput(
            f"expected {at} bytes behind the JSON, as {BINARY_SIZE} of the inputs say, "
            f"got {len(tail)}"
        )
    return JsonRequest(message, _outputs(message, document, is_default))


def _add_input(
    message: ModelInferRequest, told: Mapping[str, Any], tail: memoryview, at: int
) -> int:
    """Appends the tensor; returns where the next one's bytes begin."""
    name = _text(told.get("name"), "an input's name")
    where = f"input {name[:128]!r}"
    datatype = _text(told.get("datatype"), f"{where}: datatype")
    shape = _shape(told.get("shape"), where)
    parameters = _object(told.get("parameters", {}), f"{where}: parameters")
    _require_served(parameters, where)
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    size = parameters.get(BINARY_SIZE)
    if (size is None) == ("data" not in told):
        raise InvalidInput(f"{where}: expected either data or the parameter {BINARY_SIZE}")
    if size is None:
        values = _flat(told["data"], shape, where)
        message.raw_input_contents.append(_packed(datatype, values, where))
        return at
    after = at + _size(size, f"{where}: {BINARY_SIZE}")
    if after > len(tail):
        raise InvalidInput(
            f"{where}: expected {size} bytes behind the JSON, got {max(0, len(tail) - at)}; "
            "the header Inference-Header-Content-Length says where the JSON ends"
        )
    message.raw_input_contents.append(bytes(tail[at:after]))
    return after


def _outputs(message: ModelInferRequest, document: Mapping[str, Any], is_default: bool) -> Wanted:
    by_name: dict[str, bool] = {}
    for number, each in enumerate(_list(document.get("outputs", []), "outputs")):
        told = _object(each, f"output {number}")
        name = _text(told.get("name"), "an output's name")
        parameters = _object(told.get("parameters", {}), f"output {name[:128]!r}: parameters")
        _require_served(parameters, f"output {name[:128]!r}")
        message.outputs.add(name=name)
        if BINARY_OUTPUT in parameters:
            by_name[name] = _flag(parameters[BINARY_OUTPUT], BINARY_OUTPUT)
    return Wanted(is_default, by_name)


def _require_served(parameters: Mapping[str, Any], where: str) -> None:
    for name in _NOT_SERVED:
        if name in parameters:
            raise InvalidInput(f"{where}: the parameter {name!r} is not served here")


def _flat(data: Any, shape: Sequence[int], where: str) -> list[Any]:
    """The tensor's values in row-major order, written flat or nested as the shape says."""
    values = _list(data, f"{where}: data")
    if values and isinstance(values[0], list):
        for size in shape[1:]:
            if set(map(type, values)) - {list}:
                raise InvalidInput(f"{where}: expected data flat, or nested as its shape says")
            if set(map(len, values)) - {size}:
                raise InvalidInput(
                    f"{where}: expected lists of {size} within shape {list(shape)}, got others"
                )
            values = list(chain.from_iterable(values))
    count = math.prod(shape)
    if len(values) != count:
        raise InvalidInput(
            f"{where}: expected {count} values for shape {list(shape)}, got {len(values)}"
        )
    return values


def _packed(datatype: str, values: list[Any], where: str) -> bytes:
    """JSON values as raw contents."""
    if datatype == "BYTES":
        _require_types(values, frozenset({str}), "strings", where)
        return raw_of(_strings(values, where))
    dtype = DTYPES.get(datatype)
    if dtype is None:
        raise InvalidInput(
            f"{where}: expected a datatype of the protocol that JSON can carry, "
            f"got {datatype[:32]!r}"
        )
    _require_types(values, _KINDS[dtype.kind], _WORDS[dtype.kind], where)
    try:
        with np.errstate(over="ignore"):
            packed = np.array(values, dtype=dtype)
    except OverflowError:
        raise InvalidInput(f"{where}: expected values that {datatype} can hold") from None
    return packed.tobytes()


def _strings(values: list[str], where: str) -> Array:
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{where}: expected text, got half a surrogate pair") from None
    texts = np.empty(len(values), dtype=object)
    texts[:] = values
    return texts


def _require_types(values: list[Any], known: frozenset[type], words: str, where: str) -> None:
    other = set(map(type, values)) - known
    if other:
        names = ", ".join(sorted(_JSON_NAMES.get(each, each.__name__) for each in other))
        raise InvalidInput(f"{where}: expected {words}, got {names}")


_JSON_NAMES: Mapping[type, str] = MappingProxyType(
    {
        bool: "true or false",
        int: "whole numbers",
        float: "numbers with a fraction",
        str: "strings",
        type(None): "null",
        list: "lists",
        dict: "objects",
    }
)


def _fill(parameter: InferParameter, value: Any, where: str) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int) and value in _INT64:
        parameter.int64_param = value
    elif isinstance(value, int) and value in _UINT64:
        parameter.uint64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    elif isinstance(value, str):
        parameter.string_param = _text(value, where)
    else:
        raise InvalidInput(f"{where}: expected a boolean, a number or a string")


def _shape(told: Any, where: str) -> list[int]:
    shape = _list(told, f"{where}: shape")
    if len(shape) > _MAX_RANK or not all(type(size) is int and 0 <= size < 2**31 for size in shape):
        raise InvalidInput(
            f"{where}: expected a shape of at most {_MAX_RANK} sizes from 0, got {str(shape)[:80]}"
        )
    return shape


def _size(told: Any, what: str) -> int:
    if type(told) is not int or told < 0:
        raise InvalidInput(f"{what}: expected a number of bytes, got {str(told)[:32]!r}")
    return told


def _flag(told: Any, what: str) -> bool:
    if not isinstance(told, bool):
        raise InvalidInput(f"{what}: expected true or false, got {str(told)[:32]!r}")
    return told


def _text(told: Any, what: str) -> str:
    if not isinstance(told, str):
        raise InvalidInput(f"{what}: expected a string, got {str(told)[:32]!r}")
    try:
        told.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what}: expected text, got half a surrogate pair") from None
    return told


def _list(told: Any, what: str) -> list[Any]:
    if not isinstance(told, list):
        raise InvalidInput(f"{what}: expected a list, got {str(told)[:32]!r}")
    return told


def _object(told: Any, what: str) -> dict[str, Any]:
    if not isinstance(told, dict):
        raise InvalidInput(f"{what}: expected an object, got {str(told)[:32]!r}")
    return told


def write_response(response: ModelInferResponse, wanted: Wanted) -> tuple[bytes, list[bytes]]:
    """The JSON of a response with raw contents, and the bytes that go behind it."""
    tails: list[bytes] = []
    outputs = []
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        written: dict[str, Any] = {
            "name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape),
        }  # fmt: skip
        if wanted.is_binary(tensor.name):
            written["parameters"] = {BINARY_SIZE: len(raw)}
            tails.append(raw)
        else:
            written["data"] = _json_values(tensor.datatype, raw, math.prod(tensor.shape))
        outputs.append(written)
    document: dict[str, Any] = {
        "model_name": response.model_name,
        "model_version": response.model_version,
        "parameters": {name: plain(each) for name, each in response.parameters.items()},
        "outputs": outputs,
    }
    if response.id:
        document["id"] = response.id
    return dumps(document), tails


def _json_values(datatype: str, raw: bytes, count: int) -> list[Any]:
    if datatype == "BYTES":
        return list(read_raw(datatype, raw, count, "output"))
    values = np.frombuffer(raw, dtype=DTYPES[datatype])
    found: list[Any] = values.tolist()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return [each if math.isfinite(each) else _not_finite(each) for each in found]
    return found


def _not_finite(value: float) -> str | None:
    if math.isnan(value):
        return None
    return "Infinity" if value > 0 else "-Infinity"


def plain(parameter: InferParameter) -> bool | int | float | str | None:
    """A parameter's value as JSON has it."""
    choice = parameter.WhichOneof("parameter_choice")
    if choice is None:
        return None
    value: bool | int | float | str = getattr(parameter, choice)
    if isinstance(value, float) and not math.isfinite(value):
        return _not_finite(value)
    return value


def dumps(document: object) -> bytes:
    """Strict JSON, without spaces."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
