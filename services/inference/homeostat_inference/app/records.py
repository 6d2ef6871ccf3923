"""The payloads of journal records."""

import struct
from dataclasses import dataclass

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock

_ROWS = struct.Struct("<16sIIB")
_SEAL = struct.Struct("<16sq")
_MARK = struct.Struct("<q")


@dataclass(frozen=True, slots=True)
class RowsRecord:
    """Rows ``first_row`` and following of a block, as a block of their own."""

    block_id: bytes
    first_row: int
    row_count: int
    traceparent: str
    message: bytes

    def slice(self) -> PredictionBlock:
        """The rows; google.protobuf.message.DecodeError if they are damaged."""
        return PredictionBlock.FromString(self.message)


def pack_rows(record: RowsRecord) -> bytes:
    """A ROWS payload."""
    trace = record.traceparent.encode()
    head = _ROWS.pack(record.block_id, record.first_row, record.row_count, len(trace))
    return head + trace + record.message


def unpack_rows(payload: bytes) -> RowsRecord:
    """What `pack_rows` packed."""
    block_id, first_row, row_count, trace_bytes = _ROWS.unpack_from(payload)
    at = _ROWS.size + trace_bytes
    trace = payload[_ROWS.size : at].decode()
    return RowsRecord(block_id, first_row, row_count, trace, payload[at:])


def pack_seal(block_id: bytes, sealed_at_us: int) -> bytes:
    """A SEAL payload."""
    return _SEAL.pack(block_id, sealed_at_us)


def unpack_seal(payload: bytes) -> tuple[bytes, int]:
    """Block id and time."""
    block_id, sealed_at_us = _SEAL.unpack(payload)
    return block_id, sealed_at_us


def pack_mark(mark_us: int) -> bytes:
    """The payload of either kind of mark."""
    return _MARK.pack(mark_us)


def unpack_mark(payload: bytes) -> int:
    """The mark, in microseconds."""
    mark_us: int = _MARK.unpack(payload)[0]
    return mark_us
