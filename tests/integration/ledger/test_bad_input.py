"""What can't be true or can't be read is dead-lettered with its reason; the rest goes on."""

import time
from dataclasses import replace

import pytest
from tests.integration.ledger.harness import LedgerUnderTest
from tests.support.ledger_events import START_US, a_block, block_id, outcomes

from homeostat.ledger.v1.ledger_pb2 import AreArchivedRequest
from homeostat.topics import OUTCOMES, PREDICTIONS, Topic

LATER_US = START_US + 3_600_000_000
NOT_UTF8 = [("traceparent", b"\xff\xfe"), ("ce_id", b"\xc3\x28")]


async def reasons(ledger: LedgerUnderTest, topic: Topic, count: int) -> list[str]:
    letters = await ledger.read_all(replace(topic, name=topic.dead_letter, partitions=1), count)
    return sorted(received.header("reason") or "" for received, _ in letters)


@pytest.mark.parametrize("topic", [PREDICTIONS, OUTCOMES], ids=lambda each: each.name)
async def test_garbage_is_dead_lettered_and_what_follows_is_taken(
    ledger: LedgerUnderTest, topic: Topic
) -> None:
    await ledger.say_raw(topic, b"\xff\xff\xff garbage", NOT_UTF8)
    await ledger.say_raw(topic, b"", NOT_UTF8)
    good = a_block(1, client_ids=["a"])
    await ledger.say_raw(PREDICTIONS, good.SerializeToString(), NOT_UTF8)
    await ledger.settled()
    assert len(await reasons(ledger, topic, 2)) == 2
    assert (await ledger.statistics()).predictions == 1


async def test_blocks_that_do_not_fit_their_contract_are_refused(ledger: LedgerUnderTest) -> None:
    short, unnamed, wild = a_block(1), a_block(2), a_block(3)
    short.scores = short.scores[:-1]
    unnamed.model_name = ""
    wild.inputs[1].dictionary.pop()
    await ledger.say(short, unnamed, wild, a_block(4))
    await ledger.settled()
    found = await reasons(ledger, PREDICTIONS, 3)
    assert [each.split(" ")[0] for each in found] == ["column", "scores", "the"]
    assert (await ledger.statistics()).blocks == 1


async def test_times_in_the_far_future_are_refused(ledger: LedgerUnderTest) -> None:
    far = int(time.time() * 1e6) + 400 * 86_400_000_000
    await ledger.say(a_block(1, event_times_us=[START_US, far, START_US]), a_block(2, rows=1))
    await ledger.say(
        outcomes(1, [1.0, 0.0], [LATER_US, far], predictions=[(2, 0), (2, 0)]),
        outcomes(2, [float("nan")], LATER_US, predictions=[(2, 0)]),
    )
    await ledger.mark(far)
    await ledger.settled()
    assert await reasons(ledger, PREDICTIONS, 5) == [
        *["a watermark is too far in the future"] * 4,
        "an event time is too far in the future",
    ]
    assert not (await ledger.progress()).HasField("watermark_us")
    assert await reasons(ledger, OUTCOMES, 6) == [
        "1 rows: a known-at time is too far in the future",
        "1 rows: a truth is not finite",
        *["a watermark is too far in the future"] * 4,
    ]
    counted = await ledger.statistics()
    assert (counted.predictions, counted.predictions_joined) == (1, 1)
    assert (counted.outcomes_received, counted.outcomes_dead_lettered) == (3, 2)


async def test_what_was_set_aside_is_said_so_and_never_asked_for_again(
    ledger: LedgerUnderTest,
) -> None:
    short, odd = a_block(1), a_block(2)
    short.scores = short.scores[:-1]
    odd.origin_block_id = block_id(9)
    unreadable = outcomes(3, [1.0], LATER_US, predictions=[(4, 0)])
    unreadable.truths = b""
    partly = outcomes(4, [float("nan"), 1.0], LATER_US, predictions=[(4, 0), (4, 0)])
    await ledger.say(short, odd, unreadable, partly, a_block(4))
    await ledger.settled()
    asked = [short, odd, unreadable, partly, a_block(4), a_block(5)]
    answer = await ledger.api.AreArchived(
        AreArchivedRequest(block_ids=[each.block_id for each in asked])
    )
    assert list(answer.are_set_aside) == [True, True, True, False, False, False]
    assert list(answer.are_archived) == [False, False, False, True, True, False]
