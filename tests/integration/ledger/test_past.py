"""Reading the past: spans, cuts, versions, arms, in order and in portions."""

from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pytest
from tests.integration.ledger.harness import LedgerUnderTest
from tests.integration.ledger.test_data_sets import LATER_US, history
from tests.support.ledger_events import MODEL, START_US, a_block, block_id, outcomes
from tests.support.waiting import eventually

from homeostat import past
from homeostat.events.v1.column_pb2 import (
    ARM_CANARY,
    ARM_CHAMPION,
    ARM_HISTORY,
    ARM_SHADOW,
    TASK_REGRESSION,
)
from homeostat.ids import pack_prediction_id
from homeostat.ledger.v1.ledger_pb2 import ReadPredictionsHeader, ReadPredictionsRequest


async def read(ledger: LedgerUnderTest, **question: Any) -> tuple[ReadPredictionsHeader, pa.Table]:
    """Header and rows; the header has to be true."""
    asked = past.Past(
        ledger.api, ReadPredictionsRequest(model_name=MODEL, **question), timeout_seconds=60
    )
    table = await asked.table()
    assert asked.header.row_count == table.num_rows
    if table.num_rows:
        times = table[past.EVENT_TIME].to_pylist()
        assert (asked.header.first_event_us, asked.header.last_event_us) == (times[0], times[-1])
        keys = list(zip(times, map(id_order, table[past.PREDICTION_ID].to_pylist()), strict=True))
        assert all(before < after for before, after in pairwise(keys))
    return asked.header, table


def id_order(packed: bytes) -> tuple[bytes, int]:
    return packed[:16], int.from_bytes(packed[16:], "little")


def ids(*places: tuple[int, int]) -> list[bytes]:
    return [pack_prediction_id(block_id(block), row) for block, row in places]


async def test_a_span_comes_in_order_with_inputs_contexts_and_what_was_said(
    ledger: LedgerUnderTest,
) -> None:
    late = a_block(2, rows=2, event_times_us=[START_US + 5, START_US + 1], decisions=[1.0, 0.0])
    await ledger.say(a_block(1, rows=3, event_times_us=START_US + np.arange(3)), late)
    await ledger.say(outcomes(1, [1.0, 1.0], LATER_US, predictions=[(2, 0), (1, 1)]))
    await ledger.settled()
    _, rows = await read(ledger)
    assert rows[past.PREDICTION_ID].to_pylist() == ids((1, 0), (1, 1), (2, 1), (1, 2), (2, 0))
    assert rows["distance"].to_pylist() == [10.0, 11.0, 21.0, 12.0, 20.0]
    assert rows["carrier"].to_pylist() == ["UA", "DL", "AA", "AA", "DL"]
    assert rows["context.origin"].to_pylist() == ["JFK"] * 5
    assert rows[past.SCORE].to_pylist() == [0.25] * 5
    assert rows[past.DECISION].to_pylist() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert rows[past.TRUTH].to_pylist() == [None, 1.0, None, None, 1.0]
    assert rows[past.LOSS].to_pylist() == [None, 1.0, None, None, 0.0]
    assert rows[past.KNOWN_AT].to_pylist() == [None, LATER_US, None, None, LATER_US]
    assert rows[past.VERSION].to_pylist() == [1] * 5
    assert rows[past.ARM].to_pylist() == [ARM_CHAMPION] * 5
    _, span = await read(ledger, event_from_us=START_US + 1, event_before_us=START_US + 5)
    assert span[past.PREDICTION_ID].to_pylist() == ids((1, 1), (2, 1), (1, 2))
    _, labelled = await read(ledger, labelled_only=True)
    assert labelled[past.PREDICTION_ID].to_pylist() == ids((1, 1), (2, 0))
    _, newest = await read(ledger, labelled_only=True, newest_rows=1)
    assert newest[past.PREDICTION_ID].to_pylist() == ids((2, 0))


async def test_the_truth_is_the_one_at_the_cut_and_known_at_is_the_firsts(
    ledger: LedgerUnderTest,
) -> None:
    await ledger.say(a_block(1, rows=2, task=TASK_REGRESSION))
    for number, (truth, known_at) in enumerate([(3.0, 10), (5.0, 20), (5.0, 30), (2.0, 5)]):
        await ledger.say(outcomes(number, [truth], LATER_US + known_at, predictions=[(1, 0)]))
    await ledger.settled()
    expected = {4: (None, None), 9: (2.0, 5), 10: (3.0, 5), 25: (5.0, 5)}
    for cut, (truth, known_at) in expected.items():
        _, rows = await read(ledger, known_at_most_us=LATER_US + cut)
        known = None if known_at is None else LATER_US + known_at
        assert rows[past.TRUTH].to_pylist() == [truth, None]
        assert rows[past.KNOWN_AT].to_pylist() == [known, None]
        assert rows[past.LOSS].to_pylist() == [None if truth is None else truth**2, None]


