"""What serving needs from the world."""

import enum
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.tensors import Array

# Called once, from any thread: with None when the record is kept, with the reason when it is not.
Done = Callable[[Exception | None], None]


class Call(Protocol):
    """One ModelInfer call on its way; `respond` or `fail` is called once, from any thread."""

    @property
    def payload(self) -> bytes:
        """The serialized request."""

    @property
    def received_ns(self) -> int:
        """When it came in, monotonic."""

    @property
    def deadline_ns(self) -> int:
        """Until when the caller waits, monotonic; 0 if it has not said so."""

    def respond(self, payload: bytes) -> None:
        """Sends the serialized response."""

    def fail(self, error: Exception) -> None:
        """Answers with the error's status; the text of unknown errors is not sent."""


class Model(Protocol):
    """A loaded model; safe to run from several threads."""

    def run(self, inputs: Sequence[Array], options: Any = None) -> list[Array]:
        """All outputs, in the signature's order, for inputs in the signature's order. ``options``:
        a watched run's, by which it may be ended early."""


class Run(Protocol):
    """One run under watch."""

    @property
    def options(self) -> Any:
        """What ends the run early; the session takes it (onnxruntime.RunOptions)."""

    @property
    def is_overdue(self) -> bool:
        """It was told to end because its deadline had passed: DeadlineExceeded, not a failure."""


class RunWatch(Protocol):
    """Sees every run of a model: ends those beyond their deadline, and knows after a crash which
    rows were running."""

    def enter(self, schema: Schema, deadline_ns: int, arrays: Sequence[Array], rows: int) -> Run:
        """A run begins, in this thread. ``deadline_ns``: monotonic; the watch has a limit of its
        own that may be earlier. ``arrays``: in the signature's order."""

    def exit(self, run: Run) -> None:
        """It has ended, one way or the other."""

    def held_back(
        self, schema: Schema, arrays: Sequence[Array], fingerprints: frozenset[str]
    ) -> list[int]:
        """Rows whose fingerprints are among these; asked only for versions that have any."""


class Kind(enum.IntEnum):
    """What a journal record holds."""

    # Consecutive rows of one block.
    ROWS = 1
    # Nothing more comes for a block.
    SEAL = 2
    OUTCOMES = 3
    # A promise by the server's clock.
    CLOCK_MARK = 4
    # A promise by the caller.
    CALLER_MARK = 5
    ACTIVATION = 6
    # A writer begins: blocks before it that have no end were ended by it, at the time it names.
    BEGIN = 7
    # A block that is whole, as it goes on the topic.
    BLOCK = 8


class Chain:
    """Records that need those before them: after one is lost, the rest is refused.

    What ``must`` be kept is refused only if nothing was kept before it.
    """

    __slots__ = ("has_kept", "is_broken")

    def __init__(self) -> None:
        self.is_broken = False
        self.has_kept = False

    def refuses(self, must: bool) -> bool:
        """Whether the next record has no place in it any longer."""
        return self.is_broken and not (must and self.has_kept)


class Journal(Protocol):
    """Keeps records in the order in which they were appended."""

    def append(
        self,
        kind: Kind,
        payload: bytes,
        *,
        done: Done | None = None,
        chain: Chain | None = None,
        must: bool = False,
    ) -> None:
        """Takes the record; returns at once. ``must``: tried again until it is kept."""

    def commit(self) -> None:
        """Keeps what was taken, and calls each ``done``; raises nothing."""


class Clock(Protocol):
    """Wall time."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
