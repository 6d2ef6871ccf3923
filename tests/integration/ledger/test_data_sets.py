"""Data sets cut from what was served and from history."""

import hashlib
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from tests.integration.ledger.harness import LedgerUnderTest
from tests.support.ledger_events import MODEL, START_US, a_block, block_id, features, outcomes
from tests.support.waiting import eventually

from homeostat.ids import prediction_id
from homeostat.ledger.v1.ledger_pb2 import (
    AreArchivedRequest,
    HistoryHeader,
    HistoryRows,
    ImportHistoryRequest,
    LookUpPredictionRequest,
)
from homeostat_ledger.store import index

LATER_US = START_US + 3_600_000_000


def history(rows: int = 5, *, announced: int | None = None) -> Iterator[ImportHistoryRequest]:
    history_id = hashlib.sha256(str(rows).encode()).hexdigest()
    yield ImportHistoryRequest(
        header=HistoryHeader(
            model_name=MODEL, history_id=history_id, row_count=announced or rows, task=1
        )
    )
    for part in np.array_split(np.arange(rows), 2):
        yield ImportHistoryRequest(
            rows=HistoryRows(
                row_count=len(part),
                inputs=features(
                    {
                        "distance": [float("nan") if each == 1 else each * 1.0 for each in part],
                        "carrier": [["AA", ""][each % 2] for each in part],
                    }
                ),
                event_times_us=(START_US - 10_000 + part).astype("<i8").tobytes(),
                known_at_us=(START_US - 5_000 + part).astype("<i8").tobytes(),
                truths=(part % 2).astype("<f8").tobytes(),
            )
        )


async def test_history_is_imported_once_and_cut_with_its_truth(ledger: LedgerUnderTest) -> None:
    imported = await ledger.api.ImportHistory(history())
    again = await ledger.api.ImportHistory(history())
    assert (imported.imported_rows, imported.is_repeat) == (5, False)
    assert (again.imported_rows, again.is_repeat) == (0, True)
    counted = await ledger.statistics()
    assert (counted.history_rows, counted.predictions) == (5, 0)
    header, rows = await ledger.cut(model_name=MODEL, known_at_most_us=START_US - 5_000 + 3)
    assert rows["distance"].to_pylist() == [0.0, None, 2.0, 3.0]
    assert rows["carrier"].to_pylist() == ["AA", None, "AA", None]
    assert rows["homeostat.truth"].to_pylist() == [0.0, 1.0, 0.0, 1.0]
    assert header.row_count == 4


async def test_a_history_with_fewer_rows_than_announced_is_not_taken(
    ledger: LedgerUnderTest,
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ledger.api.ImportHistory(history(announced=9))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert (await ledger.statistics()).history_rows == 0
    assert not list(ledger.folder.rglob("*.parquet"))


async def test_a_cut_knows_nothing_of_later_truth_and_repeats(ledger: LedgerUnderTest) -> None:
    await ledger.api.ImportHistory(history())
    for number in range(40):
        await ledger.say(a_block(number, client_ids=[f"{number}-{row}" for row in range(3)]))
        await ledger.say(
            outcomes(
                number,
                [0.0, 1.0, 0.0],
                LATER_US + number,
                client_ids=[f"{number}-{row}" for row in range(3)],
            )
        )
        if number % 4 == 0:
            await ledger.settled()
    await ledger.settled()
    first, rows = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US + 19)
    assert rows.num_rows == 20 * 3 + 5
    assert max(rows["homeostat.known_at_us"].to_pylist()) == LATER_US + 19
    assert rows["context.origin"].to_pylist() == [None] * 5 + ["JFK"] * 60
    # A correction that is known later, and one that is known earlier but comes now.
    await ledger.say(outcomes(900, [1.0], LATER_US + 100, client_ids=["3-0"]))
    await ledger.settled()
    second, _ = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US + 19)
    assert second.content_sha256 == first.content_sha256
    newest, last = await ledger.cut(
        model_name=MODEL, known_at_most_us=LATER_US + 200, newest_rows=4
    )
    assert last["homeostat.known_at_us"].to_pylist() == [LATER_US + 39] * 3 + [LATER_US + 100]
    assert newest.row_count == 4
    _, some = await ledger.cut(
        model_name=MODEL,
        known_at_most_us=LATER_US + 200,
        event_from_us=START_US,
        event_before_us=START_US + 2,
    )
    assert some.num_rows == 2


