"""Ids are what the standards say, and what was put into them comes out again."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat import ids


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_block_ids_are_uuid_version_7(now_ms: int, random: bytes) -> None:
    found = uuid.UUID(bytes=ids.new_block_id(now_ms, random))
    assert found.version == 7
    assert found.variant == uuid.RFC_4122
    assert found.int >> 80 == now_ms


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1))
def test_a_prediction_id_is_read_back(block_id: bytes, row: int) -> None:
    assert ids.parse_prediction_id(ids.prediction_id(block_id, row)) == (block_id, row)


@pytest.mark.parametrize("text", ["", "x", "00-1", f"{'0' * 32}-01", f"{'0' * 32}-{2**32}"])
def test_what_is_no_prediction_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a prediction id"):
        ids.parse_prediction_id(text)


def test_many_client_keys_are_each_clients_key() -> None:
    secret = b"s" * 32
    assert ids.client_keys(secret, ["a", "", "b"]) == (
        ids.client_key(secret, "a") + ids.NO_CLIENT_KEY + ids.client_key(secret, "b")
    )


def test_client_keys_depend_on_the_secret() -> None:
    assert ids.client_key(b"one", "a") != ids.client_key(b"two", "a")


def test_event_ids_tell_parts_apart() -> None:
    assert ids.event_id("ab", "c") != ids.event_id("a", "bc")
    assert ids.event_id("a", 1) == ids.event_id("a", 1)
