"""Flights as the player and the reports use them, and as one file between two processes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

CLASSES = ("on_time", "late")

# Columns of the file that are no features.
_LATE, _DEPARTS, _KNOWN, _ID, _MONTH = "_late", "_departs_us", "_known_us", "_id", "_month"


@dataclass(frozen=True, slots=True)
class Flights:
    """Flights in the order of their scheduled departure; all arrays of one length."""

    # Inputs of the model; weather may be null.
    features: pa.Table
    # 1.0: over 15 minutes late, cancelled, diverted or lost.
    late: NDArray[np.float64]
    # Scheduled departure, microseconds UTC.
    departs_us: NDArray[np.int64]
    # Real arrival; the scheduled one for flights that never arrived.
    known_us: NDArray[np.int64]
    # For example "2013-01-01 UA1545 EWR 05:15".
    ids: NDArray[np.object_]
    months: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.late)

    def where(self, mask: NDArray[np.bool_]) -> "Flights":
        """The flights of the mask, same order."""
        return Flights(
            self.features.filter(pa.array(mask)),
            self.late[mask],
            self.departs_us[mask],
            self.known_us[mask],
            self.ids[mask],
            self.months[mask],
        )

    def write(self, path: Path) -> None:
        """As Parquet, for `read_flights`."""
        table = self.features
        for name, values in (
            (_LATE, self.late),
            (_DEPARTS, self.departs_us),
            (_KNOWN, self.known_us),
            (_ID, self.ids),
            (_MONTH, self.months),
        ):
            table = table.append_column(name, pa.array(values))
        pq.write_table(table, path)


def read_flights(path: Path) -> Flights:
    """What `Flights.write` wrote."""
    table = pq.read_table(path)

    def column(name: str) -> NDArray[Any]:
        return np.asarray(table[name].to_numpy())

    return Flights(
        table.drop_columns([_LATE, _DEPARTS, _KNOWN, _ID, _MONTH]),
        column(_LATE),
        column(_DEPARTS),
        column(_KNOWN),
        column(_ID),
        column(_MONTH),
    )
