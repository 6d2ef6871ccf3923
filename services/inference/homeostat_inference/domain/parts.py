"""Requests of one shape, cut into columns: what is run, kept and answered together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from homeostat_inference.domain.requests import CheckedRequest, ContextSchema
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array, join

Item = TypeVar("Item")


@dataclass(slots=True)
class Part(Generic[Item]):
    """One or more requests with the same number of rows each, side by side.

    They fit the signature, except that values are not yet looked at. ``Item`` is whatever stands
    for a request to its sender.
    """

    items: Sequence[Item]
    # Rows per request, and bytes of each serialized request.
    each: int
    size_bytes: int
    # One per input of the signature, in its order and shape, the requests' rows one by one.
    columns: list[Array]
    is_raw: bool
    # Which outputs to answer with, as indexes into the signature's.
    outputs: tuple[int, ...]
    # The request's id as a serialized field of the message, empty for none; None if no one has one.
    id_fields: list[bytes] | None = None
    # One per row, in UTF-8; None if no row has one.
    client_ids: list[bytes] | None = None
    # int64 per row; None means the arrival time.
    event_times: Array | None = None
    context_schema: ContextSchema = ()
    contexts: Sequence[Array] = ()

    @property
    def rows(self) -> int:
        """Rows of all requests."""
        return self.each * len(self.items)

    def cut(self, first: int, after: int) -> "Part[Item]":
        """The requests from ``first`` up to ``after``."""
        a, b = first * self.each, after * self.each
        return Part(
            self.items[first:after],
            self.each,
            self.size_bytes,
            [each[a:b] for each in self.columns],
            self.is_raw,
            self.outputs,
            None if self.id_fields is None else self.id_fields[first:after],
            None if self.client_ids is None else self.client_ids[a:b],
            None if self.event_times is None else self.event_times[a:b],
            self.context_schema,
            [each[a:b] for each in self.contexts],
        )

    def without(self, indexes: Sequence[int]) -> "list[Part[Item]]":
        """What is left when these requests are taken out."""
        left = []
        first = 0
        for index in [*sorted(indexes), len(self.items)]:
            if first < index:
                left.append(self.cut(first, index))
            first = index + 1
        return left


def part_of(item: Item, request: CheckedRequest, schema: Schema, size_bytes: int) -> Part[Item]:
    """One request by itself."""
    columns = [
        join(tensor.datatype, [packed]).reshape(tensor.shape)
        for tensor, packed in zip(schema.inputs, request.columns, strict=True)
    ]
    times = request.event_times
    ids = request.client_ids
    return Part(
        [item],
        request.rows,
        size_bytes,
        columns,
        request.is_raw,
        request.outputs,
        [id_field(request.request_id.encode())] if request.request_id else None,
        None if ids is None else [each.encode() for each in ids],
        None if times is None else np.frombuffer(times, "<i8"),
        request.context_schema,
        [
            join(datatype, [packed])
            for (_, datatype), packed in zip(request.context_schema, request.contexts, strict=True)
        ],
    )


# Field 3, length-delimited: the id, in requests and in responses.
_ID_TAG = b"\x1a"


def id_field(content: bytes) -> bytes:
    """A request's id as it stands in a serialized request or response."""
    return _ID_TAG + varint(len(content)) + content


def varint(value: int) -> bytes:
    """A protobuf varint of a number that is not negative."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def gathered(parts: Sequence[Part[Item]]) -> list[Array]:
    """One array per input, the parts' rows one after the other."""
    if len(parts) == 1:
        return list(parts[0].columns)
    return [np.concatenate(each) for each in zip(*(part.columns for part in parts), strict=True)]