@pytest.mark.parametrize("spare_rows", [0, 1000])
async def test_a_truth_that_is_sent_again_does_not_date_its_row_anew(
    ledger: LedgerUnderTest, spare_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "_SPARE_ROWS", spare_rows)
    for number in range(10):
        await ledger.say(a_block(number, client_ids=[f"{number}"]))
        await ledger.say(outcomes(number, [1.0], LATER_US + number, client_ids=[f"{number}"]))
    await ledger.settled()
    before, _ = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US + 500)
    everybody = [f"{number}" for number in range(10)]
    await ledger.say(outcomes(900, [1.0] * 10, LATER_US + 100, client_ids=everybody))
    await ledger.settled()
    again, rows = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US + 500)
    assert again.content_sha256 == before.content_sha256
    assert rows["homeostat.known_at_us"].to_pylist() == [LATER_US + each for each in range(10)]
    # A correction dates the row anew, but not when the row was first known.
    await ledger.say(outcomes(901, [0.0], LATER_US + 200, client_ids=["3"]))
    await ledger.say(outcomes(902, [0.0], LATER_US + 300, client_ids=["3"]))
    await ledger.settled()
    _, newest = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US + 500, newest_rows=3)
    assert newest["homeostat.known_at_us"].to_pylist() == [LATER_US + each for each in (8, 9, 200)]
    assert newest["homeostat.first_known_at_us"].to_pylist() == [
        LATER_US + each for each in (8, 9, 3)
    ]


async def test_a_cut_of_nothing_is_empty_and_of_an_unknown_model_not_found(
    ledger: LedgerUnderTest,
) -> None:
    await ledger.say(a_block(1))
    await ledger.settled()
    header, rows = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US)
    assert (header.row_count, rows.num_rows) == (0, 0)
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await ledger.cut(model_name="nobody", known_at_most_us=LATER_US)
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_prediction_is_found_by_its_id_and_by_the_clients(ledger: LedgerUnderTest) -> None:
    await ledger.say(a_block(1, client_ids=["a", "b"]), a_block(2, client_ids=["b"]))
    await ledger.say(outcomes(1, [1.0], LATER_US, client_ids=["b"]))
    await ledger.settled()
    answer = await ledger.api.LookUpPrediction(
        LookUpPredictionRequest(prediction_id=prediction_id(block_id(1), 1))
    )
    (found,) = answer.predictions
    assert {each.name: each.number or each.text for each in found.inputs} == {
        "distance": 11.0,
        "carrier": "DL",
    }
    assert [(each.truth, each.revision, each.source) for each in found.truths] == [
        (1.0, 1, "tests")
    ]
    under = await ledger.api.LookUpPrediction(
        LookUpPredictionRequest(client_id="b", model_name=MODEL)
    )
    assert [each.prediction_id for each in under.predictions] == [
        prediction_id(block_id(1), 1),
        prediction_id(block_id(2), 0),
    ]
    archived = await ledger.api.AreArchived(
        AreArchivedRequest(block_ids=[block_id(2), block_id(9)])
    )
    assert list(archived.are_archived) == [True, False]
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await ledger.api.LookUpPrediction(
            LookUpPredictionRequest(prediction_id=prediction_id(block_id(1), 2))
        )
    assert unknown.value.code() == grpc.StatusCode.NOT_FOUND


async def test_many_small_files_are_merged_and_cuts_stay_the_same(ledger: LedgerUnderTest) -> None:
    for number in range(20):
        await ledger.say(a_block(number, client_ids=[f"{number}"]))
        await ledger.say(outcomes(number, [1.0], LATER_US + number, client_ids=[f"{number}"]))
        await ledger.settled()
        if number == 9:
            before, _ = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US + 9)

    async def is_merged() -> bool:
        return await ledger.files() < 16

    await eventually(is_merged, what="files are merged")
    after, _ = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US + 9)
    assert after.content_sha256 == before.content_sha256
    _, everything = await ledger.cut(model_name=MODEL, known_at_most_us=LATER_US + 30)
    assert everything["distance"].to_pylist() == [10.0 * number for number in range(20)]
