"""The reference profile of a version: time-ordered rows with what the version said of them.

The monitor derives its thresholds from it. Columns: each input by its name, "context.<name>",
and those named below. A Parquet file, so that it is an artifact like the model.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

EVENT_TIME = "homeostat.event_time_us"
KNOWN_AT = "homeostat.known_at_us"
SCORE = "homeostat.score"
DECISION = "homeostat.decision"
TRUTH = "homeostat.truth"
LOSS = "homeostat.loss"
# The loss is honest: the version was not trained on this row (or the loss is out of fold).
IS_HOLDOUT = "homeostat.is_holdout"
CONTEXT_PREFIX = "context."
RESERVED_PREFIX = "homeostat."

Floats = NDArray[np.float64]
Micros = NDArray[np.int64]


class BadReference(ValueError):
    """The file is not a reference profile; the message names what is missing."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a version said of the reference rows; all of one length, truths NaN where unknown."""

    scores: Floats
    decisions: Floats
    truths: Floats
    losses: Floats
    is_holdout: NDArray[np.bool_]


def build(features: pa.Table, event_times: Micros, known_at: Micros, said: Verdicts) -> bytes:
    """The profile's bytes: rows sorted by event time. ``features`` holds inputs (nulls as nulls)
    and "context.<name>" columns; times are microseconds UTC."""
    columns: Mapping[str, object] = {
        EVENT_TIME: pa.array(event_times, pa.int64()),
        KNOWN_AT: pa.array(known_at, pa.int64()),
        SCORE: pa.array(said.scores, pa.float64()),
        DECISION: pa.array(said.decisions, pa.float64()),
        TRUTH: pa.array(said.truths, pa.float64()),
        LOSS: pa.array(said.losses, pa.float64()),
        IS_HOLDOUT: pa.array(said.is_holdout, pa.bool_()),
    }
    table = features
    for name, column in columns.items():
        table = table.append_column(name, column)
    order = np.argsort(event_times, kind="stable")
    sink = io.BytesIO()
    pq.write_table(table.take(pa.array(order)), sink, compression="zstd")
    return sink.getvalue()


def read(profile: bytes) -> pa.Table:
    """The rows, oldest first; BadReference where it is no Parquet or lacks a column."""
    try:
        table = pq.read_table(pa.BufferReader(profile))
    except pa.ArrowException as error:
        raise BadReference(f"the reference profile is not a Parquet file: {error}") from error
    needed = (EVENT_TIME, KNOWN_AT, SCORE, DECISION, TRUTH, LOSS, IS_HOLDOUT)
    missing = [name for name in needed if name not in table.column_names]
    if missing:
        raise BadReference(f"the reference profile lacks the columns {', '.join(missing)}")
    return table


def feature_names(table: pa.Table) -> list[str]:
    """The inputs' names, in the file's order."""
    return [
        name
        for name in table.column_names
        if not name.startswith((RESERVED_PREFIX, CONTEXT_PREFIX))
    ]


def holdout_losses(table: pa.Table) -> Floats:
    """Honest losses in the order in which their truth became known; empty where there are none."""
    mask = table[IS_HOLDOUT].to_numpy()
    losses = table[LOSS].to_numpy()[mask]
    order = np.lexsort((table[EVENT_TIME].to_numpy()[mask], table[KNOWN_AT].to_numpy()[mask]))
    kept: Floats = losses[order]
    return kept[np.isfinite(kept)]
