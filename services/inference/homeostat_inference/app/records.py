"""The payloads of journal records."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from homeostat.ids import CLIENT_KEY_BYTES
from homeostat_inference.domain.tensors import Array

# Block, first row, rows, whether the rows have client keys, lengths of traceparent and outline.
_ROWS = struct.Struct("<16sII?BI")
_SEAL = struct.Struct("<16sq")
_MARK = struct.Struct("<q")
_TEXT_BYTES = np.dtype("<u4")


class RowsRecord(NamedTuple):
    """Rows ``first_row`` and following of a block, as bare columns."""

    block_id: bytes
    first_row: int
    row_count: int
    traceparent: str
    has_client_keys: bool
    # What the block's columns are, with its first rows only: a serialized `blocks.Outline`.
    outline: bytes
    payload: bytes
    # There, in the payload: client keys, event times, scores, decisions, latencies, then the
    # columns, one behind another.
    content_at: int


def pack_rows(
    *,
    block_id: bytes,
    first_row: int,
    row_count: int,
    traceparent: str,
    outline: bytes,
    client_keys: bytes,
    columns: Sequence[bytes],
) -> bytes:
    """A ROWS payload. ``columns``: event times, scores, decisions, latencies, then inputs, outputs
    and contexts, each as `column_bytes` gives it. ``outline`` is empty but for the first rows."""
    trace = traceparent.encode()
    head = _ROWS.pack(block_id, first_row, row_count, bool(client_keys), len(trace), len(outline))
    return b"".join((head, trace, outline, client_keys, *columns))


def unpack_rows(payload: bytes) -> RowsRecord:
    """What `pack_rows` packed; struct.error if it is damaged."""
    block_id, first_row, row_count, has_keys, trace_bytes, outline_bytes = _ROWS.unpack_from(
        payload
    )
    at = _ROWS.size + trace_bytes
    after = at + outline_bytes
    return RowsRecord(
        block_id,
        first_row,
        row_count,
        payload[_ROWS.size : at].decode() if trace_bytes else "",
        has_keys,
        payload[at:after],
        payload,
        after,
    )


def client_keys(record: RowsRecord) -> bytes:
    """16 bytes per row; all zero where the record has none. ValueError if it is too short."""
    size = CLIENT_KEY_BYTES * record.row_count
    if not record.has_client_keys:
        return bytes(size)
    keys = record.payload[record.content_at : record.content_at + size]
    if len(keys) < size:
        raise ValueError(f"expected {size} bytes of client keys, got {len(keys)}")
    return keys


def fixed_columns(records: Sequence[RowsRecord], row_sizes: Sequence[int]) -> list[bytes]:
    """Every column's values over all records, for columns of so many bytes per row; ValueError if a
    record is too short."""
    total = sum(row_sizes)
    places = []
    for each in records:
        rows, content_at = each.row_count, each.content_at
        if each.has_client_keys:
            content_at += CLIENT_KEY_BYTES * rows
        missing = content_at + total * rows - len(each.payload)
        if missing > 0:
            raise ValueError(f"a record of {rows} rows has {missing} bytes too few")
        places.append((each.payload, content_at, rows))
    found = []
    first = 0
    for size in row_sizes:
        after = first + size
        found.append(b"".join([p[at + first * n : at + after * n] for p, at, n in places]))
        first = after
    return found


def column_bytes(values: Array) -> bytes:
    """A column's values: numbers as they are; of strings first the length of all that follows,
    then each one's length, then their text."""
    if values.dtype != object:
        return values.tobytes()
    texts = [str(each).encode() for each in values.reshape(-1)]
    lengths = np.array([len(each) for each in texts], _TEXT_BYTES)
    joined = b"".join(texts)
    size = lengths.nbytes + len(joined)
    return b"".join((size.to_bytes(4, "little"), lengths.tobytes(), joined))


@dataclass(slots=True)
class ColumnsReader:
    """Reads a record's content from its beginning."""

    _content: memoryview
    _rows: int
    _at: int = 0

    @staticmethod
    def of(record: RowsRecord) -> "ColumnsReader":
        """At the first column behind the client keys."""
        content = memoryview(record.payload)[record.content_at :]
        keys_bytes = CLIENT_KEY_BYTES * record.row_count if record.has_client_keys else 0
        return ColumnsReader(content, record.row_count, keys_bytes)

    def numbers(self, row_bytes: int) -> memoryview:
        """A column of so many bytes per row; ValueError if the record is too short."""
        return self._taken(row_bytes * self._rows)

    def texts(self, width: int) -> list[str]:
        """A column of strings, so many per row."""
        size = int.from_bytes(self._taken(4), "little")
        content = self._taken(size)
        count = width * self._rows
        lengths = np.frombuffer(content, _TEXT_BYTES, count=count)
        ends = (np.cumsum(lengths, dtype=np.int64) + lengths.nbytes).tolist()
        firsts = [lengths.nbytes, *ends[:-1]]
        return [bytes(content[first:end]).decode() for first, end in zip(firsts, ends, strict=True)]

    def _taken(self, size: int) -> memoryview:
        first = self._at
        self._at += size
        if self._at > len(self._content):
            raise ValueError(f"expected {size} bytes at {first} of {len(self._content)}")
        return self._content[first : self._at]


def pack_seal(block_id: bytes, sealed_at_us: int) -> bytes:
    """A SEAL payload."""
    return _SEAL.pack(block_id, sealed_at_us)


def unpack_seal(payload: bytes) -> tuple[bytes, int]:
    """Block id and time."""
    block_id, sealed_at_us = _SEAL.unpack(payload)
    return block_id, sealed_at_us


def pack_mark(mark_us: int) -> bytes:
    """The payload of either kind of mark, and of a writer's begin."""
    return _MARK.pack(mark_us)


def unpack_mark(payload: bytes) -> int:
    """The mark, in microseconds."""
    mark_us: int = _MARK.unpack(payload)[0]
    return mark_us