async def test_versions_and_arms_are_chosen_and_shadows_stay_out_unless_asked_for(
    ledger: LedgerUnderTest,
) -> None:
    await ledger.api.ImportHistory(history())
    shadow = a_block(2, rows=1, version=2, arm=ARM_SHADOW)
    shadow.origin_block_id = block_id(1)
    await ledger.say(
        a_block(1, rows=1),
        shadow,
        a_block(3, rows=1, version=2, arm=ARM_CANARY),
        a_block(1, rows=1),
    )
    await ledger.say(outcomes(1, [1.0], LATER_US, predictions=[(1, 0)]))
    await ledger.settled()
    for question, expected in (
        ({}, ids((1, 0), (3, 0))),
        ({"version": 2}, ids((3, 0))),
        ({"arms": [ARM_SHADOW]}, ids((2, 0))),
        ({"arms": [ARM_SHADOW], "labelled_only": True}, ids((2, 0))),
        ({"version": 3}, []),
    ):
        _, rows = await read(ledger, **question)
        found = rows[past.PREDICTION_ID].to_pylist() if rows.num_rows else []
        assert found == expected, question
    _, old = await read(ledger, arms=[ARM_HISTORY], known_at_most_us=START_US - 5_000 + 3)
    assert old["distance"].to_pylist() == [0.0, None, 2.0, 3.0, 4.0]
    assert old[past.TRUTH].to_pylist() == [0.0, 1.0, 0.0, 1.0, None]
    assert old[past.LOSS].null_count == old[past.SCORE].null_count == 5


@pytest.mark.parametrize("newest", [0, 1, 7, 39, 40, 1000])
async def test_the_newest_rows_are_the_last_by_event_time_and_id(
    ledger: LedgerUnderTest, newest: int
) -> None:
    # Ties over several blocks.
    for number in range(8):
        times = START_US + (np.arange(5) * 7 + number) % 6
        await ledger.say(a_block(number, rows=5, event_times_us=times))
    await ledger.settled()
    _, everything = await read(ledger)
    _, rows = await read(ledger, newest_rows=newest, portion_rows=3)
    expected = everything[past.PREDICTION_ID].to_pylist()[-newest:] if newest else []
    assert (rows[past.PREDICTION_ID].to_pylist() if rows.num_rows else []) == expected


async def test_portions_are_bounded_and_together_the_whole_also_while_files_are_merged(
    ledger: LedgerUnderTest,
) -> None:
    for number in range(20):
        times = START_US + np.arange(50) * 1_000 + number * 20_000
        await ledger.say(a_block(number, rows=50, event_times_us=times))
        await ledger.settled()
    asked = past.Past(ledger.api, ReadPredictionsRequest(model_name=MODEL, portion_rows=64))
    sizes, found = [], []
    async for table in asked.portions():
        sizes.append(table.num_rows)
        found += table[past.EVENT_TIME].to_pylist()
        if len(sizes) == 3:
            await eventually(lambda: is_merged(ledger), what="files are merged")
    assert sizes == [64] * 15 + [40]
    assert asked.header.row_count == 1000
    assert found == sorted(found)


async def is_merged(ledger: LedgerUnderTest) -> bool:
    return await ledger.files() < 16


async def test_versions_with_other_inputs_come_in_one_table(ledger: LedgerUnderTest) -> None:
    await ledger.say(
        a_block(1, rows=1), a_block(2, rows=1, version=2, inputs={"distance": [1.0], "dest": ["X"]})
    )
    await ledger.settled()
    _, rows = await read(ledger)
    assert rows["dest"].to_pylist() == [None, "X"]
    assert rows["carrier"].to_pylist() == ["UA", None]


async def test_who_stops_early_ends_the_call_and_others_are_answered(
    ledger: LedgerUnderTest,
) -> None:
    await ledger.say(a_block(1, rows=2_000))
    await ledger.settled()
    request = ReadPredictionsRequest(model_name=MODEL, portion_rows=1)
    call = ledger.api.ReadPredictions(request)
    assert (await call.read()).header.row_count == 2_000
    assert (await call.read()).parquet
    call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED
    portions = past.Past(ledger.api, request).portions()
    assert (await anext(portions)).num_rows == 1
    await portions.aclose()  # type: ignore[attr-defined]
    header, _ = await read(ledger)
    assert header.row_count == 2_000


async def test_an_unknown_model_is_not_found_and_what_cannot_be_is_refused(
    ledger: LedgerUnderTest,
) -> None:
    for question, code in (
        ({"model_name": "nobody"}, grpc.StatusCode.NOT_FOUND),
        ({}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"model_name": MODEL, "portion_rows": 1_000_000}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"model_name": MODEL, "arms": [99]}, grpc.StatusCode.INVALID_ARGUMENT),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await past.Past(ledger.api, ReadPredictionsRequest(**question)).table()
        assert refused.value.code() == code
    await ledger.say(a_block(1, rows=1))
    await ledger.settled()
    header, rows = await read(ledger, event_before_us=START_US)
    assert (header.row_count, header.HasField("first_event_us"), rows.num_rows) == (0, False, 0)
