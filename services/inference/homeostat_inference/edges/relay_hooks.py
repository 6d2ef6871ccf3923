"""What a relay is told by whoever knows its journal's writer and its other readers."""

from collections.abc import Callable
from dataclasses import dataclass

from homeostat_inference.edges.journal_reader import Segment


@dataclass(frozen=True, slots=True)
class Tail:
    """How much is kept after it was archived, for a broker that comes back empty."""

    bytes: int
    seconds: float
    # Of a journal larger than this, age alone keeps nothing: it must not reach its quota.
    crowded_bytes: int


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a relay is told by whoever knows the journal's writer."""

    # Whether somebody may still write this journal.
    has_writer: Callable[[], bool]
    # Told whether the relay sleeps until it is woken.
    set_idle: Callable[[bool], None] = lambda is_idle: None
    # Told the oldest position that is still there, after something was forgotten.
    forgot: Callable[[int], None] = lambda start: None
    # A promise that the journal need not spell out: it holds for all that stands in it when it is
    # asked for.
    standing_mark_us: Callable[[], int | None] = lambda: None
    # Whether a segment has to wait for another reader.
    is_held: Callable[[Segment], bool] = lambda segment: False
    # Nobody will write this journal again: nothing of it need be left.
    is_over: bool = False
