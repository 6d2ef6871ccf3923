"""Records of the topics as the domain's blocks. Unreadable says why one is not taken."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import Arm, Task
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import BLOCK_ID_BYTES, client_keys
from homeostat.ledger.v1.ledger_pb2 import HistoryRows
from homeostat_ledger.domain.blocks import (
    ARM_HISTORY,
    ARM_SHADOW,
    BY_CLIENT,
    OUTCOME,
    Block,
    OutcomeBatch,
    Outcomes,
    key_halves,
)
from homeostat_ledger.domain.columns import check
from homeostat_ledger.domain.errors import BadRequest, Unreadable

_MAX_BLOCK_ROWS = 1_000_000
_MAX_NAME = 200
_MAX_VERSION = 2**31 - 1
_PREDICTION_ID = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4")])


@dataclass(frozen=True, slots=True)
class Bounds:
    """Times later than these are refused, microseconds UTC."""

    event_time_us: int
    known_at_us: int


@dataclass(frozen=True, slots=True)
class ReadOutcomes:
    """The readable rows of an outcome block, and how many were refused for which reason."""

    batch: OutcomeBatch
    refused: Mapping[str, int]


def read_block(message: PredictionBlock, bounds: Bounds) -> Block:
    """Unreadable if lengths don't fit or a time is too far in the future."""
    rows = _head(message.model_name, message.block_id, message.row_count)
    if message.version > _MAX_VERSION:
        raise Unreadable(f"the version is {message.version}, at most {_MAX_VERSION}")
    if message.arm not in Arm.values() or message.task not in Task.values():
        raise Unreadable("the arm or the task is none of the contract's")
    event_times = _column("event_times_us", message.event_times_us, "<i8", rows)
    if int(event_times.max()) > bounds.event_time_us:
        raise Unreadable("an event time is too far in the future")
    for columns in (message.inputs, message.outputs, message.contexts):
        check(columns, rows)
        if len({column.name for column in columns}) != len(columns):
            raise Unreadable("two columns have one name")
    keys = message.client_keys
    latencies = message.latencies_seconds
    if message.arm == ARM_HISTORY:
        raise Unreadable("history comes by ImportHistory only")
    _check_origin(message)
    return Block(
        block_id=message.block_id,
        model_name=message.model_name,
        version=message.version,
        arm=message.arm,
        task=message.task,
        row_count=rows,
        event_times_us=event_times,
        scores=_column("scores", message.scores, "<f8", rows),
        decisions=_column("decisions", message.decisions, "<f8", rows),
        latencies_seconds=_column("latencies_seconds", latencies, "<f4", rows)
        if latencies
        else None,
        client_keys=key_halves(_sized("client_keys", keys, 16 * rows)) if keys else None,
        inputs=message.inputs,
        outputs=message.outputs,
        contexts=message.contexts,
        origin_block_id=message.origin_block_id,
    )


def _check_origin(message: PredictionBlock) -> None:
    origin = message.origin_block_id
    if not origin:
        return
    if message.arm != ARM_SHADOW:
        raise Unreadable("only shadow rows repeat those of another block")
    if len(origin) != BLOCK_ID_BYTES or origin == message.block_id:
        raise Unreadable(f"the origin's block id has {len(origin)} bytes, or is the block's own")


def read_outcomes(message: OutcomeBlock, bounds: Bounds, secret: bytes) -> ReadOutcomes:
    """Unreadable if lengths don't fit; single rows are refused if they can't be true."""
    count = _head(message.model_name, message.block_id, message.row_count)
    rows = np.zeros(count, dtype=OUTCOME)
    rows["truth"] = _column("truths", message.truths, "<f8", count)
    rows["known_at_us"] = _column("known_at_us", message.known_at_us, "<i8", count)
    high, low = np.frombuffer(message.block_id, dtype=">u8")
    rows["event_high"], rows["event_low"], rows["event_row"] = high, low, np.arange(count)
    _name_subjects(rows, message, secret)
    unnamed = (rows["high"] == 0) & (rows["low"] == 0)
    reasons = {
        "a truth names neither a prediction nor a client id": unnamed,
        "a truth is not finite": ~np.isfinite(rows["truth"]),
        "a known-at time is too far in the future": rows["known_at_us"] > bounds.known_at_us,
    }
    refused = np.zeros(count, dtype=bool)
    counted: dict[str, int] = {}
    for reason, wrong in reasons.items():
        fresh = wrong & ~refused
        refused |= fresh
        if fresh.any():
            counted[reason] = int(fresh.sum())
    source = message.source.replace("\0", "")[:_MAX_NAME]
    batch = OutcomeBatch(
        message.block_id, message.model_name, source, rows[~refused], int(refused.sum())
    )
    return ReadOutcomes(batch, counted)


