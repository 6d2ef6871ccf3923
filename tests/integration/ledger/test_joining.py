"""Truth and predictions meet, once each, on a real broker and a real database."""

from dataclasses import replace

import numpy as np
from tests.integration.ledger.harness import LedgerUnderTest
from tests.support.ledger_events import SECRET, START_US, a_block, outcomes
from tests.support.waiting import eventually

from homeostat import checksum
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, ARM_SHADOW
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.ids import client_keys
from homeostat.topics import JOINED, OUTCOMES

LATER_US = START_US + 3_600_000_000
DAY_US = 86_400_000_000


def rows(blocks: list[JoinedBlock]) -> list[tuple[float, int, int]]:
    """(truth, known-at, revision) of all rows."""
    found: list[tuple[float, int, int]] = []
    for block in blocks:
        found += zip(
            np.frombuffer(block.truths, "<f8").tolist(),
            np.frombuffer(block.known_at_us, "<i8").tolist(),
            np.frombuffer(block.revisions, "<u4").tolist(),
            strict=True,
        )
    return found


async def test_truth_by_client_id_joins_every_prediction_under_it(ledger: LedgerUnderTest) -> None:
    await ledger.say(a_block(1, client_ids=["a", "b"]), a_block(2, client_ids=["a"]))
    await ledger.settled()
    await ledger.say(outcomes(1, [1.0, 0.0], LATER_US, client_ids=["a", "b"]))
    await ledger.settled()
    counted = await ledger.statistics()
    assert (counted.predictions, counted.blocks, counted.outcomes_received) == (3, 2, 2)
    assert counted.predictions_joined == 3
    assert counted.joined_checksum == checksum.of_client_keys(
        client_keys(SECRET, ["a", "a", "b"]), [1.0, 1.0, 0.0], [LATER_US] * 3
    )
    joined = await ledger.joined()
    assert sorted(rows(joined)) == [(0.0, LATER_US, 1), (1.0, LATER_US, 1), (1.0, LATER_US, 1)]
    assert joined[0].contexts[0].name == "origin"


async def test_a_block_that_comes_twice_counts_once(ledger: LedgerUnderTest) -> None:
    block, truth = a_block(1, client_ids=["a"]), outcomes(1, [1.0], LATER_US, client_ids=["a"])
    await ledger.say(block, truth)
    await ledger.settled()
    await ledger.say(block, block, truth)
    await ledger.settled()
    counted = await ledger.statistics()
    assert (counted.predictions, counted.duplicate_blocks) == (1, 2)
    assert (counted.outcomes_received, counted.predictions_joined) == (1, 1)
    assert counted.outcomes_repeated == 0
    assert rows(await ledger.joined()) == [(1.0, LATER_US, 1)]


async def test_truth_that_comes_first_waits_for_its_prediction(ledger: LedgerUnderTest) -> None:
    await ledger.say(
        outcomes(1, [1.0], LATER_US, client_ids=["a"]),
        outcomes(2, [0.0], LATER_US, predictions=[(2, 1)]),
    )
    await ledger.settled()
    waiting = await ledger.statistics()
    assert (waiting.outcomes_parked, waiting.predictions_joined) == (2, 0)
    await ledger.say(a_block(1, client_ids=["a"]), a_block(2))
    await ledger.settled()
    counted = await ledger.statistics()
    assert (counted.outcomes_parked, counted.predictions_joined) == (0, 2)
    await ledger.say(a_block(3, client_ids=["a"]))
    await ledger.settled()
    assert (await ledger.statistics()).predictions_joined == 3
    assert sorted(rows(await ledger.joined())) == [
        (0.0, LATER_US, 1),
        (1.0, LATER_US, 1),
        (1.0, LATER_US, 1),
    ]


