"""The monitor's i.i.d. mode as the referee calls it: production layout, sums and detector.

Micro-batches are cut into panes of 25 rows, the fewest that a pane of the monitor typically has,
and all panes of a batch are counted and fed at once.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.budget import MONTH_US, Budget
from homeostat_monitor.domain.detection.multiscale import multiscale
from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Counter, Rows
from homeostat_monitor.domain.windows.window import Window

Matrix = NDArray[np.float64]

PANE_ROWS = 25
# The referee's bar, signed as a budget: so many false alarms per so many events. To the detector
# these events are a month.
SIGNED, EVENTS = 0.5, 100_000
_ROW_US = MONTH_US // EVENTS
# The referee's code of a text that the reference never had.
_UNSEEN = -2


class Columns:
    """The referee's matrices as the monitor's columns; a text's name is its code."""

    def __init__(self, matrix: Matrix, num: Sequence[str], cat: Sequence[str]) -> None:
        self._num, self._cat = list(num), list(cat)
        codes = matrix[:, len(self._num) :]
        largest = [int(np.nanmax(each, initial=0)) for each in codes.T]
        self._texts = [("never seen", "", *map(str, range(each + 1))) for each in largest]

    def of(self, matrix: Matrix) -> dict[str, ColumnValues]:
        """Columns by their names, in the matrix's order."""
        rows = np.ascontiguousarray(matrix.T)
        found: dict[str, ColumnValues] = {}
        for name, values in zip(self._num, rows, strict=False):
            found[name] = NumberColumn(values)
        codes = rows[len(self._num) :]
        nulls = codes != codes  # noqa: PLR0124
        places = np.where(nulls, 0, codes - _UNSEEN).astype(np.int32)
        lack = nulls if nulls.any() else [None] * len(codes)
        for name, each, texts, lacking in zip(self._cat, places, self._texts, lack, strict=True):
            found[name] = CategoryColumn(each, texts, lacking)
        return found

    def reference(self, matrix: Matrix) -> ReferenceRows:
        """Rows in their order, without scores."""
        rows = len(matrix)
        return ReferenceRows(
            event_times_us=np.arange(rows, dtype=np.int64) * _ROW_US,
            features=self.of(matrix),
            scores=np.full(rows, np.nan),
            is_holdout=np.zeros(rows, dtype=bool),
            holdout=Holdout(np.empty(0), np.empty(0, dtype=np.int64)),
        )


class Iid:
    """fit/update as the referee wants it; an alarm is the last row of a pane with a breach."""

    uses: ClassVar[set[str]] = {"x"}

    def fit(
        self, matrix: Matrix, _frame: Any, num: Sequence[str], cat: Sequence[str], _err: Any
    ) -> None:
        """Calibrates the detector on the reference's rows."""
        self._columns = Columns(matrix, num, cat)
        counts = ReferenceCounts(self._columns.reference(matrix))
        self._counter = Counter(counts.layout)
        level = Budget(SIGNED).level_per_look(PANE_ROWS * _ROW_US)
        self._detector = multiscale(counts, level_per_look=level)
        self._row = 0
        self.breaches: list[Finding] = []

    def update(self, matrix: Matrix, _frame: Any, _err: Any) -> list[int]:
        """Offsets of the last rows of panes with a breach."""
        rows = len(matrix)
        groups = np.arange(rows) // PANE_ROWS
        panes = -(-rows // PANE_ROWS)
        columns = tuple(self._columns.of(matrix).values())
        sums = self._counter.count(Rows(groups, panes, columns, np.full(rows, np.nan)))
        ends = [min((pane + 1) * PANE_ROWS, rows) for pane in range(panes)]
        windows = []
        for begin, end, each in zip([0, *ends], ends, sums, strict=False):
            windows.append(Window((self._row + begin) * _ROW_US, (self._row + end) * _ROW_US, each))
        self._row += rows
        alarms = []
        for end, found in zip(ends, self._detector.feed(windows), strict=True):
            breaches = [each for each in found if each.is_breach]
            if breaches:
                self.breaches = breaches
                alarms.append(end - 1)
        return alarms


REGISTRY = {"iid": Iid}
