"""What calibration took is given back to the system: the C library would keep it for later."""

import ctypes
import os
import sys

# Larger blocks are mapped one by one, so that freeing them gives them back. Without a fixed number
# glibc raises its own to the largest block freed so far, and a heap with one small block at its
# end keeps everything below.
_MAPPED_BYTES = 512 * 1024
_M_MMAP_THRESHOLD = -3


def _c_library() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    # Of glibc only.
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None


def be_frugal() -> None:
    """To be called once, before much is allocated and before pyarrow is imported."""
    # pyarrow's own pools keep what they had.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    library = _c_library()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def give_back() -> None:
    """Returns free pages to the system: some milliseconds, in any thread."""
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)
