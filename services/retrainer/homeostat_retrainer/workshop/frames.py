"""What goes through the pipe to a worker: a JSON header and bytes, each with its length."""

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_LENGTH = struct.Struct("<Q")
LENGTH_BYTES = _LENGTH.size

Blob = bytes | memoryview


def encode(header: Mapping[str, Any], blobs: Sequence[Blob] = ()) -> list[Blob]:
    """One frame, in parts to be written one after the other: its length, the header's length, the
    header; then the blobs as they are, since a training set should not be copied.
    """
    head = json.dumps({**header, "blob_bytes": [len(blob) for blob in blobs]}).encode()
    length = LENGTH_BYTES + len(head) + sum(len(blob) for blob in blobs)
    return [b"".join((_LENGTH.pack(length), _LENGTH.pack(len(head)), head)), *blobs]


def body_bytes(prefix: bytes) -> int:
    """How many bytes follow the first eight."""
    return int(_LENGTH.unpack(prefix)[0])


def decode(body: bytes) -> tuple[dict[str, Any], list[memoryview]]:
    """Header and blobs of a frame without its first eight bytes; the blobs are views."""
    view = memoryview(body)
    start = LENGTH_BYTES + int(_LENGTH.unpack_from(body)[0])
    header = json.loads(bytes(view[LENGTH_BYTES:start]))
    blobs = []
    for length in header.pop("blob_bytes"):
        blobs.append(view[start : start + length])
        start += length
    return header, blobs


def pack_table(table: pa.Table) -> memoryview:
    """Arrow IPC."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def unpack_table(content: Blob) -> pa.Table:
    """From Arrow IPC; it stays where it is."""
    return pa.ipc.open_stream(pa.py_buffer(content)).read_all()
