"""Rows find their blocks, and blocks come out of the journal as they went in."""

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support.journals import MemoryJournal

from homeostat.columns import unpack
from homeostat.events.v1.column_pb2 import Column
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat_inference.app.assembly import Assembler, Mark, Sealed
from homeostat_inference.app.book import BlockBook, Placed, Size
from homeostat_inference.app.ports import Chain, Done, Kind
from homeostat_inference.app.records import column_bytes, pack_mark, pack_rows
from homeostat_inference.domain.times import ClockMarks
from homeostat_kit.clock import FixedClock

BLOCK_ROWS = 20


OUTLINE = PredictionBlock(
    model_name="m",
    inputs=[
        Column(name="n", datatype="INT64", width=1),
        Column(name="t", datatype="BYTES", width=1, validity=b"\x01"),
    ],
)


def a_slice(placed: Placed, numbers: list[int], texts: list[str]) -> bytes:
    """Some rows of a block, as the journal keeps them."""
    values = np.array(numbers, dtype=np.int64)
    words = np.array(texts, dtype=object)
    return pack_rows(
        block_id=placed.block_id,
        first_row=placed.first_row,
        row_count=placed.row_count,
        traceparent="",
        outline=b"" if placed.first_row else OUTLINE.SerializeToString(),
        client_keys=b"",
        columns=[
            values.tobytes(),
            values.astype("<f8").tobytes(),
            values.astype("<f8").tobytes(),
            values.astype("<f4").tobytes(),
            column_bytes(values),
            column_bytes(words),
        ],
    )


ROWS = st.lists(
    st.tuples(st.integers(0, 1000), st.sampled_from(["", "a", "b", "ü"])), min_size=1, max_size=30
)


@given(parts=st.lists(ROWS, min_size=1, max_size=6))
def test_a_block_put_together_from_slices_has_their_rows_in_order(
    parts: list[list[tuple[int, str]]],
) -> None:
    assembler = Assembler()
    first = 0
    for at, part in enumerate(parts):
        placed = Placed(0, 0, b"x" * 16, first, len(part), Chain())
        payload = a_slice(placed, [n for n, _ in part], [t for _, t in part])
        assert assembler.feed(at, Kind.ROWS, payload) == []
        first += len(part)
    (sealed,) = assembler.feed(len(parts), Kind.BEGIN, pack_mark(5))
    assert isinstance(sealed, Sealed)
    block = sealed.block()
    rows = [row for part in parts for row in part]
    numbers, _ = unpack(block.inputs[0], block.row_count)
    texts, present = unpack(block.inputs[1], block.row_count)
    assert list(zip(numbers.tolist(), texts.tolist(), strict=True)) == rows
    assert present.tolist() == [text != "" for _, text in rows]
    assert np.frombuffer(block.scores).tolist() == [float(number) for number, _ in rows]
    assert len(set(block.inputs[1].dictionary)) == len(block.inputs[1].dictionary)
    assert block.produced_at.ToMicroseconds() == 5


def kept_by_book(batches: list[list[int]]) -> tuple[MemoryJournal, list[tuple[bytes, int, int]]]:
    """Journals batches of requests of so many rows; gives (block, first row, rows) per request."""
    journal = MemoryJournal()
    book = BlockBook(journal, FixedClock(0), block_rows=BLOCK_ROWS)
    answered: list[tuple[bytes, int, int]] = []
    number = 0
    for batch in batches:

        def write(placed: Placed, batch: list[int] = batch) -> tuple[bytes, Done]:
            nonlocal number
            row = placed.first_row
            for rows in batch[placed.first : placed.after]:
                answered.append((placed.block_id, row, rows))
                row += rows
            numbers = list(range(number, number + placed.row_count))
            number += placed.row_count
            return a_slice(placed, numbers, ["a"] * placed.row_count), lambda error: None

        book.keep(("model",), [Size(rows, 100) for rows in batch], write)
    book.mark(Kind.CALLER_MARK, 7)
    return journal, answered


BATCHES = st.lists(
    st.lists(st.integers(1, 2 * BLOCK_ROWS), min_size=1, max_size=8), min_size=1, max_size=6
)


@given(batches=BATCHES)
def test_a_requests_rows_stay_together_and_every_row_has_its_place(
    batches: list[list[int]],
) -> None:
    journal, answered = kept_by_book(batches)
    assembler = Assembler()
    made = [
        each
        for at, (kind, payload) in enumerate(journal.records)
        for each in assembler.feed(at, kind, payload)
    ]
    blocks = [each.block() for each in made if isinstance(each, Sealed)]
    assert isinstance(made[-1], Mark)
    assert assembler.needed_from is None
    numbers = [unpack(each.inputs[0], each.row_count)[0].tolist() for each in blocks]
    assert sorted(chain.from_iterable(numbers)) == list(range(sum(map(sum, batches))))
    assert [rows for _, _, rows in answered] == list(chain.from_iterable(batches))
    by_id = {each.block_id: each for each in blocks}
    places = {(block_id, row + index) for block_id, row, rows in answered for index in range(rows)}
    assert places == {(each.block_id, row) for each in blocks for row in range(each.row_count)}
    for each in blocks:
        requests = [rows for block_id, _, rows in answered if block_id == each.block_id]
        assert each.row_count <= BLOCK_ROWS or len(requests) == 1
    assert len(by_id) == len(blocks)


def fed(assembler: Assembler, records: list[tuple[Kind, bytes]], position: int = 0) -> list[object]:
    """What these records complete."""
    return [
        each for at, record in enumerate(records, position) for each in assembler.feed(at, *record)
    ]


@given(batches=BATCHES, data=st.data())
def test_reading_from_the_position_that_is_needed_gives_every_block_that_was_not_acknowledged(
    batches: list[list[int]], data: st.DataObject
) -> None:
    journal, _ = kept_by_book(batches)
    stop = data.draw(st.integers(0, len(journal.records)))
    first, second = Assembler(), Assembler()
    whole = Assembler()
    every = fed(whole, journal.records)
    sent = fed(first, journal.records[:stop])
    needed = first.needed_from
    begin = stop if needed is None else needed
    again = fed(second, journal.records[begin:], begin)

    def blocks(made: list[object]) -> dict[bytes, PredictionBlock]:
        return {each.block_id: each.block() for each in made if isinstance(each, Sealed)}

    assert blocks(every) == {**blocks(again), **blocks(sent)}
    for block_id, block in blocks(again).items():
        assert blocks(every)[block_id] == block


def test_a_mark_by_the_clock_waits_for_the_oldest_request_in_hand() -> None:
    marks = ClockMarks(bound_us=5, idle_us=10)
    assert marks.next_mark(100, oldest_in_hand_us=80) == 80
    assert marks.next_mark(110, oldest_in_hand_us=80) is None
    assert marks.next_mark(110) == 105


def test_marks_follow_the_traffic_and_the_clock_when_idle_and_never_fall() -> None:
    marks = ClockMarks(bound_us=5, idle_us=100)
    assert marks.next_mark(1000) == 995
    marks.see(500, 1001)
    assert marks.next_mark(1002) is None
    marks.see(1050, 1060)
    assert marks.next_mark(1061) == 1045
    assert marks.next_mark(1062) is None
    assert marks.next_mark(1300) == 1295
