"""How the journal lies on disk: segment files of records, which one process writes and others read.

A record is a head (payload length, CRC-32, kind) and a payload. Its position is its offset in the
concatenation of all segments ever written; a segment's file is named by the position of its first
record. The CRC is seeded with the position, so that what an earlier life of a recycled file left
behind never passes for a record. Kind 0 ends a segment's records.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEAD = struct.Struct("<IIB")
_SEED = struct.Struct("<QIB")
# Behind the last record; the next one is written over it.
TERMINATOR = bytes(HEAD.size)
SUFFIX = ".journal"
# Files that the reader has done with, for the writer to write again.
SPARE_FOLDER = "spare"
# A length beyond this is damage, not a record.
MAX_RECORD_BYTES = 1 << 30


class Record(NamedTuple):
    """One record and where it stands."""

    position: int
    # Where the next one stands.
    after: int
    kind: int
    payload: bytes


def frame(kind: int, payload: bytes, position: int) -> bytes:
    """A record as it stands in the file at ``position``."""
    length = len(payload)
    crc = zlib.crc32(payload, zlib.crc32(_SEED.pack(position, length, kind)))
    return HEAD.pack(length, crc, kind) + payload


def parse(data: bytes, position: int) -> Iterator[Record]:
    """The whole, undamaged records at the head of ``data``, which begins at ``position``."""
    at, size = 0, len(data)
    while at + HEAD.size <= size:
        length, crc, kind = HEAD.unpack_from(data, at)
        start = at + HEAD.size
        end = start + length
        if end > size or kind == 0 or length > MAX_RECORD_BYTES:
            return
        payload = data[start:end]
        if zlib.crc32(payload, zlib.crc32(_SEED.pack(position + at, length, kind))) != crc:
            return
        yield Record(position + at, position + end, kind, payload)
        at = end


def end_of_records(data: bytes, position: int) -> tuple[int, int]:
    """Behind the last whole record of a segment that begins at ``position``; and how many bytes of
    an unfinished one follow, as far as can be told."""
    end = position
    for record in parse(data, position):
        end = record.after
    rest = data[end - position :]
    head = rest[: HEAD.size]
    if not head.strip(b"\0"):
        return end, 0
    claimed = HEAD.size + (HEAD.unpack(head)[0] if len(head) == HEAD.size else 0)
    return end, min(claimed, len(rest))


def segment_path(folder: Path, start: int) -> Path:
    """The file of the segment whose first record stands at ``start``."""
    return folder / f"{start:020d}{SUFFIX}"


def found_starts(folder: Path) -> list[int]:
    """Where the segments in a folder begin, oldest first; nothing if it does not exist."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is needed
    except FileNotFoundError:
        return []
    stems = (each.removesuffix(SUFFIX) for each in names if each.endswith(SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdecimal())
