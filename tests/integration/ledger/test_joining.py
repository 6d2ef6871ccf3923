"""Truth and predictions meet, once each, on a real broker and a real database."""

import numpy as np
from tests.integration.ledger.harness import LedgerUnderTest
from tests.support.ledger_events import SECRET, START_US, a_block, outcomes

from homeostat import checksum
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.ids import client_keys

LATER_US = START_US + 3_600_000_000


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
