"""How detectors are stored: named numbers and arrays, exact to the bit, with a checksum.

Never a pickle. What is not exactly what was written is refused.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.errors import CorruptState

_DIGEST_BYTES = 32
_LENGTH_BYTES = 4
# Little-endian kinds that a state may hold; nothing else is read.
_KINDS = frozenset({"<i8", "<i4", "<u8", "<u4", "<f8", "|u1", "|b1"})
# Far more than any detector keeps; a length beyond it is damage.
_MOST_BYTES = 64 * 2**20

Value = int | float | str | bool | None


@dataclass(frozen=True, slots=True)
class State:
    """``values`` are JSON scalars; ``arrays`` come back with dtype and shape, bit for bit."""

    values: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]


def pack(form: str, values: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes to store. ``form`` names what the numbers mean; change it when that changes."""
    stored = {name: np.ascontiguousarray(each) for name, each in arrays.items()}
    little = {name: each.astype(each.dtype.newbyteorder("<")) for name, each in stored.items()}
    for name, each in little.items():
        if each.dtype.str not in _KINDS:
            raise TypeError(f"{name} is of kind {each.dtype.str}, which a state cannot hold")
    head = json.dumps(
        {
            "form": form,
            "values": dict(values),
            "arrays": [[name, each.dtype.str, list(each.shape)] for name, each in little.items()],
        }
    ).encode()
    body = zlib.compress(b"".join(each.tobytes() for each in little.values()), 1)
    rest = len(head).to_bytes(_LENGTH_BYTES, "little") + head + body
    return hashlib.sha256(rest).digest() + rest


def unpack(form: str, data: bytes) -> State:
    """The opposite of pack; CorruptState where the bytes or their form are others."""
    rest = data[_DIGEST_BYTES:]
    if hashlib.sha256(rest).digest() != data[:_DIGEST_BYTES]:
        raise CorruptState("the state's checksum is wrong")
    end = _LENGTH_BYTES + int.from_bytes(rest[:_LENGTH_BYTES], "little")
    head = json.loads(rest[_LENGTH_BYTES:end])
    if head["form"] != form:
        raise CorruptState(f"the state is of the form {head['form']!r}, not {form!r}")
    inflate = zlib.decompressobj()
    body = inflate.decompress(rest[end:], _MOST_BYTES)
    arrays: dict[str, NDArray[Any]] = {}
    at = 0
    for name, kind, shape in head["arrays"]:
        each = np.frombuffer(body, dtype=kind, count=int(np.prod(shape)), offset=at)
        at += each.nbytes
        arrays[name] = each.reshape(shape).copy()
    return State(head["values"], arrays)