def _name_subjects(rows: Outcomes, message: OutcomeBlock, secret: bytes) -> None:
    count = len(rows)
    if message.prediction_ids:
        packed = _sized("prediction_ids", message.prediction_ids, 20 * count)
        ids = np.frombuffer(packed, dtype=_PREDICTION_ID)
        for name in ("high", "low", "row"):
            rows[name] = ids[name]
    keys = message.client_keys
    if message.client_ids:
        if keys or len(message.client_ids) != count:
            raise Unreadable("client_ids do not fit the rows, or come beside client_keys")
        keys = client_keys(secret, message.client_ids)
    if keys:
        halves = key_halves(_sized("client_keys", keys, 16 * count))
        is_client = halves.any(axis=1)
        if ((rows["high"] != 0) & is_client).any():
            raise Unreadable("a truth names both a prediction and a client id")
        rows["high"] = np.where(is_client, halves[:, 0], rows["high"])
        rows["low"] = np.where(is_client, halves[:, 1], rows["low"])
        rows["row"] = np.where(is_client, BY_CLIENT, rows["row"])


def read_history(
    rows: HistoryRows, *, model_name: str, task: int, block_id: bytes, known_at_most_us: int
) -> Block:
    """BadRequest if lengths don't fit."""
    try:
        if task not in Task.values():
            raise Unreadable("the task is none of the contract's")
        count = _head(model_name, block_id, rows.row_count)
        for columns in (rows.inputs, rows.contexts):
            if len({column.name for column in columns}) != len(columns):
                raise Unreadable("two columns have one name")
        check(rows.inputs, count)
        check(rows.contexts, count)
        event_times = _column("event_times_us", rows.event_times_us, "<i8", count)
        known_at = _column("known_at_us", rows.known_at_us, "<i8", count)
        truths = _column("truths", rows.truths, "<f8", count)
    except Unreadable as reason:
        raise BadRequest(f"a block of history can't be read: {reason}") from None
    if int(known_at.max()) > known_at_most_us:
        raise BadRequest("a truth of the history is known in the future; check known_at_us")
    if not np.isfinite(truths).all():
        raise BadRequest("a truth of the history is not finite; leave such rows out")
    nothing = np.full(count, np.nan)
    return Block(
        block_id=block_id,
        model_name=model_name,
        version=0,
        arm=ARM_HISTORY,
        task=task,
        row_count=count,
        event_times_us=event_times,
        scores=nothing,
        decisions=nothing,
        latencies_seconds=None,
        client_keys=None,
        inputs=rows.inputs,
        outputs=(),
        contexts=rows.contexts,
        truths=truths,
        known_at_us=known_at,
    )


def _head(model_name: str, block_id: bytes, row_count: int) -> int:
    if not model_name or len(model_name) > _MAX_NAME or "\0" in model_name:
        raise Unreadable("the model has no name, or none that can be stored")
    if len(block_id) != BLOCK_ID_BYTES:
        raise Unreadable(f"the block id has {len(block_id)} bytes, not {BLOCK_ID_BYTES}")
    if not 0 < row_count <= _MAX_BLOCK_ROWS:
        raise Unreadable(f"a block has 1 to {_MAX_BLOCK_ROWS} rows, this one {row_count}")
    return row_count


def _column(name: str, packed: bytes, kind: str, rows: int) -> NDArray[Any]:
    dtype = np.dtype(kind)
    return np.frombuffer(_sized(name, packed, rows * dtype.itemsize), dtype=dtype)


def _sized(name: str, packed: bytes, size: int) -> bytes:
    if len(packed) != size:
        raise Unreadable(f"{name} has {len(packed)} bytes, expected {size}")
    return packed