async def test_the_last_correction_holds_whatever_came_last(ledger: LedgerUnderTest) -> None:
    await ledger.say(a_block(1, client_ids=["a"]))
    for number, (truth, at) in enumerate([(0.0, 1), (1.0, 3), (0.0, 2), (1.0, 3)]):
        await ledger.say(outcomes(number, [truth], LATER_US + at, client_ids=["a"]))
        await ledger.settled()
    counted = await ledger.statistics()
    assert (counted.predictions_joined, counted.corrections) == (1, 1)
    assert (counted.outcomes_received, counted.outcomes_repeated) == (4, 2)
    joined = await ledger.joined()
    assert rows(joined) == [(0.0, LATER_US + 1, 1), (1.0, LATER_US + 3, 2)]
    assert np.frombuffer(joined[1].previous_truths, "<f8").tolist() == [0.0]
    assert counted.joined_checksum == checksum.of_client_keys(
        client_keys(SECRET, ["a"]), [1.0], [LATER_US + 3]
    )


async def test_a_clients_own_id_is_hashed_here_where_its_producer_can_not(
    ledger: LedgerUnderTest,
) -> None:
    await ledger.say(a_block(1, client_ids=["a", "b"]))
    await ledger.say(outcomes(1, [1.0, 1.0], LATER_US, client_ids=["b", "zz"], are_raw=True))
    await ledger.settled()
    counted = await ledger.statistics()
    assert (counted.predictions_joined, counted.outcomes_parked) == (1, 1)


async def test_shadow_rows_are_told_but_not_counted(ledger: LedgerUnderTest) -> None:
    await ledger.say(
        a_block(1, client_ids=["a"]), a_block(2, client_ids=["a"], arm=ARM_SHADOW, version=2)
    )
    await ledger.say(outcomes(1, [1.0], LATER_US, client_ids=["a"]))
    await ledger.settled()
    counted = await ledger.statistics()
    assert (counted.predictions, counted.predictions_joined) == (1, 1)
    assert {(each.version, each.arm) for each in await ledger.joined()} == {
        (1, ARM_CHAMPION),
        (2, ARM_SHADOW),
    }


async def test_the_watermark_is_forwarded_after_the_blocks_it_promises(
    ledger: LedgerUnderTest,
) -> None:
    await ledger.say(a_block(1, client_ids=["a"]))
    await ledger.say(outcomes(1, [1.0], LATER_US, client_ids=["a"]))
    await ledger.mark(LATER_US + 1)
    await ledger.settled()
    assert (await ledger.progress()).watermark_us == LATER_US + 1
    joined = await ledger.joined()
    marks = [each for each in joined if each.HasField("watermark")]
    assert [each.watermark.watermark_us for each in marks] == [LATER_US + 1] * JOINED.partitions
    assert len(joined) == JOINED.partitions + 1


async def test_every_value_of_the_watermark_is_forwarded_however_polls_cut_the_stream(
    stopped_ledger: LedgerUnderTest,
) -> None:
    for at in (1, 2, 3):
        await stopped_ledger.mark(LATER_US + at)
    await stopped_ledger.start_here()
    await stopped_ledger.settled()
    marks = [each.watermark.watermark_us for each in await stopped_ledger.joined()]
    assert sorted(marks) == sorted([LATER_US + at for at in (1, 2, 3)] * JOINED.partitions)


async def test_truth_for_an_unknown_id_is_given_up_after_its_time(ledger: LedgerUnderTest) -> None:
    await ledger.say(outcomes(1, [1.0, 0.0], LATER_US, client_ids=["never", "nowhere"]))
    await ledger.say(outcomes(2, [1.0], LATER_US, predictions=[(77, 3)]))
    await ledger.mark(LATER_US + 89 * DAY_US)
    await ledger.settled()
    assert (await ledger.statistics()).outcomes_parked == 3
    await ledger.mark(LATER_US + 91 * DAY_US)
    await eventually_counted(ledger, outcomes_dead_lettered=3, outcomes_parked=0)
    letters = await ledger.read_all(replace(OUTCOMES, name=OUTCOMES.dead_letter, partitions=1), 1)
    assert sum(message.row_count for _, message in letters) == 3
    assert {received.header("reason") for received, _ in letters} == {
        "no prediction came for it in time"
    }
    assert not any(message.truths for _, message in letters)


async def eventually_counted(ledger: LedgerUnderTest, **expected: int) -> None:
    async def is_so() -> bool:
        counted = await ledger.statistics()
        return all(getattr(counted, name) == value for name, value in expected.items())

    await eventually(is_so, what=str(expected))
