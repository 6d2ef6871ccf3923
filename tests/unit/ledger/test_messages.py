"""Blocks are read as they were written, and refused with a reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.ledger_events import SECRET, START_US, a_block, block_id, outcomes

from homeostat.events.v1.column_pb2 import ARM_HISTORY, ARM_SHADOW
from homeostat.ids import client_key
from homeostat_ledger.bus.messages import Bounds, read_block, read_outcomes
from homeostat_ledger.domain.blocks import BY_CLIENT, packed_keys
from homeostat_ledger.domain.columns import layout, to_table
from homeostat_ledger.domain.errors import Unreadable

ANY_TIME = Bounds(2**62, 2**62)


@given(st.lists(st.text("ab", min_size=1), min_size=1, max_size=9), st.integers(0, 99))
def test_a_block_is_read_as_it_was_written(client_ids: list[str], number: int) -> None:
    message = a_block(number, client_ids=client_ids)
    block = read_block(type(message).FromString(message.SerializeToString()), ANY_TIME)
    assert block.block_id == block_id(number)
    assert block.event_times_us.tobytes() == message.event_times_us
    assert block.client_keys is not None
    assert packed_keys(block.client_keys) == message.client_keys
    table = to_table([block, block])
    assert table.num_rows == 2 * len(client_ids)
    assert table["c.origin"].to_pylist() == ["JFK"] * table.num_rows


def test_blocks_with_other_columns_lie_in_other_files() -> None:
    blocks = [
        a_block(1),
        a_block(2),
        a_block(3, client_ids=["a", "b", "c"]),
        a_block(4, contexts={"gate": [1.0, 2.0, 3.0]}),
        a_block(5, inputs={"distance": ["far"] * 3}),
    ]
    layouts = [layout(read_block(block, ANY_TIME)) for block in blocks]
    assert layouts[0] == layouts[1]
    assert len(set(layouts)) == 4


def test_history_does_not_come_by_the_topic() -> None:
    with pytest.raises(Unreadable, match="ImportHistory"):
        read_block(a_block(1, arm=ARM_HISTORY), ANY_TIME)


def test_a_truth_names_one_subject() -> None:
    message = outcomes(1, [1.0, 0.0], START_US, predictions=[(3, 1), (0, 0)])
    message.prediction_ids = message.prediction_ids[:20] + bytes(20)
    message.client_keys = bytes(16) + client_key(SECRET, "a")
    read = read_outcomes(message, ANY_TIME, SECRET).batch
    assert read.rows["row"].tolist() == [1, BY_CLIENT]
    assert np.stack([read.rows["high"], read.rows["low"]], axis=1).astype("<u8").tobytes() == (
        block_id(3) + client_key(SECRET, "a")
    )
    message.client_keys = client_key(SECRET, "a") * 2
    with pytest.raises(Unreadable, match="both"):
        read_outcomes(message, ANY_TIME, SECRET)


def test_single_truths_that_can_not_be_are_refused_one_by_one() -> None:
    message = outcomes(1, [1.0, np.nan, 1.0, 1.0], [5, 5, 11, 5], client_ids=["a", "b", "c", ""])
    read = read_outcomes(message, Bounds(10, 10), SECRET)
    assert len(read.batch.rows) == 1
    assert read.batch.refused_rows == 3
    assert sorted(read.refused.values()) == [1, 1, 1]


def test_only_shadows_repeat_the_rows_of_another_block() -> None:
    shadow = a_block(2, arm=ARM_SHADOW)
    shadow.origin_block_id = block_id(1)
    assert read_block(shadow, ANY_TIME).origin_block_id == block_id(1)
    shadow.origin_block_id = shadow.block_id
    with pytest.raises(Unreadable, match="own"):
        read_block(shadow, ANY_TIME)
    shadow.origin_block_id = b"short"
    with pytest.raises(Unreadable, match="5 bytes"):
        read_block(shadow, ANY_TIME)
    champion = a_block(2)
    champion.origin_block_id = block_id(1)
    with pytest.raises(Unreadable, match="only shadow rows"):
        read_block(champion, ANY_TIME)
