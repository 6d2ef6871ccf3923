"""Responses to the requests of one batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from homeostat.events.v1.column_pb2 import Arm
from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse
from homeostat_inference.domain.parts import Item, Part, varint
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array, fill, raw_of

# Field 6, length-delimited.
_RAW_OUTPUT_TAG = b"\x32"
_ROW_SUFFIXES = tuple(b"%d" % row for row in range(1024))


@dataclass(frozen=True, slots=True)
class Told:
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
        count, each = len(part.items), part.each
        form = self._form(part)
        raws = self._raws(part, first)
        ids = part.id_fields or [b""] * count
        is_logged = self._told.is_logged
        heads: tuple[bytes, ...] = ()
        queue_us = -1
        answers = []
        for index in range(count):
            if queues_us[index] != queue_us:
                queue_us = queues_us[index]
                heads = _heads(form + _queue(queue_us), block_id, is_logged)
            if is_logged:
                suffix = _ROW_SUFFIXES[row] if row < len(_ROW_SUFFIXES) else b"%d" % row
                answers.append(b"".join((heads[len(suffix)], suffix, ids[index], raws[index])))
            else:
                answers.append(b"".join((heads[0], ids[index], raws[index])))
            row += each
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
        indexes = part.outputs
        all_raw = all(self._is_raw(part, each) for each in indexes)
        if all_raw and all(self._outputs[each].dtype != object for each in indexes):
            return _raw_numbers(part, [self._outputs[each] for each in indexes], first)
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
    pieces: list[Array] = []
    for values in outputs:
        own = np.ascontiguousarray(values[rows]).reshape(count, -1).view(np.uint8)
        head = np.frombuffer(_RAW_OUTPUT_TAG + varint(own.shape[1]), np.uint8)
        pieces += [np.broadcast_to(head, (count, len(head))), own]
    buffer = np.concatenate(pieces, axis=1)
    size = buffer.shape[1]
    whole = buffer.tobytes()
    return [whole[at : at + size] for at in range(0, size * count, size)] if size else [b""] * count


def _queue(queue_us: int) -> bytes:
    own = ModelInferResponse()
    own.parameters["homeostat_queue_us"].int64_param = queue_us
    return own.SerializeToString()


def _before_the_text(digits: int) -> bytes:
    own = ModelInferResponse()
    text = "0" * 32 + "-" + "0" * digits
    own.parameters["prediction_id"].string_param = text
    return own.SerializeToString()[: -len(text)]


# A prediction id's text is the last thing in its field, but its length stands in front of it.
_BEFORE_THE_TEXT = tuple(_before_the_text(digits) for digits in range(1, 11))


def _heads(before: bytes, block_id: bytes, is_logged: bool) -> tuple[bytes, ...]:
    """What stands before the digits of a row, by their number."""
    if not is_logged:
        return (before,)
    text = block_id.hex().encode() + b"-"
    return (before, *[before + each + text for each in _BEFORE_THE_TEXT])
