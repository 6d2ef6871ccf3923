"""From a run to the journal, and from there to the answers."""

import hashlib
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from homeostat.ids import CLIENT_KEY_BYTES, NO_CLIENT_KEY
from homeostat_inference.app.answers import Answers, Forms, Told
from homeostat_inference.app.book import BlockBook, Placed, Size
from homeostat_inference.app.intake import MAX_BLOCK_BYTES, Rules, expected_bytes
from homeostat_inference.app.ports import Call, Done
from homeostat_inference.app.records import column_bytes, pack_rows
from homeostat_inference.app.running import Ran
from homeostat_inference.app.serving import Served
from homeostat_inference.app.waiting import Waiting
from homeostat_inference.domain.blocks import outline
from homeostat_inference.domain.errors import InvalidInput, NotKept, TooLarge
from homeostat_inference.domain.requests import EVENT_TIME_INPUT
from homeostat_inference.domain.tensors import Array

_NO_BLOCK = bytes(16)
_TIME = struct.Struct("<q")
_LATENCY = struct.Struct("<f")


class ClientKeys:
    """Clients' own ids as keyed hashes (as `homeostat.ids.client_key` makes them)."""

    def __init__(self, secret: bytes) -> None:
        self._keyed = hashlib.blake2b(key=secret[:64], digest_size=CLIENT_KEY_BYTES)

    def of(self, client_ids: Sequence[bytes]) -> bytes:
        """One key per id, joined; an empty id has the all-zero key."""
        keys = []
        for each in client_ids:
            if each:
                hashed = self._keyed.copy()
                hashed.update(each)
                keys.append(hashed.digest())
            else:
                keys.append(NO_CLIENT_KEY)
        return b"".join(keys)


@dataclass(slots=True)
class Keeper:
    """Keeps what was run, and answers once it is kept."""

    book: BlockBook
    rules: Rules
    # Told the newest event time of each batch, and when it came in.
    see: Callable[[int, int], None]
    refuse: Callable[[Served, Waiting, Exception], None]
    # Told of rows that were answered although they could not be kept.
    shed: Callable[[int], None]
    keys: ClientKeys

    def keep(self, served: Served, ran: Ran, why: str, forms: Forms) -> None:
        """Journals the rows and answers. What can't be kept, or put into words, is refused."""
        with self.book.lock:
            promised_us = self.book.promised_us
            first = 0
            for batch in _by_block(ran.batch):
                answers = _Group(self, served, ran, batch, first, why, forms)
                first += sum([each.rows for each in batch])
                try:
                    self._keep_group(answers, promised_us)
                except Exception as error:
                    answers.refuse_rest(error)
        self.book.commit()

    def _keep_group(self, group: "_Group", promised_us: int | None) -> None:
        if not group.batch[0].is_logged:
            group.answer_unlogged(self.rules.durability)
        elif _is_any_late(group.batch, promised_us):
            self._keep_those_in_time(group, promised_us)
        else:
            group.keep()

    def _keep_those_in_time(self, group: "_Group", promised_us: int | None) -> None:
        """Rows that were in hand when the caller promised that none so early follows are not."""
        served = group.served
        first = group.first
        for each in group.batch:
            for index in range(each.count):
                one = each.cut(index, index + 1)
                if _is_any_late([one], promised_us):
                    error = InvalidInput(
                        f"model {served.schema.model_name!r}, input {EVENT_TIME_INPUT!r}: expected "
                        f"no time before {promised_us} us, the watermark that was set in the "
                        "meantime"
                    )
                    self.refuse(served, one, error)
                else:
                    part = group.part(one, first)
                    try:
                        part.keep()
                    except Exception as error:
                        part.refuse_rest(error)
                group.settled += 1
                first += one.rows


def _by_block(batch: list[Waiting]) -> list[list[Waiting]]:
    """Neighbours whose rows may stand in one block."""
    if len(batch) == 1:
        return [batch]
    return [list(group) for _, group in groupby(batch, lambda each: each.block_key)]


def _is_any_late(batch: Sequence[Waiting], promised_us: int | None) -> bool:
    if promised_us is None:
        return False
    times = [each.part.event_times for each in batch if each.part.event_times is not None]
    return any(int(each.min()) < promised_us for each in times)


class _Piece(NamedTuple):
    """Requests of one form whose rows begin at ``first`` of the run."""

    waiting: Waiting
    first: int
    calls: Sequence[Call]


