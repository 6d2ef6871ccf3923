"""Responses to the requests of one batch."""

from collections.abc import Sequence

from homeostat.events.v1.column_pb2 import Arm
from homeostat.ids import prediction_id
from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse
from homeostat_inference.domain.requests import CheckedRequest
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array, fill, raw_of


class Answers:
    """Writes the responses of one batch; what they share is serialized once."""

    def __init__(
        self, schema: Schema, arm: int, outputs: Sequence[Array], *, rows: int, durability: str
    ) -> None:
        self._schema = schema
        self._outputs = outputs
        shared = ModelInferResponse(model_name=schema.model_name, model_version=str(schema.version))
        parameters = shared.parameters
        parameters["homeostat_version"].int64_param = schema.version
        parameters["homeostat_arm"].string_param = Arm.Name(arm)[4:].lower()  # type: ignore[arg-type]
        parameters["homeostat_batch_rows"].int64_param = rows
        parameters["homeostat_durability"].string_param = durability
        self._shared = shared.SerializeToString()

    def write(
        self, request: CheckedRequest, first: int, *, block_id: bytes, row: int, queue_us: int
    ) -> bytes:
        """The response to a request whose rows begin at ``first`` of the batch and stand at ``row``
        of the block. Serialized messages of one type, one behind the other, are one message."""
        own = ModelInferResponse(id=request.request_id)
        own.parameters["prediction_id"].string_param = prediction_id(block_id, row)
        own.parameters["homeostat_row_count"].int64_param = request.rows
        own.parameters["homeostat_queue_us"].int64_param = queue_us
        for index in request.outputs:
            tensor = self._schema.outputs[index]
            values = self._outputs[index][first : first + request.rows]
            written = own.outputs.add(
                name=tensor.name, datatype=tensor.datatype, shape=values.shape
            )
            if request.is_raw or tensor.datatype == "FP16":
                own.raw_output_contents.append(raw_of(values))
            else:
                fill(written.contents, tensor.datatype, values)
        return self._shared + own.SerializeToString()
