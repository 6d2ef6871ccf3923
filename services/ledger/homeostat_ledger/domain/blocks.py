"""Blocks of predictions and of truth, checked and as columns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import Column

Floats = NDArray[np.float64]
Micros = NDArray[np.int64]
# Shape (rows, 2): the halves of a 16-byte key, read little-endian; both 0 where there is none.
Keys = NDArray[np.uint64]

ARM_SHADOW = 2
ARM_HISTORY = 4


@dataclass(frozen=True, slots=True)
class Block:
    """Predictions of one model, version and arm, as they came. Rows of all columns agree."""

    block_id: bytes
    model_name: str
    version: int
    arm: int
    task: int
    row_count: int
    event_times_us: Micros
    scores: Floats
    decisions: Floats
    latencies_seconds: NDArray[np.float32] | None
    client_keys: Keys | None
    inputs: Sequence[Column]
    outputs: Sequence[Column]
    contexts: Sequence[Column]
    # Only rows of history carry their truth with them.
    truths: Floats | None = None
    known_at_us: Micros | None = None
    # Shadow rows: the block that was answered on the same inputs, row by row; else empty.
    origin_block_id: bytes = b""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """What joining needs of an archived block."""

    number: int
    block_id: bytes
    version: int
    arm: int
    task: int
    part_id: int
    part_row: int
    event_times_us: Micros
    scores: Floats
    decisions: Floats
    client_keys: Keys | None
    contexts: Sequence[Column]
    # Known of new blocks only; nobody asks it of an old one.
    origin_block_id: bytes = b""

    @property
    def row_count(self) -> int:
        return len(self.event_times_us)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block's rows lie: a part of the archive and the first row in it. Parts never change,
    whatever file they are merged into."""

    part_id: int
    first_row: int


# One truth as somebody told it. Of two of a prediction the greater (known_at_us, event) holds.
OUTCOME = np.dtype(
    [
        ("high", "u8"),  # halves of the client key (little-endian), or of the block id
        ("low", "u8"),
        ("row", "i8"),  # the prediction's row, or BY_CLIENT
        ("truth", "f8"),
        ("known_at_us", "i8"),
        ("event_high", "u8"),  # halves of the outcome block's id, big-endian so that they order
        ("event_low", "u8"),
        ("event_row", "u4"),
        ("source_id", "i4"),
    ]
)
BY_CLIENT = -1
Outcomes = NDArray[np.void]


@dataclass(frozen=True, slots=True)
class OutcomeBatch:
    """Truths of one outcome block."""

    block_id: bytes
    model_name: str
    source: str
    rows: Outcomes
    # Rows that could not be taken; they are in the dead letters.
    refused_rows: int = 0


def key_halves(packed: bytes) -> Keys:
    """16-byte ids as (rows, 2) little-endian words."""
    return np.frombuffer(packed, dtype="<u8").reshape(-1, 2).astype(np.uint64, copy=False)


def packed_keys(keys: Keys) -> bytes:
    """The way back."""
    return np.ascontiguousarray(keys, dtype="<u8").tobytes()
