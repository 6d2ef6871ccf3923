"""When a dead child is started again."""

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays that double from death to death, until a child has lived long enough to be trusted."""

    first_seconds: float = 0.1
    longest_seconds: float = 5.0
    trusted_after_seconds: float = 10.0
    _next_seconds: float = 0.0

    def delay_after(self, lived_seconds: float) -> float:
        """Seconds to wait before the next start of a child that lived so long."""
        if lived_seconds >= self.trusted_after_seconds or not self._next_seconds:
            self._next_seconds = self.first_seconds
        delay = self._next_seconds
        self._next_seconds = min(delay * 2, self.longest_seconds)
        return delay
