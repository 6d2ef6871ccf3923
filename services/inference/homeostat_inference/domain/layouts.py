"""Learned layouts: where values stand in the bytes of requests that one client sends.

A client writes its requests by one program: they are equal byte for byte, except for the values. So
of a request that was parsed and checked the long way is remembered which bytes are values (raw
contents of numbers, the text of ids) and which are everything else: names, datatypes, shapes,
parameters, and above all the tags and lengths that hold a message together. A later request of the
same length whose other bytes are the same has the same structure, whatever its values are, and
needs neither parser nor check; of many such requests a column is cut at once.

What can't be told by position is left to the long way: text beyond ASCII (it might be no UTF-8),
BOOL (only 0 and 1 are values) and typed contents.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from homeostat.columns import DTYPES
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat_inference.domain.parts import Item, Part
from homeostat_inference.domain.requests import (
    CONTEXT_PREFIX,
    EVENT_TIME_INPUT,
    ID_INPUT,
    CheckedRequest,
    ContextSchema,
)
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array
from homeostat_inference.domain.times import TimeBounds

# Longer requests are worth their parsing, and are not copied side by side.
MAX_BYTES = 1 << 17
# Of one length: a client whose constants vary must not make others wait for comparisons.
_PER_LENGTH = 6
_LENGTHS_MET = 1024
_ID, _INPUTS, _RAWS = 3, 5, 7
_KNOWN = {_ID, _INPUTS, _RAWS}
_LENGTH_DELIMITED = 2
_LENGTH_BYTES = 4
_VARINT_BITS = 64
_FIXED_BYTES = {1: 8, 5: 4}
# Bits of a byte that have to be the same.
_EXACT, _ASCII, _ANY = 0xFF, 0x80, 0x00
_GAP_BYTES = 64


@dataclass(frozen=True, slots=True)
class Span:
    """Some bytes of a request."""

    first: int
    after: int


@dataclass(frozen=True, slots=True)
class _Field:
    number: int
    wire: int
    start: int
    content: Span


class _Unreadable(Exception):
    """Not a message that we walk through."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < _VARINT_BITS:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise _Unreadable


def _walk(data: bytes) -> Iterator[_Field]:
    """The fields of a serialized message, in order; _Unreadable for groups and garbage."""
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            first = at
            _, at = _varint(data, at)
        elif wire == _LENGTH_DELIMITED:
            length, first = _varint(data, at)
            at = first + length
        elif wire in _FIXED_BYTES:
            first, at = at, at + _FIXED_BYTES[wire]
        else:
            raise _Unreadable
        if at > len(data):
            raise _Unreadable
        yield _Field(tag >> 3, wire, start, Span(first, at))


@dataclass(frozen=True, slots=True)
class _Value:
    """Where a tensor's values stand: numbers, or the text of a single string."""

    span: Span
    datatype: str

    def column(self, stack: Array, payloads: Sequence[bytes]) -> Array:
        """The values of all payloads, flat."""
        if self.datatype == "BYTES":
            texts = np.empty(len(payloads), dtype=object)
            texts[:] = [each.decode("ascii") for each in self.texts(payloads)]
            return texts
        cut = np.ascontiguousarray(stack[:, self.span.first : self.span.after])
        return cut.reshape(-1).view(DTYPES[self.datatype])

    def texts(self, payloads: Sequence[bytes]) -> list[bytes]:
        """The bytes of all payloads' strings."""
        first, after = self.span.first, self.span.after
        return [each[first:after] for each in payloads]


@dataclass(slots=True)
class _Places:
    """Where the values of one request stand."""

    # One per input of the signature.
    columns: list[_Value]
    contexts: list[_Value] = field(default_factory=list)
    event_times: _Value | None = None
    client_ids: _Value | None = None
    # The request's id: its whole field, and its text.
    id_field: Span | None = None
    id_text: _Value | None = None

    def loose(self) -> Iterator[_Value]:
        """Everything that may differ from request to request."""
        yield from self.columns
        yield from self.contexts
        for each in (self.event_times, self.client_ids, self.id_text):
            if each is not None:
                yield each