class _Group:
    """Consecutive rows of a run that stand in blocks of one kind."""

    def __init__(
        self,
        keeper: Keeper,
        served: Served,
        ran: Ran,
        batch: list[Waiting],
        first: int,
        why: str,
        forms: Forms,
    ) -> None:
        """The rows of ``batch`` begin at ``first`` of the run."""
        self.served = served
        self.batch = batch
        self.first = first
        self._keeper = keeper
        self._ran = ran
        self._why = why
        self._forms = forms
        _, self._arm, self._contexts = batch[0].block_key
        self._widths = tuple([each.shape[1:] for each in ran.answered.outputs])
        # How many requests were kept or answered or refused, and which row of the group comes next.
        self.settled = 0
        self._row = 0

    def part(self, one: Waiting, first: int) -> "_Group":
        """Another group of the same run."""
        return _Group(self._keeper, self.served, self._ran, [one], first, self._why, self._forms)

    def keep(self) -> None:
        """Gives the rows their places and journals them."""
        key = (self.served, self._arm, self._contexts, self._widths)
        self._prepare()
        self._keeper.book.keep(key, self._sizes(), self._write)

    def refuse_rest(self, error: Exception) -> None:
        """After an error: whoever is not settled hears of it."""
        for piece in self._pieces(self.settled, sum(each.count for each in self.batch)):
            self._keeper.refuse(self.served, piece.waiting, error)

    def answer_unlogged(self, durability: str) -> None:
        """Answers without keeping anything."""
        for piece in self._pieces(0, sum(each.count for each in self.batch)):
            self._answer_unlogged(piece, durability)
            self.settled += len(piece.calls)

    def _prepare(self) -> None:
        keeper, batch = self._keeper, self.batch
        now_ns = time.monotonic_ns()
        self._times, newest_us = _times(batch, keeper.book.promised_us or 0)
        keeper.see(newest_us, batch[-1].arrived_at_us)
        self._latencies = _latencies(batch, now_ns)
        self._client_ids = _client_ids(batch)
        self._context_values: list[Array] = (
            list(batch[0].part.contexts)
            if len(batch) == 1
            else [
                np.concatenate(each)
                for each in zip(*(one.part.contexts for one in batch), strict=True)
            ]
        )
        self._answers = self._worded(
            Told(self._arm, self._ran.rows, keeper.rules.durability, self._why)
        )

    def _worded(self, told: Told) -> Answers:
        return Answers(self.served.schema, told, self._ran.answered.outputs, self._forms)

    def _sizes(self) -> list[Size]:
        """What each request takes in a block."""
        schema, outputs = self.served.schema, self._ran.answered.outputs
        texts = [each for each in outputs if each.dtype == object]
        sizes: list[Size] = []
        first = self.first
        for each in self.batch:
            part = each.part
            expected = expected_bytes(schema, part.each, part.size_bytes)
            if not texts:
                sizes.append(Size(part.each, expected, each.count))
                continue
            for _ in range(each.count):
                after = first + part.each
                text_bytes = sum(_text_bytes(values[first:after]) for values in texts)
                sizes.append(Size(part.each, expected + text_bytes))
                first = after
        return sizes

    def _pieces(self, first: int, after: int) -> Iterator[_Piece]:
        """The group's requests from ``first`` up to ``after``."""
        number, row = 0, self.first
        for each in self.batch:
            a, b = max(first - number, 0), min(after - number, each.count)
            if a < b:
                cut = each if b - a == each.count else each.cut(a, b)
                yield _Piece(cut, row + a * each.part.each, cut.part.items)
            number += each.count
            row += each.rows

    def _write(self, placed: Placed) -> tuple[bytes, Done]:
        """The record's payload, and what to do when it is kept or lost."""
        payload = self._payload(placed)
        if len(payload) > MAX_BLOCK_BYTES:
            raise TooLarge(
                f"model {self.served.schema.model_name!r}: expected a record of at most "
                f"{MAX_BLOCK_BYTES} bytes, got {len(payload)}; send fewer rows at once"
            )
        done = self._done(placed)
        self.settled = placed.after
        self._row += placed.row_count
        return payload, done

    def _payload(self, placed: Placed) -> bytes:
        answered = self._ran.answered
        own = slice(self._row, self._row + placed.row_count)
        run = slice(self.first + own.start, self.first + own.stop)
        ids = self._client_ids
        return pack_rows(
            block_id=placed.block_id,
            first_row=placed.first_row,
            row_count=placed.row_count,
            traceparent=self._ran.traceparent,
            outline=b"" if placed.first_row else self._outline(),
            client_keys=b"" if ids is None else self._keeper.keys.of(ids[own]),
            columns=[
                self._times[own.start * _TIME.size : own.stop * _TIME.size],
                answered.scores[run].tobytes(),
                answered.decisions[run].tobytes(),
                self._latencies[own.start * _LATENCY.size : own.stop * _LATENCY.size],
                *[column_bytes(each[run]) for each in answered.inputs],
                *[column_bytes(each[run]) for each in answered.outputs],
                *[column_bytes(each[own]) for each in self._context_values],
            ],
        )

    def _outline(self) -> bytes:
        key = "outline", self._arm, self._contexts, self._widths
        known = self._forms.get(key)
        if known is None:
            made = outline(
                self.served.schema, self._arm, self._ran.answered.outputs, self._contexts
            )
            known = self._forms[key] = made.SerializeToString()
        return known

    def _done(self, placed: Placed) -> Done:
        pieces = list(self._pieces(placed.first, placed.after))
        answers: list[list[bytes]] = []
        row = placed.first_row
        for piece in pieces:
            answers.append(
                self._answers.write(
                    piece.waiting.part,
                    piece.first,
                    block_id=placed.block_id,
                    row=row,
                    queues_us=self._queues_us(piece.calls),
                )
            )
            row += piece.waiting.rows
        served, keeper = self.served, self._keeper

        def done(error: Exception | None) -> None:
            for piece, some in zip(pieces, answers, strict=True):
                if error is None:
                    try:
                        for call, answer in zip(piece.calls, some, strict=True):
                            call.respond(answer)
                    finally:
                        piece.waiting.release(served)
                elif keeper.rules.sheds_when_full and isinstance(error, NotKept):
                    keeper.shed(piece.waiting.rows)
                    self._answer_unlogged(piece, "none")
                else:
                    keeper.refuse(served, piece.waiting, error)

        return done

    def _answer_unlogged(self, piece: _Piece, durability: str) -> None:
        told = Told(self._arm, self._ran.rows, durability, self._why, is_logged=False)
        answers = self._worded(told).write(
            piece.waiting.part,
            piece.first,
            block_id=_NO_BLOCK,
            row=0,
            queues_us=self._queues_us(piece.calls),
        )
        piece.waiting.release(self.served)
        for call, answer in zip(piece.calls, answers, strict=True):
            call.respond(answer)

    def _queues_us(self, calls: Sequence[Call]) -> list[int]:
        started_ns = self._ran.started_ns
        return [max(0, (started_ns - each.received_ns) // 1000) for each in calls]


def _times(batch: Sequence[Waiting], earliest_us: int) -> tuple[bytes, int]:
    """Every row's event time, packed, and the newest one; where the client gave none it is the
    arrival, but not before ``earliest_us``: a replay may run ahead of the clock."""
    packed = []
    newest_us = 0
    for each in batch:
        given = each.part.event_times
        if given is None:
            time_us = max(each.arrived_at_us, earliest_us)
            packed.append(_TIME.pack(time_us) * each.rows)
        else:
            time_us = int(given.max())
            packed.append(given.tobytes())
        newest_us = max(newest_us, time_us)
    return b"".join(packed), newest_us


def _latencies(batch: Sequence[Waiting], now_ns: int) -> bytes:
    """Every row's time from its receipt, in seconds, packed."""
    packed = []
    # Requests that came in together share it.
    received_ns, own = -1, b""
    for each in batch:
        rows = each.part.each
        for call in each.part.items:
            if call.received_ns != received_ns:
                received_ns = call.received_ns
                own = _LATENCY.pack((now_ns - received_ns) / 1e9)
            packed.append(own if rows == 1 else own * rows)
    return b"".join(packed)


def _client_ids(batch: Sequence[Waiting]) -> list[bytes] | None:
    """One per row, empty where there is none; None if no row has one."""
    if not any(each.part.client_ids for each in batch):
        return None
    found: list[bytes] = []
    for each in batch:
        found += each.part.client_ids or [b""] * each.rows
    return found


def _text_bytes(values: Array) -> int:
    return sum(len(str(each).encode(errors="replace")) for each in values.ravel())
