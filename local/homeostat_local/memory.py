"""How much memory processes take in truth: PSS, where shared pages count once."""

from collections.abc import Iterable
from pathlib import Path

import psutil

_MIB = 2**20


def tree(pid: int) -> list[int]:
    """The process and all that descend from it; empty if it is gone."""
    try:
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.Error:
        return []


def pss_mib(pids: Iterable[int]) -> float:
    """Sum of the proportional set sizes in MiB; a process that is gone or not ours counts zero."""
    return sum(map(_pss_bytes, set(pids))) / _MIB


def rss_mib(pid: int) -> float:
    """Resident memory of one process in MiB; zero if it is gone."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / _MIB
    except psutil.Error:
        return 0.0


def _pss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0
