"""The monitor's time-ordered mode as the referee calls it: production layout, sums and detector.

The referee gives rows without times. Here a thousand rows are a day: what is judged does not hang
on the clock but on the order of rows.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.calendar import DAY_US
from homeostat_monitor.domain.detection.ordered import ordered
from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows, count
from homeostat_monitor.domain.windows.window import Window

Matrix = NDArray[np.float64]

WINDOW_ROWS = 1000
_ROW_US = DAY_US // WINDOW_ROWS
# The referee's code of a text that the reference never had.
_UNSEEN = -2
# One false alarm per month of daily windows, over some dozens of features and rules.
_LEVEL = 1 / 30 / 100


def columns(matrix: Matrix, num: Sequence[str], cat: Sequence[str]) -> dict[str, ColumnValues]:
    """The referee's codes as the monitor's columns."""
    found: dict[str, ColumnValues] = {}
    for at, name in enumerate(num):
        found[name] = NumberColumn(matrix[:, at])
    for at, name in enumerate(cat, start=len(num)):
        codes = np.where(np.isnan(matrix[:, at]), 0, matrix[:, at]).astype(np.int32)
        texts = ["a text never seen", "", *map(str, range(max(int(codes.max()), 0) + 1))]
        found[name] = CategoryColumn(codes - _UNSEEN, texts, np.isnan(matrix[:, at]))
    return found


def reference_of(matrix: Matrix, num: Sequence[str], cat: Sequence[str]) -> ReferenceRows:
    """Rows in their order, without scores."""
    rows = len(matrix)
    return ReferenceRows(
        event_times_us=np.arange(rows, dtype=np.int64) * _ROW_US,
        features=columns(matrix, num, cat),
        scores=np.full(rows, np.nan),
        is_holdout=np.zeros(rows, dtype=bool),
        holdout=Holdout(np.empty(0), np.empty(0, dtype=np.int64)),
    )


class TimeOrdered:
    """fit/update as the referee wants it; alarms are breaches of closed windows."""

    uses = frozenset({"x"})

    def fit(
        self, matrix: Matrix, _frame: Any, num: Sequence[str], cat: Sequence[str], _err: Any
    ) -> None:
        reference = reference_of(matrix, num, cat)
        counts = ReferenceCounts(reference)
        self._num, self._cat, self._layout = num, cat, counts.layout
        self._detector = ordered(counts, length_us=DAY_US, level_per_look=_LEVEL)
        self._start_us = -(-len(matrix) // WINDOW_ROWS) * DAY_US
        self._sums, self._held = counts.layout.empty(), 0
        self.breaches: list[Finding] = []

    def update(self, matrix: Matrix, _frame: Any, _err: Any) -> list[int]:
        """The offset of every row that closed a window with a breach."""
        alarms = []
        begin = 0
        while begin < len(matrix):
            part = matrix[begin : begin + WINDOW_ROWS - self._held]
            self._take(part)
            begin += len(part)
            if self._held == WINDOW_ROWS and self._close():
                alarms.append(begin - 1)
        return alarms

    def _take(self, part: Matrix) -> None:
        features = tuple(columns(part, self._num, self._cat).values())
        scores = np.full(len(part), np.nan)
        rows = Rows(np.zeros(len(part), dtype=np.intp), 1, features, scores)
        self._sums = self._sums + count(self._layout, rows)[0]
        self._held += len(part)

    def _close(self) -> bool:
        window = Window(self._start_us, self._start_us + DAY_US, self._sums)
        findings = self._detector.feed([window])[0]
        self._start_us += DAY_US
        self._sums, self._held = self._layout.empty(), 0
        self.breaches = [each for each in findings if each.is_breach]
        return bool(self.breaches)


REGISTRY = {"time_ordered": TimeOrdered}
