"""A request, checked against a signature before anything else touches it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from homeostat.columns import DTYPES
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat_inference.domain.errors import InvalidInput
from homeostat_inference.domain.schema import Schema, Tensor
from homeostat_inference.domain.tensors import Packed, read_raw, read_typed
from homeostat_inference.domain.times import TimeBounds

RESERVED_PREFIX = "homeostat."
ID_INPUT = "homeostat.id"
EVENT_TIME_INPUT = "homeostat.event_time"
CONTEXT_PREFIX = "homeostat.context."
# More columns than this for diagnosis are a mistake, and each costs every row.
MAX_CONTEXTS = 64
# Every block repeats the names, and every reader of blocks holds them.
MAX_CONTEXT_NAME = 128
# An id is echoed: it shall cost no more than a request's own values.
MAX_REQUEST_ID = 1024
# Of a shape, in a text that travels in a header.
_SHOWN_DIMENSIONS = 8

InferInput = ModelInferRequest.InferInputTensor
# Name and datatype of each context column, in the request's order.
ContextSchema = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class CheckedRequest:
    """The rows of one request: they fit the signature, except that values are not yet looked at."""

    rows: int
    # One per input of the signature, in its order.
    columns: list[Packed]
    is_raw: bool
    request_id: str
    # Which outputs to answer with, as indexes into the signature's.
    outputs: tuple[int, ...]
    client_ids: list[str] | None = None
    # int64 per row, packed; None means the arrival time.
    event_times: bytes | None = None
    context_schema: ContextSchema = ()
    contexts: list[Packed] = field(default_factory=list)


def check(request: ModelInferRequest, schema: Schema, times: TimeBounds) -> CheckedRequest:
    """The request's rows; InvalidInput, with model, input, expected and got, if they don't fit."""
    reader = _Reader(request, schema)
    if len(request.id) > MAX_REQUEST_ID:
        raise InvalidInput(
            f"{reader.model}: expected a request id of at most {MAX_REQUEST_ID} characters, "
            f"got {len(request.id)}"
        )
    columns: list[Packed | None] = [None] * len(schema.inputs)
    checked = CheckedRequest(0, [], reader.is_raw, request.id, _selected(request, schema))
    for at, tensor in enumerate(request.inputs):
        index = schema.input_index.get(tensor.name)
        if index is None:
            _reserved(checked, reader, at, tensor, times)
            continue
        if columns[index] is not None:
            raise InvalidInput(f"{reader.where(tensor)}: expected once, got it twice")
        expected = schema.inputs[index]
        columns[index] = reader.plain(at, tensor, expected) or reader.model_input(
            at, tensor, expected
        )
    _no_gap(columns, reader, schema)
    checked.columns = columns  # type: ignore[assignment]
    checked.rows = reader.rows
    if (
        request.id
        and checked.rows == 1
        and checked.client_ids is None
        and schema.signature.request_id_is_client_id
    ):
        checked.client_ids = [request.id]
    return checked


class _Reader:
    """Reads tensors of one request; remembers how many rows the first one had."""

    def __init__(self, request: ModelInferRequest, schema: Schema) -> None:
        self.model = f"model {schema.model_name!r} version {schema.version}"
        self.rows = 0
        self._request = request
        self._raws = request.raw_input_contents
        self.is_raw = len(self._raws) > 0
        if self.is_raw and len(self._raws) != len(request.inputs):
            raise InvalidInput(
                f"{self.model}: expected one raw content per input ({len(request.inputs)}), "
                f"got {len(self._raws)}"
            )

    def where(self, tensor: InferInput) -> str:
        return f"{self.model}, input {tensor.name[:128]!r}"

    def plain(self, at: int, tensor: InferInput, expected: Tensor) -> bytes | None:
        """Raw numbers that fit in every respect, as most do; None sends the input the long way,
        which says what is wrong."""
        shape = tensor.shape
        if (
            self.is_raw
            and not tensor.HasField("contents")
            and expected.is_plain
            and tensor.datatype == expected.datatype
            and len(shape) == len(expected.shape)
            and tuple(shape[1:]) == expected.shape[1:]
        ):
            raw, rows = self._raws[at], shape[0]
            if 0 < rows == (self.rows or rows) and len(raw) == rows * expected.row_bytes:
                self.rows = rows
                return raw
        return None

    def model_input(self, at: int, tensor: InferInput, expected: Tensor) -> Packed:
        if tensor.datatype != expected.datatype:
            raise InvalidInput(
                f"{self.where(tensor)}: expected datatype {expected.datatype}, "
                f"got {tensor.datatype[:32]!r}"
            )
        shape = tensor.shape
        if len(shape) != len(expected.shape) or tuple(shape[1:]) != expected.shape[1:]:
            raise InvalidInput(
                f"{self.where(tensor)}: expected shape {list(expected.shape)}, got {_shown(shape)}"
            )
        return self._values(at, tensor, expected.width)

    def reserved(self, at: int, tensor: InferInput, datatype: str | None) -> Packed:
        """One value per row, shape [rows] or [rows, 1]."""
        known = tensor.datatype == "BYTES" or tensor.datatype in DTYPES
        if tensor.datatype != datatype if datatype else not known:
            raise InvalidInput(
                f"{self.where(tensor)}: expected datatype {datatype or 'of the protocol'}, "
                f"got {tensor.datatype[:32]!r}"
            )
        shape = tensor.shape
        if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
            raise InvalidInput(
                f"{self.where(tensor)}: expected shape [rows] or [rows, 1], got {_shown(shape)}"
            )
        return self._values(at, tensor, 1)

    def _values(self, at: int, tensor: InferInput, width: int) -> Packed:
        rows = tensor.shape[0]
        if rows < 1:
            raise InvalidInput(f"{self.where(tensor)}: expected at least one row, got {rows}")
        if self.rows == 0:
            self.rows = rows
        elif rows != self.rows:
            raise InvalidInput(
                f"{self.where(tensor)}: expected {self.rows} rows as in the inputs before, "
                f"got {rows}"
            )
        where = self.where(tensor)
        if self.is_raw:
            if tensor.HasField("contents"):
                raise InvalidInput(f"{where}: expected raw contents or typed ones, got both")
            return read_raw(tensor.datatype, self._raws[at], rows * width, where)
        return read_typed(tensor.datatype, tensor.contents, rows * width, where)


def _reserved(
    checked: CheckedRequest, reader: _Reader, at: int, tensor: InferInput, times: TimeBounds
) -> None:
    name = tensor.name
    is_second = (
        (name == EVENT_TIME_INPUT and checked.event_times is not None)
        or (name == ID_INPUT and checked.client_ids is not None)
        or any(name == CONTEXT_PREFIX + known for known, _ in checked.context_schema)
    )
    if is_second:
        raise InvalidInput(f"{reader.where(tensor)}: expected once, got it twice")
    if name == EVENT_TIME_INPUT:
        packed = reader.reserved(at, tensor, "INT64")
        values = np.frombuffer(packed, dtype="<i8")  # type: ignore[arg-type]
        times.check(int(values.min()), int(values.max()), reader.where(tensor))
        checked.event_times = packed  # type: ignore[assignment]
    elif name == ID_INPUT:
        checked.client_ids = reader.reserved(at, tensor, "BYTES")  # type: ignore[assignment]
    elif name.startswith(CONTEXT_PREFIX) and len(name) > len(CONTEXT_PREFIX):
        if len(checked.contexts) == MAX_CONTEXTS:
            raise InvalidInput(f"{reader.model}: expected at most {MAX_CONTEXTS} context columns")
        if len(name) - len(CONTEXT_PREFIX) > MAX_CONTEXT_NAME:
            raise InvalidInput(
                f"{reader.where(tensor)}: expected a context's name of at most "
                f"{MAX_CONTEXT_NAME} characters, got {len(name) - len(CONTEXT_PREFIX)}"
            )
        checked.contexts.append(reader.reserved(at, tensor, None))
        checked.context_schema += ((name[len(CONTEXT_PREFIX) :], tensor.datatype),)
    else:
        raise InvalidInput(f"{reader.where(tensor)}: the model has no such input")


def _no_gap(columns: list[Packed | None], reader: _Reader, schema: Schema) -> None:
    missing = [
        each.name for each, column in zip(schema.inputs, columns, strict=True) if column is None
    ]
    if missing:
        raise InvalidInput(
            f"{reader.model}, input {missing[0]!r}: expected {len(schema.inputs)} inputs, "
            f"got {len(schema.inputs) - len(missing)}; missing: {', '.join(missing)}"
        )


def _selected(request: ModelInferRequest, schema: Schema) -> tuple[int, ...]:
    if not request.outputs:
        return schema.all_outputs
    indexes = [schema.output_index.get(each.name) for each in request.outputs]
    if None in indexes:
        raise InvalidInput(
            f"model {schema.model_name!r} version {schema.version}, output "
            f"{request.outputs[indexes.index(None)].name[:128]!r}: expected one of "
            f"{[each.name for each in schema.outputs]}"
        )
    if len(set(indexes)) < len(indexes):
        raise InvalidInput(
            f"model {schema.model_name!r} version {schema.version}: expected each output once, "
            f"got {len(indexes)} names for {len(set(indexes))} of "
            f"{[each.name for each in schema.outputs]}"
        )
    return tuple(indexes)  # type: ignore[arg-type]


def _shown(shape: Sequence[int]) -> str:
    if len(shape) <= _SHOWN_DIMENSIONS:
        return str(list(shape))
    return f"{len(shape)} dimensions, {list(shape[:_SHOWN_DIMENSIONS])} first"
