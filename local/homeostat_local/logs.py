"""Log files of supervised processes, bounded in size, at a process's start and while it runs."""

import os
import shutil
from pathlib import Path
from typing import IO

_LARGEST_BYTES = 16 * 2**20
_KEPT = 3


def open_log(data_folder: Path, name: str) -> IO[bytes]:
    """Opens `logs/<name>.log` for appending; one that is over 16 MiB is moved to `.1` before."""
    path = log_path(data_folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_full(path):
        _make_way(path)
        path.replace(_older(path, 1))
    return path.open("ab")


def cut_log(data_folder: Path, name: str) -> bool:
    """Copies a log over 16 MiB to `.1` and empties it, for a process that goes on writing to it.

    True if it did. Lines written between copy and cut are lost; without room for the copy, all are.
    """
    path = log_path(data_folder, name)
    if not _is_full(path):
        return False
    _make_way(path)
    copy = _older(path, 1)
    try:
        shutil.copyfile(path, copy)
    except OSError:
        copy.unlink(missing_ok=True)
    # Whoever writes has it open for appending, so that it goes on at the new end.
    os.truncate(path, 0)
    return True


def log_path(data_folder: Path, name: str) -> Path:
    """Where the process of this name writes."""
    return data_folder / "logs" / f"{name}.log"


def _is_full(path: Path) -> bool:
    return path.exists() and path.stat().st_size > _LARGEST_BYTES


def _make_way(path: Path) -> None:
    """The oldest goes, the others get one older."""
    for number in range(_KEPT, 1, -1):
        if _older(path, number - 1).exists():
            _older(path, number - 1).replace(_older(path, number))


def _older(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
