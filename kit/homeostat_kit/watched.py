"""Something made from files, made anew when they change: certificates, tokens."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from homeostat_kit import logs

Made = TypeVar("Made")
Signature = tuple[tuple[int, int, int] | None, ...]

_log = logs.get_logger("homeostat_kit.watched")


class Watched(Generic[Made]):
    """Holds what ``make`` made of the files. Files that can't be used later on are logged once,
    and what could be used last stays: a half-written file must not shut everybody out."""

    def __init__(
        self,
        paths: Sequence[Path],
        make: Callable[[], Made],
        *,
        unusable: type[Exception],
        look_seconds: float = 1.0,
    ) -> None:
        """``make`` raises ``unusable`` where the files are of no use; at the start that is raised
        on. The files are looked at once in ``look_seconds``."""
        self._paths = tuple(paths)
        self._make = make
        self._unusable = unusable
        self._look_seconds = look_seconds
        self._lock = threading.Lock()
        self._seen = self._signature()
        self._made = make()
        self._looked_at = time.monotonic()

    def now(self) -> Made:
        """What the files say, at most ``look_seconds`` ago; from any thread."""
        if time.monotonic() - self._looked_at >= self._look_seconds:
            with self._lock:
                self._look()
        return self._made

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        found = self._signature()
        if found == self._seen:
            return
        self._seen = found
        try:
            self._made = self._make()
        except self._unusable as error:
            _log.error("file_not_taken_over", reason=str(error))
        else:
            _log.info("file_taken_over", files=[str(each) for each in self._paths])

    def _signature(self) -> Signature:
        return tuple(_stat(each) for each in self._paths)


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
