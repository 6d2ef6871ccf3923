"""Log files of supervised processes, rotated by size when a process starts."""

from pathlib import Path
from typing import IO

_LARGEST_BYTES = 16 * 2**20
_KEPT = 3


def open_log(data_folder: Path, name: str) -> IO[bytes]:
    """Opens `logs/<name>.log` for appending; one that is over 16 MiB is moved to `.1` before."""
    path = log_path(data_folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LARGEST_BYTES:
        _rotate(path)
    return path.open("ab")


def log_path(data_folder: Path, name: str) -> Path:
    """Where the process of this name writes."""
    return data_folder / "logs" / f"{name}.log"


def _rotate(path: Path) -> None:
    for number in range(_KEPT, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)
