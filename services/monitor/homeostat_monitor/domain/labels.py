"""Do truths come as soon, and for as many predictions, as they used to?"""

from collections.abc import Mapping, Sequence
from typing import Self

from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.state import pack, unpack
from homeostat_monitor.domain.truths import Truths

_FORM = "labels-0"


class LabelWatch:
    """Label delay and coverage. Sees nothing yet."""

    name = "labels"

    @classmethod
    def seeded(
        cls, holdout: Truths | None, *, length_us: int, false_alarms_per_month: float = 0.1
    ) -> Self:
        """``length_us``: of the windows in which predictions are counted."""
        return cls()

    def feed(self, truths: Truths) -> None:
        """Truths as they became known."""

    def predicted(self, rows_by_start: Mapping[int, int]) -> None:
        """Predictions of closed windows, by the window's start; each window is told once."""

    def judge(self, mark_us: int) -> Sequence[Finding]:
        """Findings of Rule.LABEL_DELAY and Rule.LABEL_COVERAGE at this watermark (known-at)."""
        return []

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py)."""
        return pack(_FORM, {}, {})

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        unpack(_FORM, state)
