"""Whose request it is: the client's own id, read before the request is checked."""

from collections.abc import Sequence

from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat_inference.domain.requests import ID_INPUT
from homeostat_inference.domain.schema import Schema

_LENGTH_BYTES = 4


def first_client_id(request: ModelInferRequest, schema: Schema) -> bytes | None:
    """The id of the request's first row, as the client sent it; None if it sent none.

    A request goes to one side of a split as a whole, by its first row. What can't be read counts
    as none: checking refuses the request later, whichever side it is on.
    """
    for at, tensor in enumerate(request.inputs):
        if tensor.name == ID_INPUT:
            if request.raw_input_contents:
                return _first_raw(request.raw_input_contents, at)
            return next(iter(tensor.contents.bytes_contents), None) or None
    if request.id and schema.signature.request_id_is_client_id:
        return request.id.encode()
    return None


def _first_raw(contents: Sequence[bytes], at: int) -> bytes | None:
    raw: bytes = contents[at] if at < len(contents) else b""
    length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
    return raw[_LENGTH_BYTES : _LENGTH_BYTES + length] or None
