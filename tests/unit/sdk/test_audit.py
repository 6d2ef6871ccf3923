"""The chain shows every tampering."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from homeostat.audit import GENESIS, BrokenChain, entry_hash, verify
from homeostat.registry.v1.registry_pb2 import AuditEntry


def a_chain(length: int) -> list[AuditEntry]:
    chain: list[AuditEntry] = []
    for number in range(1, length + 1):
        entry = AuditEntry(
            sequence=number,
            model_name="m",
            action="promoted",
            actor="gate",
            detail="{}",
            previous_hash=chain[-1].hash if chain else GENESIS,
            occurred_at=Timestamp(seconds=number),
        )
        entry.hash = entry_hash(entry)
        chain.append(entry)
    return chain


def test_a_whole_chain_is_verified() -> None:
    assert verify(a_chain(5)) == 5


@given(st.integers(0, 4), st.sampled_from(["model_name", "action", "actor", "detail"]))
def test_an_altered_field_is_seen(position: int, field: str) -> None:
    chain = a_chain(5)
    setattr(chain[position], field, "altered")
    with pytest.raises(BrokenChain, match=f"entry {position + 1}"):
        verify(chain)


def test_an_altered_and_rehashed_entry_is_seen_at_the_next() -> None:
    chain = a_chain(3)
    chain[1].actor = "somebody"
    chain[1].hash = entry_hash(chain[1])
    with pytest.raises(BrokenChain, match="entry 3 does not follow"):
        verify(chain)


def test_a_removed_entry_is_seen() -> None:
    chain = a_chain(4)
    del chain[1]
    with pytest.raises(BrokenChain, match="entry 2 is missing"):
        verify(chain)