class Layout:
    """The bytes of some client's requests to one model."""

    def __init__(
        self,
        payload: bytes,
        message: ModelInferRequest,
        request: CheckedRequest,
        schema: Schema,
        places: _Places,
    ) -> None:
        self.model_name = message.model_name
        self.model_version = message.model_version
        self.length = len(payload)
        self.rows = request.rows
        self._fitting: list[Schema] = [schema]
        self._places = places
        self._is_raw = request.is_raw
        self._outputs = request.outputs
        self._context_schema: ContextSchema = request.context_schema
        self._compared = _compared(payload, places)

    def fits(self, schema: Schema) -> bool:
        """Whether a request that fitted the schema it was learned with fits this one."""
        if any(each is schema for each in self._fitting):
            return True
        known = self._fitting[0]
        if (
            schema.inputs != known.inputs
            or schema.outputs != known.outputs
            or schema.signature.request_id_is_client_id != known.signature.request_id_is_client_id
        ):
            return False
        self._fitting = [schema, *self._fitting[:3]]
        return True

    def stack(self, payloads: Sequence[bytes]) -> Array:
        """Payloads of its length, one per row."""
        whole = payloads[0] if len(payloads) == 1 else b"".join(payloads)
        return np.frombuffer(whole, np.uint8).reshape(len(payloads), self.length)

    def matches(self, stack: Array) -> Array | None:
        """Which payloads have this layout; None if all do."""
        good: Array | None = None
        for cut, mask, expected in self._compared:
            same = (stack[:, cut] if mask is None else stack[:, cut] & mask) == expected
            if not same.all():
                fine = same.all(axis=1)
                good = fine if good is None else good & fine
        return good

    def in_time(self, stack: Array, times: TimeBounds) -> Array | None:
        """Which payloads' event times are within the bounds; None if all are."""
        place = self._places.event_times
        if place is None:
            return None
        values = place.column(stack, ())
        if times.earliest_us <= values.min() and values.max() <= times.latest_us:
            return None
        rows = values.reshape(len(stack), -1)
        is_late: Array = rows.min(axis=1) < times.earliest_us
        is_early: Array = rows.max(axis=1) > times.latest_us
        return np.asarray(~(is_late | is_early))

    def clients(self, payloads: Sequence[bytes]) -> list[bytes] | None:
        """Of each request, the client's own id; None if there are none."""
        place = self._places.client_ids
        return None if place is None else place.texts(payloads)

    def part(
        self, items: Sequence[Item], stack: Array, payloads: Sequence[bytes], schema: Schema
    ) -> Part[Item]:
        """The requests' values; every payload has to match and to be in time."""
        places = self._places
        id_field = places.id_field
        times = places.event_times
        return Part(
            items,
            self.rows,
            self.length,
            [
                place.column(stack, payloads).reshape(tensor.shape)
                for place, tensor in zip(places.columns, schema.inputs, strict=True)
            ],
            self._is_raw,
            self._outputs,
            None
            if id_field is None
            else [each[id_field.first : id_field.after] for each in payloads],
            self.clients(payloads),
            None if times is None else times.column(stack, payloads),
            self._context_schema,
            [place.column(stack, payloads) for place in places.contexts],
        )


_Compared = list[tuple[slice, Array | None, Array]]


def _compared(payload: bytes, places: _Places) -> _Compared:
    """Stretches that are compared, with the bits of them that count (None for all) and what those
    have to be. Short gaps of values between them cost less than another stretch."""
    mask = np.full(len(payload), _EXACT, np.uint8)
    for each in places.loose():
        mask[each.span.first : each.span.after] = _ASCII if each.datatype == "BYTES" else _ANY
    expected = np.frombuffer(payload, np.uint8) & mask
    wanted = np.flatnonzero(mask)
    breaks = np.flatnonzero(np.diff(wanted) > _GAP_BYTES)
    firsts = wanted[np.concatenate([[0], breaks + 1])]
    lasts = wanted[np.concatenate([breaks, [-1]])]
    found: _Compared = []
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        cut = slice(first, last + 1)
        is_whole = bool((mask[cut] == _EXACT).all())
        found.append((cut, None if is_whole else mask[cut], expected[cut]))
    return found


