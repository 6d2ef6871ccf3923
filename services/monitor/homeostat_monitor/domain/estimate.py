"""Performance without truth: what the scores alone lead to expect. It cannot see concept drift."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from homeostat_monitor.domain.bins import NumberBins
from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.state import pack, unpack
from homeostat_monitor.domain.sums import Counts
from homeostat_monitor.domain.truths import Task, Truths

_FORM = "estimate-0"


@dataclass(frozen=True, slots=True)
class Estimated:
    """The loss that a window's scores lead to expect, with its 95 % interval."""

    start_us: int
    end_us: int
    loss: float
    low: float
    high: float
    reference: float
    rows: int


class Estimate:
    """Mean hold-out loss per score bin, weighted by a window's scores. Absent yet."""

    name = "estimate"

    @classmethod
    def seeded(
        cls,
        holdout: Truths | None,
        bins: NumberBins,
        *,
        task: Task,
        length_us: int,
        false_alarms_per_month: float = 0.1,
    ) -> Self:
        """``bins``: the layout's bins of the scores."""
        return cls()

    @property
    def absent_because(self) -> str | None:
        """Why there is no estimate, in one sentence; None: there is one."""
        return "no estimate is made yet"

    def window(self, start_us: int, end_us: int, scores: Counts) -> Estimated | None:
        """What a closed window's score histogram leads to expect; remembered for the back-test."""
        return None

    def findings(self) -> Sequence[Finding]:
        """Of Rule.ESTIMATED_PERFORMANCE, of the window that was estimated last."""
        return []

    def feed(self, truths: Truths) -> Sequence[str]:
        """Back-tests earlier windows; a remark where the estimate is withdrawn or comes back."""
        return []

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py)."""
        return pack(_FORM, {}, {})

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        unpack(_FORM, state)
