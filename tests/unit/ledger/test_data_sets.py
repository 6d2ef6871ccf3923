"""What is in a data set, and that its content alone decides its order and hash."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ledger_events import START_US, a_block

from homeostat_ledger.bus.messages import Bounds, read_block
from homeostat_ledger.domain.columns import to_table
from homeostat_ledger.domain.data_sets import Piece, assemble, content_sha256
from homeostat_ledger.domain.errors import IncompatibleColumns

ANY_TIME = Bounds(2**62, 2**62)
# (known-at, event time, distance, carrier, truth); few values, so that many rows tie.
rows_of_sets = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2),
        st.sampled_from([1.0, 2.0, float("nan")]),
        st.sampled_from(["AA", "UA", ""]),
        st.sampled_from([0.0, 1.0]),
    ),
    min_size=1,
    max_size=25,
)
Row = tuple[int, int, float, str, float]


def piece(rows: list[Row], number: int) -> Piece:
    block = a_block(
        number,
        rows=len(rows),
        inputs={"distance": [row[2] for row in rows], "carrier": [row[3] for row in rows]},
        event_times_us=[START_US + row[1] for row in rows],
    )
    return Piece(
        to_table([read_block(block, ANY_TIME)]),
        np.arange(len(rows)),
        np.array([START_US + row[1] for row in rows]),
        np.array([row[0] for row in rows]),
        np.array([row[0] for row in rows]) // 2,
        np.array([row[4] for row in rows]),
    )


def in_pieces(rows: list[Row], cuts: list[int]) -> list[Piece]:
    edges = sorted({0, len(rows), *(cut % len(rows) for cut in cuts)})
    return [piece(rows[start:stop], start) for start, stop in itertools.pairwise(edges)]


@given(rows_of_sets, st.randoms(use_true_random=False), st.lists(st.integers(0, 99), max_size=4))
def test_the_same_rows_repeat_their_hash_in_any_order_and_any_files(
    rows: list[Row], random: "object", cuts: list[int]
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = assemble([piece(rows, 0)], None), assemble(in_pieces(shuffled, cuts), None)
    assert content_sha256(first) == content_sha256(second)
    assert first.to_pylist() == second.to_pylist() or "nan" in str(first.to_pylist())
    for newest in (0, 1, len(rows) // 2):
        a, b = assemble([piece(rows, 0)], newest), assemble(in_pieces(shuffled, cuts), newest)
        assert a.num_rows == min(newest, len(rows))
        assert content_sha256(a) == content_sha256(b)


@given(rows_of_sets, st.data())
def test_another_value_anywhere_is_another_hash(rows: list[Row], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(rows) - 1))
    known_at, event, distance, carrier, truth = rows[at]
    changed = list(rows)
    changed[at] = data.draw(
        st.sampled_from(
            [
                (known_at + 9, event, distance, carrier, truth),
                (known_at, event + 9, distance, carrier, truth),
                (known_at, event, 3.0, carrier, truth),
                (known_at, event, distance, "XX", truth),
                (known_at, event, distance, carrier, truth + 9),
            ]
        )
    )
    first, second = (content_sha256(assemble([piece(each, 0)], None)) for each in (rows, changed))
    assert first != second


def test_rows_are_in_order_and_columns_have_public_names() -> None:
    rows: list[Row] = [
        (3, 0, 1.0, "AA", 0.0),
        (1, 2, 2.0, "", 1.0),
        (1, 1, float("nan"), "UA", 1.0),
    ]
    table = assemble([piece(rows, 0)], None)
    assert table.column_names == [
        "carrier",
        "distance",
        "context.origin",
        "homeostat.event_time_us",
        "homeostat.known_at_us",
        "homeostat.first_known_at_us",
        "homeostat.truth",
    ]
    assert table["carrier"].to_pylist() == ["UA", None, "AA"]
    assert table["distance"].to_pylist() == [None, 2.0, 1.0]
    assert pa.types.is_dictionary(table["carrier"].type)


def test_versions_with_other_columns_go_together_or_say_why_not() -> None:
    old = piece([(1, 1, 1.0, "AA", 0.0)], 0)
    new = a_block(1, rows=1, inputs={"distance": [5.0], "gate": ["B2"]})
    table = to_table([read_block(new, ANY_TIME)])
    one = np.ones(1, dtype=np.int64)
    both = assemble([old, Piece(table, one * 0, one, one + 1, one, np.ones(1))], None)
    assert both["gate"].to_pylist() == [None, "B2"]
    odd = to_table([read_block(a_block(2, rows=1, inputs={"distance": ["far"]}), ANY_TIME)])
    with pytest.raises(IncompatibleColumns):
        assemble([old, Piece(odd, one * 0, one, one, one, np.ones(1))], None)


def test_a_context_of_two_datatypes_is_left_out_and_stops_no_cut() -> None:
    one = np.ones(1, dtype=np.int64)

    def a_piece(context: pa.Array, at: int) -> Piece:
        table = pa.table({"i.distance": pa.array([1.0]), "c.gate": context})
        return Piece(table, one * 0, one * at, one * at, one, np.ones(1))

    cut = assemble([a_piece(pa.array(["B4"]), 1), a_piece(pa.array([4.0]), 2)], None)
    assert cut.num_rows == 2
    assert "context.gate" not in cut.column_names
    assert "distance" in cut.column_names
