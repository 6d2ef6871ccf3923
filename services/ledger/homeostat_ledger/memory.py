"""What a cut took is given back to the system: allocators would keep it for the next one."""

import ctypes
import sys

import pyarrow as pa

# Larger blocks are mapped one by one, so that freeing them gives them back. Without a fixed number
# glibc raises its own to the largest block freed so far.
_MAPPED_BYTES = 512 * 1024
_M_MMAP_THRESHOLD = -3


def be_frugal() -> None:
    """To be called once, before much is allocated."""
    # pyarrow's own pools keep what they had.
    pa.set_memory_pool(pa.system_memory_pool())
    library = _c_library()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def give_back() -> None:
    """Returns free pages to the system: some milliseconds, in any thread."""
    pa.default_memory_pool().release_unused()
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


def _c_library() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    # Of glibc only.
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
