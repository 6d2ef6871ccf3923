"""How well a version does on its newest truths, with intervals, beside its hold-out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from homeostat_monitor.domain.state import pack, unpack
from homeostat_monitor.domain.truths import Task, Truths

_FORM = "rolling-0"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure with its 95 % interval; NaN where it is not defined (an AUC of one class)."""

    # "accuracy", "loss", "auc", "log_loss", "brier", "precision", "recall", "f1";
    # "mae", "rmse", "bias", "r2".
    name: str
    value: float
    low: float
    high: float
    # The hold-out's value; NaN without one.
    reference: float
    # Truths that it is computed of.
    rows: int
    # "newest" (the newest 1,000 truths) or "all" (since the version began).
    span: str = "newest"


class Rolling:
    """Metrics of the newest truths and of all since the version began. Knows nothing yet."""

    name = "rolling"

    def __init__(self, task: Task) -> None:
        self._task = task

    @classmethod
    def seeded(cls, holdout: Truths | None, *, task: Task) -> Self:
        """Fresh; the hold-out gives each metric's reference."""
        return cls(task)

    def feed(self, truths: Truths) -> None:
        """Takes truths in their order; portions do not matter."""

    def metrics(self) -> Sequence[Metric]:
        """All metrics of the task; none before the first truth."""
        return []

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py)."""
        return pack(_FORM, {}, {})

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        unpack(_FORM, state)
