"""Wall time as an argument, so that a test can hold it still."""

import time
from typing import Protocol


class Clock(Protocol):
    """Says what time it is."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1000


class FixedClock:
    """Stands still until it is moved."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        return self._now_us

    def advance(self, by_us: int) -> None:
        """Moves it on by so many microseconds."""
        self._now_us += by_us
