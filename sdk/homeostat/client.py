"""A client for predictions and truth: named columns in, named columns out.

Any Open Inference Protocol client works as well; this one knows the reserved inputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from homeostat.channels import ChannelSecurity, open_channel
from homeostat.columns import DTYPES, datatype_of
from homeostat.ids import parse_prediction_id, prediction_id
from homeostat.inference.v1.truth_pb2 import (
    AdvanceWatermarkRequest,
    Outcome,
    RecordOutcomesRequest,
)
from homeostat.inference.v1.truth_pb2_grpc import TruthServiceStub
from homeostat.inference.v2.open_inference_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
    ModelReadyRequest,
    ServerReadyRequest,
)
from homeostat.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub

ID_INPUT = "homeostat.id"
EVENT_TIME_INPUT = "homeostat.event_time"
CONTEXT_INPUT_PREFIX = "homeostat.context."

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered to one request."""

    # Output name to array; strings as an object array.
    outputs: Mapping[str, Array]
    # One per row, in the request's order; none where the server has not kept the rows.
    prediction_ids: Sequence[str]
    version: int
    # Everything else that the server says of the request: batch size, queue time, durability.
    parameters: Mapping[str, Any] = field(default_factory=dict)


def infer_request(
    model_name: str,
    columns: Mapping[str, Array],
    *,
    client_ids: Sequence[str] | None = None,
    event_times_us: NDArray[np.int64] | None = None,
    contexts: Mapping[str, Array] | None = None,
    version: int | None = None,
) -> ModelInferRequest:
    """A V2 request with raw contents; columns have shape (rows,) or (rows, width)."""
    request = ModelInferRequest(
        model_name=model_name, model_version=str(version) if version else ""
    )
    for name, values in columns.items():
        _add(request, name, values if values.ndim > 1 else values.reshape(-1, 1))
    if client_ids is not None:
        _add(request, ID_INPUT, np.asarray(client_ids, dtype=object))
    if event_times_us is not None:
        _add(request, EVENT_TIME_INPUT, np.asarray(event_times_us, dtype=np.int64))
    for name, values in (contexts or {}).items():
        _add(request, f"{CONTEXT_INPUT_PREFIX}{name}", values)
    return request


def _add(request: ModelInferRequest, name: str, values: Array) -> None:
    datatype = datatype_of(values)
    request.inputs.add(name=name, datatype=datatype, shape=values.shape)
    request.raw_input_contents.append(
        _raw_strings(values)
        if datatype == "BYTES"
        else np.ascontiguousarray(values, dtype=DTYPES[datatype]).tobytes()
    )


def _raw_strings(values: Array) -> bytes:
    parts: list[bytes] = []
    for value in values.reshape(-1):
        data = "" if value is None else str(value)
        encoded = data.encode()
        parts.append(len(encoded).to_bytes(4, "little"))
        parts.append(encoded)
    return b"".join(parts)


def read_answer(response: ModelInferResponse) -> Answer:
    """Outputs as arrays, and the parameters; ValueError where the response is not raw."""
    outputs: dict[str, Array] = {}
    if len(response.raw_output_contents) != len(response.outputs):
        raise ValueError("the response has typed contents; this client asks for raw ones")
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        values = (
            _read_strings(raw)
            if tensor.datatype == "BYTES"
            else np.frombuffer(raw, dtype=DTYPES[tensor.datatype])
        )
        outputs[tensor.name] = values.reshape(tuple(tensor.shape))
    parameters = {name: _value(each) for name, each in response.parameters.items()}
    return Answer(
        outputs,
        _row_ids(str(parameters.get("prediction_id", "")), response),
        int(response.model_version or 0),
        parameters,
    )


def _read_strings(raw: bytes) -> Array:
    found: list[str] = []
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        found.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    values = np.empty(len(found), dtype=object)
    values[:] = found
    return values


def _value(parameter: InferParameter) -> Any:
    return getattr(parameter, parameter.WhichOneof("parameter_choice") or "string_param")


def _row_ids(first: str, response: ModelInferResponse) -> list[str]:
    if not first:
        return []
    rows = response.parameters["homeostat_row_count"].int64_param
    block_id, row = parse_prediction_id(first)
    return [prediction_id(block_id, row + index) for index in range(rows)]


class Client:
    """Predictions and truth over one connection. Use as an async context manager."""

    def __init__(
        self,
        address: str,
        *,
        timeout_seconds: float = 30.0,
        security: ChannelSecurity | None = None,
    ) -> None:
        """``address``: "host:port" of the inference service. ``security``: token and TLS; without
        it, what the environment says (HOMEOSTAT_TOKEN, HOMEOSTAT_TLS_CA_FILE, ...)."""
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._security = security

    async def __aenter__(self) -> "Client":
        self._channel = open_channel(self._address, self._security)
        self._inference = GRPCInferenceServiceStub(self._channel)
        self._truth = TruthServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close()

    async def is_ready(self) -> bool:
        """Whether the server takes requests; False too if it can't be reached."""
        try:
            answer = await self._inference.ServerReady(ServerReadyRequest(), timeout=2.0)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def is_model_ready(self, model_name: str) -> bool:
        """Whether a version of the model is served; False too if the server can't be reached."""
        try:
            answer = await self._inference.ModelReady(
                ModelReadyRequest(name=model_name), timeout=2.0
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def infer(self, request: ModelInferRequest) -> Answer:
        """One request, made by `infer_request`; grpc.aio.AioRpcError where the server refuses."""
        response = await self._inference.ModelInfer(request, timeout=self._timeout_seconds)
        return read_answer(response)

    async def record_outcomes(
        self, model_name: str, outcomes: Sequence[Outcome], *, source: str = ""
    ) -> int:
        """How many truths were taken in; that they match a prediction is not yet known."""
        answer = await self._truth.RecordOutcomes(
            RecordOutcomesRequest(model_name=model_name, outcomes=outcomes, source=source),
            timeout=self._timeout_seconds,
        )
        return int(answer.recorded_count)

    async def advance_watermark(self, watermark_us: int) -> None:
        """Promises that nothing earlier follows (servers with explicit watermarks only)."""
        await self._truth.AdvanceWatermark(
            AdvanceWatermarkRequest(watermark_us=watermark_us), timeout=self._timeout_seconds
        )
