"""Rows of the database as what the domain knows."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_ledger.domain.blocks import Block, StoredBlock, key_halves, packed_keys
from homeostat_ledger.domain.truths import TRUTH, Truths
from homeostat_ledger.store.copying import unsigned

_WORDS = ("event_high", "event_low")


def stored_block(row: Any) -> StoredBlock:
    """From a row of prediction_block."""
    keys = row["client_keys"]
    return StoredBlock(
        number=row["block_number"],
        block_id=row["block_id"],
        version=row["version"],
        arm=row["arm"],
        task=row["task"],
        part_id=row["part_id"],
        part_row=row["part_row"],
        event_times_us=np.frombuffer(row["event_times"], dtype="<i8"),
        scores=np.frombuffer(row["scores"], dtype="<f8"),
        decisions=np.frombuffer(row["decisions"], dtype="<f8"),
        client_keys=None if keys is None else key_halves(keys),
        contexts=tuple(PredictionBlock.FromString(row["contexts"]).contexts),
    )


def numbered(block: Block, number: int, part_id: int, part_row: int) -> StoredBlock:
    """What will be stored of a block."""
    return StoredBlock(
        number=number,
        block_id=block.block_id,
        version=block.version,
        arm=block.arm,
        task=block.task,
        part_id=part_id,
        part_row=part_row,
        event_times_us=block.event_times_us,
        scores=block.scores,
        decisions=block.decisions,
        client_keys=block.client_keys,
        contexts=block.contexts,
        origin_block_id=block.origin_block_id,
    )


def block_record(model_id: int, block: StoredBlock) -> tuple[Any, ...]:
    """In the order of the query add_blocks."""
    keys = block.client_keys
    return (
        block.number,
        block.block_id,
        model_id,
        block.version,
        block.arm,
        block.task,
        block.row_count,
        int(block.event_times_us.min()),
        int(block.event_times_us.max()),
        block.part_id,
        block.part_row,
        block.event_times_us.tobytes(),
        block.scores.tobytes(),
        block.decisions.tobytes(),
        None if keys is None else packed_keys(keys),
        PredictionBlock(contexts=block.contexts).SerializeToString(),
        block.origin_block_id or None,
    )


def truths(rows: Sequence[Any]) -> Truths:
    """From rows with some of the truth table's columns; others are 0."""
    found = np.zeros(len(rows), dtype=TRUTH)
    if rows:
        names = set(rows[0].keys())
        for name in TRUTH.names or ():
            column = {"block": "block_number", "row": "row_index"}.get(name, name)
            if column in names:
                values = [row[column] for row in rows]
                found[name] = unsigned(values) if name in _WORDS else values
    return found
