"""Identifiers: blocks, predictions, clients' own ids and events."""

import hashlib
import re
from collections.abc import Sequence

BLOCK_ID_BYTES = 16
PREDICTION_ID_BYTES = 20
CLIENT_KEY_BYTES = 16
NO_CLIENT_KEY = bytes(CLIENT_KEY_BYTES)

_PREDICTION_ID = re.compile(r"([0-9a-f]{32})-(0|[1-9][0-9]{0,9})")
_MAX_ROW = 2**32 - 1


def new_block_id(now_ms: int, random: bytes) -> bytes:
    """A UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then ``random`` (10 bytes)."""
    if len(random) != 10:
        raise ValueError(f"a block id needs 10 random bytes, got {len(random)}")
    head = now_ms.to_bytes(6, "big")
    version = bytes([0x70 | random[0] & 0x0F, random[1]])
    variant = bytes([0x80 | random[2] & 0x3F])
    return head + version + variant + random[3:]


def prediction_id(block_id: bytes, row: int) -> str:
    """The text form that clients see: 32 hex digits, a hyphen, the row's index."""
    return f"{block_id.hex()}-{row}"


def parse_prediction_id(text: str) -> tuple[bytes, int]:
    """Block id and row; ValueError with the expected form if it is not one."""
    match = _PREDICTION_ID.fullmatch(text)
    if match is None or int(match[2]) > _MAX_ROW:
        raise ValueError(f"not a prediction id: {text[:64]!r}; expected <32 hex digits>-<row>")
    return bytes.fromhex(match[1]), int(match[2])


def pack_prediction_id(block_id: bytes, row: int) -> bytes:
    """The 20-byte form that blocks carry."""
    return block_id + row.to_bytes(4, "little")


def client_key(secret: bytes, client_id: str) -> bytes:
    """Keyed BLAKE2b (RFC 7693) of a client's own id, so that the id itself is not stored."""
    return hashlib.blake2b(client_id.encode(), key=secret[:64], digest_size=16).digest()


def client_keys(secret: bytes, client_ids: Sequence[str]) -> bytes:
    """The keys of many ids, joined; an empty id has the all-zero key."""
    key = secret[:64]
    blake2b = hashlib.blake2b
    return b"".join(
        blake2b(each.encode(), key=key, digest_size=16).digest() if each else NO_CLIENT_KEY
        for each in client_ids
    )


def event_id(*parts: str | bytes | int) -> str:
    """32 hex digits derived from what happened: the same parts give the same id."""
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]
