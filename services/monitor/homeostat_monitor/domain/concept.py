"""Does the truth still follow from the scores as it did in the hold-out?"""

from collections.abc import Sequence
from typing import Self

from homeostat_monitor.domain.state import pack, unpack
from homeostat_monitor.domain.truths import Look, Task, Truths

_FORM = "concept-0"


class ConceptWatch:
    """Two-sided drift of truth less score, overall and by score band. Sees nothing yet."""

    name = "concept"

    def __init__(self, task: Task) -> None:
        self._task = task

    @classmethod
    def seeded(
        cls, holdout: Truths | None, *, task: Task, false_alarms_per_month: float = 0.1
    ) -> Self:
        """A fresh watch that knows the hold-out; without one it learns from the first truths."""
        return cls(task)

    def feed(self, truths: Truths) -> Sequence[Look]:
        """Looks with Findings of Rule.CONCEPT. Other portions give the same looks."""
        return []

    def rebase(self) -> None:
        """The present level is the new normal."""

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py)."""
        return pack(_FORM, {}, {})

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        unpack(_FORM, state)
