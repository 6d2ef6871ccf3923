"""The checksum that a client and the ledger both compute."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from homeostat import checksum
from homeostat.ids import client_keys, pack_prediction_id

SECRET = b"secret"


def test_the_hash_is_splitmix64() -> None:
    # The first two outputs of splitmix64 seeded with 0.
    seeds = np.array([0, 0x9E3779B97F4A7C15], dtype=np.uint64)
    assert checksum.mix(seeds).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


@given(st.permutations(range(6)))
def test_order_does_not_count(order: list[int]) -> None:
    ids = [f"flight {each}" for each in range(6)]
    truths, known_at = np.arange(6) * 0.5, np.arange(6) * 10
    whole = checksum.of_client_keys(client_keys(SECRET, ids), truths, known_at)
    shuffled = client_keys(SECRET, [ids[each] for each in order])
    assert checksum.of_client_keys(shuffled, truths[order], known_at[order]) == whole


def test_parts_add_up() -> None:
    keys = client_keys(SECRET, ["a", "b"])
    both = checksum.of_client_keys(keys, [1.0, 0.0], [5, 6])
    first = checksum.of_client_keys(keys[:16], [1.0], [5])
    second = checksum.of_client_keys(keys[16:], [0.0], [6])
    assert (first + second) % 2**64 == both


def test_everything_that_differs_counts() -> None:
    block = bytes(range(16))
    ids = [pack_prediction_id(block, 0), pack_prediction_id(block, 1)]
    seen = {
        checksum.of_prediction_ids(ids[0], [1.0], [5]),
        checksum.of_prediction_ids(ids[1], [1.0], [5]),
        checksum.of_prediction_ids(ids[0], [0.0], [5]),
        checksum.of_prediction_ids(ids[0], [1.0], [6]),
        checksum.of_client_keys(block, [1.0], [5]),
    }
    assert len(seen) == 5
    assert checksum.of_prediction_ids(ids[0], [-0.0], [5]) == checksum.of_prediction_ids(
        ids[0], [0.0], [5]
    )
    assert checksum.of_client_keys(b"", [], []) == 0
