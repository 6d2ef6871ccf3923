"""The audit chain: each entry's hash covers the one before, so no entry is altered unseen."""

import hashlib
from collections.abc import Iterable

from homeostat.registry.v1.registry_pb2 import AuditEntry

# Before the first entry.
GENESIS = bytes(32)


class BrokenChain(ValueError):
    """An entry was altered, removed or added; the message names the first one that does not fit."""


def entry_hash(entry: AuditEntry) -> bytes:
    """sha256 over the previous hash and every field, each with its length before it."""
    digest = hashlib.sha256(entry.previous_hash)
    for part in (
        str(entry.sequence),
        entry.model_name,
        entry.action,
        entry.actor,
        entry.detail,
        str(entry.occurred_at.ToMicroseconds()),
    ):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def verify(entries: Iterable[AuditEntry]) -> int:
    """How many entries stand in an unbroken chain from the first; BrokenChain otherwise.

    Entries of all models, in the order of their sequence: the chain is one for the registry.
    """
    previous = GENESIS
    count = 0
    for count, entry in enumerate(entries, 1):
        if entry.sequence != count:
            raise BrokenChain(f"entry {count} is missing: the next one is {entry.sequence}")
        if entry.previous_hash != previous:
            raise BrokenChain(f"entry {entry.sequence} does not follow the one before it")
        if entry.hash != entry_hash(entry):
            raise BrokenChain(f"entry {entry.sequence} ({entry.action}) was altered")
        previous = entry.hash
    return count
