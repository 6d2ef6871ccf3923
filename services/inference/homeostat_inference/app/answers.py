"""Responses to the requests of one batch."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from homeostat.events.v1.column_pb2 import Arm
from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse
from homeostat_inference.domain.parts import Item, Part, varint
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array, fill, raw_of

# Field 6, length-delimited.
_RAW_OUTPUT_TAG = b"\x32"
_ROW_SUFFIXES = tuple(b"%d" % row for row in range(1024))


class Told(NamedTuple):
    """What all answers of a batch say."""

    arm: int
    # Rows of the run.
    rows: int
    durability: str
    # Why a request ran alone; empty where several ran.
    why: str = ""
    # Whether the rows are in the journal; if not, there is no prediction id.
    is_logged: bool = True


# What answers of one version share, by what they depend on; a bounded number.
Forms = dict[tuple[object, ...], bytes]
_FORMS = 1024


class Answers:
    """Writes the responses of one batch; what many share is serialized once.

    Serialized messages of one type, one behind the other, are one message: so a response is put
    together from pieces.
    """

    def __init__(
        self, schema: Schema, told: Told, outputs: Sequence[Array], forms: Forms | None = None
    ) -> None:
        """``forms``: kept for the next batch of this version."""
        self._schema = schema
        self._outputs = outputs
        self._told = told
        self._forms: Forms = {} if forms is None else forms
        self._widths = tuple([each.shape[1:] for each in outputs])

    def _shared(self) -> ModelInferResponse:
        schema, told = self._schema, self._told
        shared = ModelInferResponse(model_name=schema.model_name, model_version=str(schema.version))
        parameters = shared.parameters
        parameters["homeostat_version"].int64_param = schema.version
        parameters["homeostat_arm"].string_param = Arm.Name(told.arm)[4:].lower()  # type: ignore[arg-type]
        parameters["homeostat_batch_rows"].int64_param = told.rows
        parameters["homeostat_durability"].string_param = told.durability
        if told.why:
            parameters["homeostat_batch_why"].string_param = told.why
        if not told.is_logged:
            parameters["homeostat_logged"].bool_param = False
        return shared

    def write(
        self,
        part: Part[Item],
        first: int,
        *,
        block_id: bytes,
        row: int,
        queues_us: Sequence[int],
    ) -> list[bytes]:
        """The responses to a part's requests, whose rows begin at ``first`` of the batch and stand
        at ``row`` of the block. ``queues_us``: how long each has waited."""
        form = self._form(part)
        raws = self._raws(part, first)
        ids = part.id_fields or [b""] * len(raws)
        if not self._told.is_logged:
            return [
                b"".join((form, _queue(queue_us), own_id, raw))
                for queue_us, own_id, raw in zip(queues_us, ids, raws, strict=True)
            ]
        # What stands before the row of a prediction id changes with the number of its digits.
        head, digits, queue_us = b"", 0, -1
        answers = []
        for queued_us, own_id, raw in zip(queues_us, ids, raws, strict=True):
            suffix = _ROW_SUFFIXES[row] if row < len(_ROW_SUFFIXES) else b"%d" % row
            if len(suffix) != digits or queued_us != queue_us:
                digits, queue_us = len(suffix), queued_us
                head = b"".join((form, _queue(queue_us), _before_the_row(block_id, digits)))
            answers.append(b"".join((head, suffix, own_id, raw)))
            row += part.each
        return answers

    def _form(self, part: Part[Item]) -> bytes:
        key = self._told, part.each, part.outputs, part.is_raw, self._widths
        known = self._forms.get(key)
        if known is None:
            if len(self._forms) >= _FORMS:
                self._forms.clear()
            known = self._forms[key] = self._formed(part)
        return known

    def _formed(self, part: Part[Item]) -> bytes:
        own = self._shared()
        own.parameters["homeostat_row_count"].int64_param = part.each
        for index in part.outputs:
            tensor = self._schema.outputs[index]
            if self._is_raw(part, index):
                shape = (part.each, *self._outputs[index].shape[1:])
                own.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=shape)
        return own.SerializeToString()

    def _is_raw(self, part: Part[Item], index: int) -> bool:
        return part.is_raw or self._schema.outputs[index].datatype == "FP16"

    def _raws(self, part: Part[Item], first: int) -> list[bytes]:
        """Each request's own outputs, as fields of the message."""
        outputs = [self._outputs[each] for each in part.outputs]
        if part.is_raw and not any(each.dtype.hasobject for each in outputs):
            return _raw_numbers(part, outputs, first)
        return [self._written(part, first + at * part.each) for at in range(len(part.items))]

    def _written(self, part: Part[Item], first: int) -> bytes:
        own = ModelInferResponse()
        for index in part.outputs:
            tensor = self._schema.outputs[index]
            values = self._outputs[index][first : first + part.each]
            if self._is_raw(part, index):
                own.raw_output_contents.append(raw_of(values))
            else:
                written = own.outputs.add(
                    name=tensor.name, datatype=tensor.datatype, shape=values.shape
                )
                fill(written.contents, tensor.datatype, values)
        return own.SerializeToString()


def _raw_numbers(part: Part[Item], outputs: Sequence[Array], first: int) -> list[bytes]:
    """Raw contents of numbers, with tag and length in front: all requests' in one buffer."""
    count = len(part.items)
    rows = slice(first, first + part.rows)
    if count == 1:
        contents = [values[rows].tobytes() for values in outputs]
        return [b"".join([piece for each in contents for piece in (_raw_tag(len(each)), each)])]
    own = [
        np.ascontiguousarray(values[rows]).reshape(count, -1).view(np.uint8) for values in outputs
    ]
    sizes = [each.shape[1] for each in own]
    heads = [_raw_head(size) for size in sizes]
    size = sum(sizes) + sum(map(len, heads))
    buffer = np.empty((count, size), np.uint8)
    at = 0
    for head, values in zip(heads, own, strict=True):
        buffer[:, at : at + len(head)] = head
        at += len(head) + values.shape[1]
        buffer[:, at - values.shape[1] : at] = values
    whole = buffer.tobytes()
    return [whole[at : at + size] for at in range(0, size * count, size)] if size else [b""] * count


@lru_cache(maxsize=256)
def _raw_tag(size: int) -> bytes:
    return _RAW_OUTPUT_TAG + varint(size)


@lru_cache(maxsize=256)
def _raw_head(size: int) -> Array:
    return np.frombuffer(_raw_tag(size), np.uint8)


def _parameter(name: str, **value: int | str) -> bytes:
    own = ModelInferResponse()
    for field, content in value.items():
        setattr(own.parameters[name], field, content)
    return own.SerializeToString()


@lru_cache(maxsize=4096)
def _queue(queue_us: int) -> bytes:
    return _parameter("homeostat_queue_us", int64_param=queue_us)


@lru_cache(maxsize=16)
def _before_the_text(digits: int) -> bytes:
    """A prediction id's text is the last thing in its field, but its length stands in front."""
    text = "0" * 32 + "-" + "0" * digits
    return _parameter("prediction_id", string_param=text)[: -len(text)]


def _before_the_row(block_id: bytes, digits: int) -> bytes:
    return _before_the_text(digits) + block_id.hex().encode() + b"-"
