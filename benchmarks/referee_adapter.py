"""The monitor's detectors under one roof for a referee's bench, beside three that know nothing.

``REGISTRY`` maps a name to a factory; what it makes has ``uses``, ``fit(rows, frame, numbers,
texts, losses)`` and ``update(rows, frame, losses)``, which gives the offsets of rows that alarm.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

# The bench loads this file by its path.
sys.path.insert(0, str(Path(__file__).parent))


class Always:
    """Alarms with every batch: the recall that is worth nothing."""

    uses: ClassVar[set[str]] = {"x"}

    def fit(self, *given: Any) -> None:
        """Learns nothing."""

    def update(self, rows: Any, *given: Any) -> list[int]:
        """The last row."""
        return [len(rows) - 1]


class Never(Always):
    """Never alarms: the silence that is worth nothing."""

    def update(self, rows: Any, *given: Any) -> list[int]:
        """Nothing."""
        return []


class Random(Always):
    """Alarms by chance, once in a thousand rows."""

    def fit(self, *given: Any) -> None:
        """Learns nothing."""
        self._rng = np.random.default_rng(0)

    def update(self, rows: Any, *given: Any) -> list[int]:
        """Rows drawn by chance."""
        return np.flatnonzero(self._rng.random(len(rows)) < 1e-3).tolist()


def _of(module: str, name: str) -> Callable[[], Any]:
    """Imported when it is asked for: one detector's needs are not another's."""

    def make() -> Any:
        return import_module(f"referee.{module}").REGISTRY[name]()

    return make


REGISTRY: dict[str, Callable[[], Any]] = {
    "iid": _of("iid", "iid"),
    "time_ordered": _of("ordered", "time_ordered"),
    "loss": _of("loss", "loss"),
    # The referee scores what begins with "err" on losses alone.
    "err_loss": _of("loss", "loss"),
    "always": Always,
    "never": Never,
    "random": Random,
}
