"""Blocks as inference makes them, for tests of who reads them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from homeostat.columns import nulls_of, pack
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, TASK_BINARY, Column, Watermark
from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import client_keys, pack_prediction_id

SECRET = b"a secret of tests"
MODEL = "delays"
# 2013-01-01 in microseconds: well before any clock that a test runs under.
START_US = 1_356_998_400_000_000


def block_id(number: int) -> bytes:
    """A block id that a test can name again."""
    return number.to_bytes(8, "big") + (0x8000_0000_0000_0000 + number).to_bytes(8, "big")


def features(values: dict[str, Sequence[Any]]) -> list[Column]:
    """Columns of floats or strings; NaN and "" are nulls."""
    packed = []
    for name, column in values.items():
        is_text = isinstance(column[0], str)
        array = np.array(column, dtype=object if is_text else np.float32)
        packed.append(pack(name, array, ~nulls_of(array)))
    return packed


def a_block(
    number: int,
    *,
    rows: int = 3,
    model: str = MODEL,
    client_ids: Sequence[str] | None = None,
    event_times_us: ArrayLike | None = None,
    decisions: ArrayLike | None = None,
    arm: int = ARM_CHAMPION,
    version: int = 1,
    task: int = TASK_BINARY,
    inputs: dict[str, Sequence[Any]] | None = None,
    contexts: dict[str, Sequence[Any]] | None = None,
) -> PredictionBlock:
    """Answered predictions; rows differ, and the same number gives the same block."""
    count = len(client_ids) if client_ids is not None else rows
    times = (
        START_US + np.arange(count) * 1_000_000 + number
        if event_times_us is None
        else event_times_us
    )
    values = {
        "distance": (np.arange(count) + 10.0 * number).tolist(),
        "carrier": [("AA", "UA", "DL")[(each + number) % 3] for each in range(count)],
    }
    decided = np.asarray(np.zeros(count) if decisions is None else decisions, dtype="<f8")
    return PredictionBlock(
        model_name=model,
        version=version,
        arm=arm,
        task=task,
        schema_fingerprint="f" * 64,
        block_id=block_id(number),
        row_count=count,
        inputs=features(inputs or values),
        outputs=[pack("probability", np.full(count, 0.25, dtype=np.float32))],
        contexts=features(contexts or {"origin": ["JFK"] * count}),
        event_times_us=np.asarray(times, dtype="<i8").tobytes(),
        client_keys=b"" if client_ids is None else client_keys(SECRET, client_ids),
        scores=np.full(count, 0.25).tobytes(),
        decisions=decided.tobytes(),
        latencies_seconds=np.full(count, 0.001, dtype="<f4").tobytes(),
    )


def outcomes(
    number: int,
    truths: ArrayLike,
    known_at_us: ArrayLike,
    *,
    client_ids: Sequence[str] | None = None,
    predictions: Sequence[tuple[int, int]] | None = None,
    model: str = MODEL,
    are_raw: bool = False,
) -> OutcomeBlock:
    """Truths by client id, or by (block number, row)."""
    values = np.asarray(truths, dtype="<f8")
    known = np.broadcast_to(np.asarray(known_at_us, dtype="<i8"), values.shape)
    message = OutcomeBlock(
        model_name=model,
        block_id=block_id(1_000_000 + number),
        row_count=len(values),
        truths=values.tobytes(),
        known_at_us=known.tobytes(),
        source="tests",
    )
    if predictions is not None:
        message.prediction_ids = b"".join(
            pack_prediction_id(block_id(block), row) for block, row in predictions
        )
    elif are_raw:
        message.client_ids.extend(client_ids or ())
    else:
        message.client_keys = client_keys(SECRET, client_ids or ())
    return message


def mark(kind: type[PredictionBlock] | type[OutcomeBlock], at_us: int) -> Any:
    """A source's promise."""
    return kind(watermark=Watermark(source_id="test", watermark_us=at_us))
