"""Journal records that hold a whole block: what is not answered needs no slices."""

import struct
from dataclasses import dataclass

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock

# Block, when it was ended, length of the traceparent.
_BLOCK = struct.Struct("<16sqB")


@dataclass(frozen=True, slots=True)
class Whole:
    """A block as it goes on the topic."""

    block_id: bytes
    sealed_at_us: int
    traceparent: str
    message: bytes

    def block(self) -> PredictionBlock:
        """The same, read; google.protobuf.message.DecodeError if it is damaged."""
        return PredictionBlock.FromString(self.message)


def pack_whole(block: PredictionBlock, traceparent: str) -> bytes:
    """A BLOCK payload."""
    trace = traceparent.encode()
    head = _BLOCK.pack(block.block_id, block.produced_at.ToMicroseconds(), len(trace))
    return b"".join((head, trace, block.SerializeToString()))


def unpack_whole(payload: bytes) -> Whole:
    """What `pack_whole` packed; struct.error if it is damaged."""
    block_id, sealed_at_us, trace_bytes = _BLOCK.unpack_from(payload)
    at = _BLOCK.size + trace_bytes
    return Whole(block_id, sealed_at_us, payload[_BLOCK.size : at].decode(), payload[at:])
