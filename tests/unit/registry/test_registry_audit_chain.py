"""No entry of the audit chain is altered, removed, added or moved unseen."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from homeostat import audit
from homeostat.registry.v1.registry_pb2 import AuditEntry

words = st.text(max_size=12)


def a_chain(details: list[tuple[str, str, str]]) -> list[AuditEntry]:
    entries: list[AuditEntry] = []
    previous = audit.GENESIS
    for index, (actor, action, detail) in enumerate(details, 1):
        entry = AuditEntry(
            sequence=index,
            model_name="flights",
            actor=actor,
            action=action,
            detail=detail,
            previous_hash=previous,
            occurred_at=Timestamp(seconds=index),
        )
        entry.hash = previous = audit.entry_hash(entry)
        entries.append(entry)
    return entries


chains = st.lists(st.tuples(words, words, words), min_size=1, max_size=8).map(a_chain)


@given(chains)
def test_an_untouched_chain_holds(chain: list[AuditEntry]) -> None:
    assert audit.verify(chain) == len(chain)


@given(chains, st.data())
def test_an_altered_entry_is_noticed(chain: list[AuditEntry], data: st.DataObject) -> None:
    entry = data.draw(st.sampled_from(chain))
    field = data.draw(st.sampled_from(["model_name", "actor", "action", "detail"]))
    setattr(entry, field, getattr(entry, field) + "!")
    with pytest.raises(audit.BrokenChain, match=f"entry {entry.sequence}"):
        audit.verify(chain)


@given(chains, st.data())
def test_a_removed_entry_is_noticed(chain: list[AuditEntry], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(chain) - 1))
    rest = chain[:index] + chain[index + 1 :]
    if index == len(chain) - 1:
        assert audit.verify(rest) == len(rest)  # the end is known by its hash, kept elsewhere
    else:
        with pytest.raises(audit.BrokenChain):
            audit.verify(rest)


@given(chains)
def test_words_moved_from_field_to_field_are_noticed(chain: list[AuditEntry]) -> None:
    entry = chain[0]
    entry.actor, entry.action = entry.actor + "x", entry.action
    before = audit.entry_hash(entry)
    entry.actor, entry.action = entry.actor[:-1], "x" + entry.action
    assert audit.entry_hash(entry) != before
