"""What clients tell besides asking for predictions: truth, and promises about time."""

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.ids import (
    NO_CLIENT_KEY,
    PREDICTION_ID_BYTES,
    client_key,
    new_block_id,
    pack_prediction_id,
    parse_prediction_id,
)
from homeostat.inference.v1.truth_pb2 import Outcome, RecordOutcomesRequest
from homeostat_inference.app.book import BlockBook
from homeostat_inference.app.ports import Done, Journal, Kind
from homeostat_inference.domain.blocks import timestamp
from homeostat_inference.domain.errors import InvalidInput, NotServed, TooLarge, WrongMode
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.times import TimeBounds

NO_PREDICTION = bytes(PREDICTION_ID_BYTES)
MAX_SOURCE_CHARACTERS = 128
# One call is one record, and the broker takes none beyond 16 MiB.
MAX_OUTCOMES = 100_000
# A replay's feed may pause for long, but a mark further ahead is a mistake in the unit: it would
# refuse every row from then on.
MAX_LEAP_US = 366 * 86_400 * 1_000_000


class HasSchema(Protocol):
    """A version that serves, as far as truth has to know it."""

    @property
    def schema(self) -> Schema:
        """What it answers."""


@dataclass(frozen=True, slots=True)
class Described:
    """A version that serves somewhere else."""

    schema: Schema


@dataclass(frozen=True, slots=True)
class _Row:
    prediction_id: bytes
    client_key: bytes
    truth: float
    known_at_us: int


def outcome_block(
    request: RecordOutcomesRequest,
    champions: Mapping[str, HasSchema],
    *,
    secret: bytes,
    now_us: int,
    times: TimeBounds,
    random: Callable[[int], bytes] = os.urandom,
) -> OutcomeBlock:
    """The truths of a request as one block; InvalidInput or NotServed if one is none."""
    served = champions.get(request.model_name)
    if served is None:
        raise NotServed(f"unknown model {request.model_name[:128]!r}")
    if not request.outcomes:
        raise InvalidInput(f"model {request.model_name!r}: expected at least one outcome, got none")
    if len(request.outcomes) > MAX_OUTCOMES:
        raise TooLarge(
            f"model {request.model_name!r}: expected at most {MAX_OUTCOMES} outcomes in a call, "
            f"got {len(request.outcomes)}"
        )
    if len(request.source) > MAX_SOURCE_CHARACTERS:
        raise InvalidInput(f"expected a source of at most {MAX_SOURCE_CHARACTERS} characters")
    rows = [
        _row(each, at, served.schema, secret, now_us) for at, each in enumerate(request.outcomes)
    ]
    known_at = np.array([each.known_at_us for each in rows], dtype="<i8")
    times.check(
        int(known_at.min()), int(known_at.max()), f"model {request.model_name!r}, known_at_us"
    )
    return OutcomeBlock(
        model_name=request.model_name,
        block_id=new_block_id(now_us // 1000, random(10)),
        row_count=len(rows),
        prediction_ids=b"".join(each.prediction_id for each in rows),
        client_keys=b"".join(each.client_key for each in rows),
        truths=np.array([each.truth for each in rows], dtype="<f8").tobytes(),
        known_at_us=known_at.tobytes(),
        source=request.source,
        produced_at=timestamp(now_us),
    )


def _row(outcome: Outcome, at: int, schema: Schema, secret: bytes, now_us: int) -> _Row:
    where = f"model {schema.model_name!r}, outcome {at}"
    prediction_id, key = _subject(outcome, where, secret)
    known_at_us = outcome.known_at_us if outcome.HasField("known_at_us") else now_us
    return _Row(prediction_id, key, _truth(outcome, where, schema), known_at_us)


def _subject(outcome: Outcome, where: str, secret: bytes) -> tuple[bytes, bytes]:
    subject = outcome.WhichOneof("subject")
    if subject == "prediction_id":
        try:
            return pack_prediction_id(*parse_prediction_id(outcome.prediction_id)), NO_CLIENT_KEY
        except ValueError as error:
            raise InvalidInput(f"{where}: {error}") from None
    if subject == "client_id" and outcome.client_id:
        return NO_PREDICTION, client_key(secret, outcome.client_id)
    raise InvalidInput(f"{where}: expected a prediction_id or a client_id, got neither")


def _truth(outcome: Outcome, where: str, schema: Schema) -> float:
    truth = outcome.WhichOneof("truth")
    if truth == "label":
        return schema.class_index(outcome.label)
    if truth == "value" and np.isfinite(outcome.value):
        return schema.checked_truth(outcome.value)
    got = f"the value {outcome.value}" if truth else "neither"
    raise InvalidInput(f"{where}: expected a label or a finite value, got {got}")


def record_outcomes(
    block: OutcomeBlock,
    journal: Journal,
    done: Done,
    *,
    times: Callable[[], TimeBounds],
    promising: threading.Lock,
) -> None:
    """Keeps the truths; ``done`` hears when they are safe, or InvalidInput if a promise was made
    in the meantime that they would break. ``promising`` is held by whoever appends a promise."""
    payload = block.SerializeToString()
    known_at = np.frombuffer(block.known_at_us, "<i8")
    with promising:
        try:
            smallest, largest = int(known_at.min()), int(known_at.max())
            times().check(smallest, largest, f"model {block.model_name!r}, known_at_us")
        except InvalidInput as error:
            done(error)
            return
        journal.append(Kind.OUTCOMES, payload, done=done)
    journal.commit()


class CallerMarks:
    """The promises that a caller has made, where the server runs with explicit watermarks."""

    def __init__(self, *, is_explicit: bool, mark_us: int | None) -> None:
        """``mark_us``: the last mark before a restart."""
        self.is_explicit = is_explicit
        self.mark_us = mark_us if is_explicit else None

    def advance(self, mark_us: int, book: BlockBook, done: Done, *, latest_us: int) -> None:
        """Makes the promise; ``done`` hears when it is safe. InvalidInput if it takes one back, or
        is implausibly far beyond ``latest_us``, the latest time that a row may have now."""
        self.judge(mark_us, latest_us)
        before, self.mark_us = self.mark_us, mark_us

        def kept(error: Exception | None) -> None:
            if error is not None:
                self.mark_us = book.promised_us = before
            done(error)

        book.mark(Kind.CALLER_MARK, mark_us, kept)

    def judge(self, mark_us: int, latest_us: int) -> None:
        """InvalidInput or WrongMode if the promise can't be made."""
        if not self.is_explicit:
            raise WrongMode(
                "watermarks are made by the server's clock; start it with watermark_mode=explicit"
            )
        if mark_us < 0 or (self.mark_us is not None and mark_us < self.mark_us):
            raise InvalidInput(
                f"watermark_us: expected at least {self.mark_us or 0} (the last mark), "
                f"got {mark_us}"
            )
        if mark_us > latest_us + MAX_LEAP_US:
            raise InvalidInput(
                f"watermark_us: expected at most {latest_us + MAX_LEAP_US}, got {mark_us}; "
                "are these microseconds?"
            )