def learn(
    payload: bytes, message: ModelInferRequest, request: CheckedRequest, schema: Schema
) -> Layout | None:
    """The layout of a request that was parsed and checked; None if it has none that is of use."""
    if not request.is_raw or len(payload) > MAX_BYTES:
        return None
    try:
        fields = list(_walk(payload))
        places = _places(payload, fields, message, request, schema)
    except _Unreadable:
        return None
    return Layout(payload, message, request, schema, places)


def _places(
    payload: bytes,
    fields: Sequence[_Field],
    message: ModelInferRequest,
    request: CheckedRequest,
    schema: Schema,
) -> _Places:
    raws = [each.content for each in fields if each.number == _RAWS]
    ids = [each for each in fields if each.number == _ID]
    inputs = [each for each in fields if each.number == _INPUTS]
    is_plain = all(each.wire == _LENGTH_DELIMITED for each in fields if each.number in _KNOWN)
    if not is_plain or not len(raws) == len(message.inputs) == len(inputs) or len(ids) > 1:
        raise _Unreadable
    spans: dict[str, _Value] = {}
    for tensor, span, raw in zip(message.inputs, raws, message.raw_input_contents, strict=True):
        if payload[span.first : span.after] != raw:
            raise _Unreadable
        spans[tensor.name] = _value(payload, span, tensor.datatype, request.rows)
    places = _Places(
        columns=[spans[each.name] for each in schema.inputs],
        contexts=[spans[CONTEXT_PREFIX + name] for name, _ in request.context_schema],
        event_times=spans.get(EVENT_TIME_INPUT),
        client_ids=spans.get(ID_INPUT),
    )
    if ids and message.id:
        places.id_text = _ascii(payload, ids[0].content)
        if payload[ids[0].content.first : ids[0].content.after] != message.id.encode():
            raise _Unreadable
        places.id_field = Span(ids[0].start, ids[0].content.after)
        if request.client_ids is not None and places.client_ids is None:
            places.client_ids = places.id_text
    return places


def _value(payload: bytes, span: Span, datatype: str, rows: int) -> _Value:
    if datatype in DTYPES and datatype != "BOOL":
        return _Value(span, datatype)
    size = int.from_bytes(payload[span.first : span.first + _LENGTH_BYTES], "little")
    if datatype != "BYTES" or rows != 1 or size != span.after - span.first - _LENGTH_BYTES:
        raise _Unreadable
    return _ascii(payload, Span(span.first + _LENGTH_BYTES, span.after))


def _ascii(payload: bytes, span: Span) -> _Value:
    if not payload[span.first : span.after].isascii():
        raise _Unreadable
    return _Value(span, "BYTES")


class Layouts:
    """The layouts learned so far, a bounded number. For one thread."""

    def __init__(self, limit: int = 256) -> None:
        self._limit = limit
        self._by_length: dict[int, list[Layout]] = {}
        self._count = 0
        # Lengths met once the long way: a client that sends on will meet one of them again.
        self._met: dict[int, None] = {}

    def of(self, length: int) -> Sequence[Layout]:
        """Layouts of that length."""
        return self._by_length.get(length, ())

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def is_worth_learning(self, length: int) -> bool:
        """Whether a request of that length came the long way before."""
        if length in self._met:
            return True
        self._met[length] = None
        if len(self._met) > _LENGTHS_MET:
            del self._met[next(iter(self._met))]
        return False

    def add(self, layout: Layout) -> None:
        """Keeps it; where there are too many, those that were added first have to go."""
        same = self._by_length.pop(layout.length, [])
        same.append(layout)
        # Last in the dictionary: the lengths in front were added to longest ago.
        self._by_length[layout.length] = same
        self._count += 1
        if len(same) > _PER_LENGTH:
            same.pop(0)
            self._count -= 1
        if self._count > self._limit:
            self._count -= len(self._by_length.pop(next(iter(self._by_length))))

    def forget(self, layout: Layout) -> None:
        """It leads nowhere any longer."""
        same = self._by_length.get(layout.length, [])
        if layout in same:
            same.remove(layout)
            self._count -= 1
