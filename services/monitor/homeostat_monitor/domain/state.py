"""How detectors are stored: named numbers and arrays, exact to the bit, with a checksum.

Never a pickle. What is not exactly what was written is refused.
"""

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.errors import CorruptState

_DIGEST_BYTES = 32
_LENGTH_BYTES = 4
# Little-endian kinds that a state may hold; nothing else is read.
_KINDS = frozenset({"<i8", "<i4", "<u8", "<u4", "<f8", "|u1", "|b1"})
# A calendar of 1,000 features takes 40 MB; a length far beyond it is damage.
_MOST_BYTES = 256 * 2**20

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
    with unreadable("the state"):
        head = json.loads(rest[_LENGTH_BYTES:end])
        stored, values, listed = head["form"], dict(head["values"]), list(head["arrays"])
    if stored != form:
        raise CorruptState(f"the state is of the form {stored!r}, not {form!r}")
    with unreadable("the state"):
        return State(values, _arrays(listed, rest[end:]))


@contextmanager
def unreadable(what: str) -> Iterator[None]:
    """CorruptState for whatever goes wrong while this is put together from what was stored."""
    try:
        yield
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        raise CorruptState(f"{what} cannot be read: {error!r:.200}") from error


def _arrays(listed: Sequence[Any], packed: bytes) -> dict[str, NDArray[Any]]:
    """What was named, if it is exactly what was packed. No more is unpacked than was named."""
    if any(kind not in _KINDS or min(shape, default=0) < 0 for _, kind, shape in listed):
        raise ValueError("an array of a kind or shape that is never stored")
    sizes = [math.prod(shape) * np.dtype(kind).itemsize for _, kind, shape in listed]
    if sum(sizes) > _MOST_BYTES:
        raise ValueError(f"arrays of {sum(sizes)} bytes")
    inflate = zlib.decompressobj()
    body = inflate.decompress(packed, sum(sizes) + 1)
    if len(body) != sum(sizes) or not inflate.eof or inflate.unused_data:
        raise ValueError("the arrays are not as long as they are said to be")
    view, at = memoryview(body), 0
    arrays: dict[str, NDArray[Any]] = {}
    for (name, kind, shape), size in zip(listed, sizes, strict=True):
        arrays[name] = np.frombuffer(view[at : at + size], dtype=kind).reshape(shape).copy()
        at += size
    return arrays
