"""How much memory a process may ask for."""

import resource
from pathlib import Path

# Beyond what makes a worker be replaced: what a single allocation may still take.
_SPARE = 1.5


def bound_memory(worker_memory_bytes: int, spare_bytes: int = 0) -> None:
    """One giant allocation is to fail in the model that asks for it, not to end this machine.
    ``spare_bytes``: what is reserved besides, and costs nothing until it is written."""
    data_bytes = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    limit = data_bytes + round(worker_memory_bytes * _SPARE) + spare_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
