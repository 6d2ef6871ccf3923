"""Which event times and known-at times are believable, and what may be promised of later ones."""

from dataclasses import dataclass

from homeostat_inference.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class TimeBounds:
    """Times outside are refused; microseconds since the Unix epoch, UTC."""

    # Nothing earlier: the mark that a caller has set, where callers set marks.
    earliest_us: int
    latest_us: int

    def check(self, smallest_us: int, largest_us: int, where: str) -> None:
        """InvalidInput, beginning with ``where``, if either time is out of bounds."""
        if smallest_us < self.earliest_us:
            raise InvalidInput(
                f"{where}: expected no time before {self.earliest_us} us "
                f"(the watermark, or 1970), got {smallest_us}"
            )
        if largest_us > self.latest_us:
            raise InvalidInput(
                f"{where}: expected no time after {self.latest_us} us (too far in the future), "
                f"got {largest_us}"
            )


def bounds(now_us: int, explicit_mark_us: int | None, future_bound_us: int) -> TimeBounds:
    """With the server's clock: up to the bound beyond now. With marks set by the caller: from the
    last mark to the bound beyond mark or now, as a replay may run ahead of the clock."""
    mark = explicit_mark_us or 0
    return TimeBounds(mark, max(now_us, mark) + future_bound_us)


class ClockMarks:
    """Marks by the server's clock: they follow the event times seen, and the clock when idle."""

    def __init__(self, *, bound_us: int, idle_us: int) -> None:
        """``bound_us``: how late a row may be. ``idle_us``: older traffic is forgotten."""
        self._bound_us = bound_us
        self._idle_us = idle_us
        self._newest_us = 0
        self._seen_at_us = 0
        self._mark_us: int | None = None

    def see(self, newest_event_us: int, now_us: int) -> None:
        """A batch came in whose newest event time is this."""
        if now_us - self._seen_at_us > self._idle_us:
            self._newest_us = newest_event_us
        else:
            self._newest_us = max(self._newest_us, newest_event_us)
        self._seen_at_us = now_us

    def next_mark(self, now_us: int, oldest_in_hand_us: int | None = None) -> int | None:
        """The promise that can be made now; None if it would say nothing new.

        ``oldest_in_hand_us``: when the oldest request came in that is not in the journal yet.
        """
        is_idle = now_us - self._seen_at_us > self._idle_us
        front = now_us if is_idle else min(now_us, self._newest_us)
        mark = front - self._bound_us
        if oldest_in_hand_us is not None:
            mark = min(mark, oldest_in_hand_us)
        if self._mark_us is not None and mark <= self._mark_us:
            return None
        self._mark_us = mark
        return mark
