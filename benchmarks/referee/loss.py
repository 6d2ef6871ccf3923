"""The delayed loss under the referee: the monitor's own LossWatch, fed as its judges feed it."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.losses.watch import LossSignal, LossWatch
from homeostat_monitor.domain.windows.reference import Holdout

Floats = NDArray[np.float64]


class Loss:
    """Seeded with the reference's losses; every rise is an alarm. Losses come one a microsecond."""

    uses: ClassVar[set[str]] = {"err"}

    def fit(
        self, rows: Any, frame: Any, numbers: Sequence[str], texts: Sequence[str], losses: Any
    ) -> None:
        """``losses``: 0 or 1 per hold-out row."""
        values = np.asarray(losses, dtype=np.float64)
        known_at = np.arange(len(values), dtype=np.int64)
        self._watch = LossWatch.seeded(Holdout(values, known_at), is_binary=True)
        self._fed = len(values)

    def update(self, rows: Any, frame: Any, losses: Any) -> list[int]:
        """Offsets of the losses that told of a rise."""
        values = np.asarray(losses, dtype=np.float64)
        begun, self._fed = self._fed, self._fed + len(values)
        changes = self._watch.feed(_truths(values, begun))
        return [each.at_us - begun for each in changes if each.signal is LossSignal.ROSE]


def _truths(losses: Floats, begun: int) -> Truths:
    at = np.arange(begun, begun + len(losses), dtype=np.int64)
    unknown = np.full(len(losses), np.nan)
    return Truths(at, at, losses, unknown, unknown, unknown)


REGISTRY = {"loss": Loss, "err_loss": Loss}
