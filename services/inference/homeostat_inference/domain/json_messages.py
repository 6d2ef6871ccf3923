"""Messages as the JSON that the protocol and Triton write: every field, numbers as numbers.

protobuf's own JSON would write 64-bit numbers as strings.
"""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from homeostat.inference.v2.open_inference_pb2 import InferParameter
from homeostat_inference.domain.json_tensors import plain


def as_json(message: Message) -> dict[str, Any]:
    """All fields by their names in the contract; messages that are absent are left out."""
    found: dict[str, Any] = {}
    for each in message.DESCRIPTOR.fields:
        value = getattr(message, each.name)
        if each.is_repeated:
            found[each.name] = _many(each, value)
        elif each.type != FieldDescriptor.TYPE_MESSAGE or message.HasField(each.name):
            found[each.name] = _one(each, value)
    return found


def _many(each: Any, value: Any) -> Any:
    if each.message_type is not None and each.message_type.GetOptions().map_entry:
        inner = each.message_type.fields_by_name["value"]
        return {key: _one(inner, value[key]) for key in value}
    return [_one(each, one) for one in value]


def _one(each: Any, value: Any) -> Any:
    if isinstance(value, InferParameter):
        return plain(value)
    if each.type == FieldDescriptor.TYPE_MESSAGE:
        return as_json(value)
    if each.type == FieldDescriptor.TYPE_ENUM and each.enum_type is not None:
        return each.enum_type.values_by_number[value].name
    return value
