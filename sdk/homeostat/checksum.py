"""An order-free checksum over joined truth, so that a client can prove that all it sent was joined.

Each prediction that has a truth is one 64-bit hash of (who it is, its last truth, when that was
known); the checksum is their sum modulo 2^64. Who it is: the 16-byte key of the client's own id
where the prediction has one (`homeostat.ids.client_keys`), else the 20-byte prediction id.
The hash is a chain of splitmix64 finalisers over little-endian 64-bit words:
key[0:8], key[8:16], row (2^32 for a client key), the truth's float64 bits (-0.0 as 0.0), known-at.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_CLIENT_ROW = np.uint64(2**32)
_PREDICTION_ID = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4")])


def mix(words: Words) -> Words:
    """splitmix64: every bit of the input moves every bit of the output."""
    words = words + _GOLDEN
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))


def hashes(
    high: Words, low: Words, rows: Words, truths: NDArray[np.float64], known_at: NDArray[np.int64]
) -> Words:
    """One hash per prediction; ``high`` and ``low`` are the halves of the 16-byte id, read
    little-endian, ``rows`` 2^32 where that id is a client key."""
    chain = mix(high)
    bits = (np.asarray(truths, dtype=np.float64) + 0.0).view(np.uint64)
    for word in (low, rows, bits, np.asarray(known_at, dtype=np.int64).view(np.uint64)):
        chain = mix(chain ^ word)
    return chain


def total(each: Words) -> int:
    """The sum modulo 2^64."""
    return int(each.sum(dtype=np.uint64))


def of_client_keys(keys: bytes, truths: ArrayLike, known_at_us: ArrayLike) -> int:
    """Checksum of truths by client key: 16 bytes, a truth and a known-at (us) per prediction."""
    halves = np.frombuffer(keys, dtype="<u8").reshape(-1, 2).astype(np.uint64)
    rows = np.full(len(halves), _CLIENT_ROW)
    return total(
        hashes(
            halves[:, 0],
            halves[:, 1],
            rows,
            np.asarray(truths, dtype=np.float64),
            np.asarray(known_at_us, dtype=np.int64),
        )
    )


def of_prediction_ids(ids: bytes, truths: ArrayLike, known_at_us: ArrayLike) -> int:
    """Checksum of truths by prediction id: 20 bytes, one truth and one known-at (us) each."""
    packed = np.frombuffer(ids, dtype=_PREDICTION_ID)
    return total(
        hashes(
            packed["high"].astype(np.uint64),
            packed["low"].astype(np.uint64),
            packed["row"].astype(np.uint64),
            np.asarray(truths, dtype=np.float64),
            np.asarray(known_at_us, dtype=np.int64),
        )
    )
