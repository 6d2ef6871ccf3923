"""Memory that a job needed and nobody needs now goes back to the machine."""

import contextlib
import ctypes

import pyarrow as pa


def give_back() -> None:
    """Between jobs: allocators otherwise keep what the longest window took."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):
        # Of glibc; elsewhere there is none.
        ctypes.CDLL(None).malloc_trim(0)
