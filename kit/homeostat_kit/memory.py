"""Memory that a burst took is given back to the machine: allocators would keep it for the next."""

import ctypes
import os
import sys
from typing import Any

# Larger blocks are mapped one by one, so that freeing them gives them back. Without a fixed number
# glibc raises its own to the largest block freed so far, and a heap with one small block at its
# end keeps everything below.
_MAPPED_BYTES = 512 * 1024
_M_MMAP_THRESHOLD = -3


def be_frugal(*, arrow_threads: int | None = None) -> None:
    """To be called once, before much is allocated, whether pyarrow is imported yet or not.

    ``arrow_threads``: so many at most; for a process that has pyarrow (it is imported).
    """
    # pyarrow's own pools keep what they had.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    arrow = _arrow()
    if arrow is not None:
        arrow.set_memory_pool(arrow.system_memory_pool())
    if arrow_threads is not None:
        import pyarrow as pa  # noqa: PLC0415 - not for those who do without

        pa.set_cpu_count(arrow_threads)
        pa.set_io_thread_count(arrow_threads)
    library = _c_library()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def give_back() -> None:
    """Returns free pages to the system: some milliseconds, in any thread."""
    arrow = _arrow()
    if arrow is not None:
        arrow.default_memory_pool().release_unused()
    library = _c_library()
    if library is not None:
        library.malloc_trim(0)


def _arrow() -> Any:
    """pyarrow where the process has it already; nobody pays its import for this."""
    return sys.modules.get("pyarrow")


def _c_library() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    # Of glibc only.
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
