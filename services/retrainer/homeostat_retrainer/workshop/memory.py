"""Memory that a job needed and nobody needs now goes back to the machine."""

import contextlib
import ctypes

import pyarrow as pa

# Larger blocks are mapped one by one, so that freeing them gives them back. Without a fixed number
# glibc raises its own to the largest block freed so far.
_MAPPED_BYTES = 512 * 1024
_M_MMAP_THRESHOLD = -3


def be_frugal() -> None:
    """To be called once, before much is allocated."""
    # pyarrow's own pools keep what they had; and a table of ours needs no second thread.
    pa.set_memory_pool(pa.system_memory_pool())
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    with contextlib.suppress(AttributeError, OSError):
        # Of glibc; elsewhere there is none.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def give_back() -> None:
    """Between jobs: allocators otherwise keep what the longest window took."""
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
