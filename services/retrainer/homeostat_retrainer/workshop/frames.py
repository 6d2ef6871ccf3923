"""What goes through the pipe to a worker: a JSON header and bytes, each with its length."""

import io
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

_LENGTH = struct.Struct("<Q")
LENGTH_BYTES = _LENGTH.size


def encode(header: Mapping[str, Any], blobs: Sequence[bytes] = ()) -> bytes:
    """One frame: its length, the header's length, the header, the blobs."""
    head = json.dumps({**header, "blob_bytes": [len(blob) for blob in blobs]}).encode()
    body = b"".join((_LENGTH.pack(len(head)), head, *blobs))
    return _LENGTH.pack(len(body)) + body


def body_bytes(prefix: bytes) -> int:
    """How many bytes follow the first eight."""
    return int(_LENGTH.unpack(prefix)[0])


def decode(body: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Header and blobs of a frame without its first eight bytes."""
    start = LENGTH_BYTES + int(_LENGTH.unpack_from(body)[0])
    header = json.loads(body[LENGTH_BYTES:start])
    blobs = []
    for length in header.pop("blob_bytes"):
        blobs.append(body[start : start + length])
        start += length
    return header, blobs


def pack_table(table: pa.Table) -> bytes:
    """Arrow IPC."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack_table(content: bytes) -> pa.Table:
    """From Arrow IPC."""
    return pa.ipc.open_stream(content).read_all()
