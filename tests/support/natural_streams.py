"""Streams that move as real ones do: they remember, have days and weeks, and drift slowly."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows, count
from homeostat_monitor.domain.windows.window import HOUR_US, Window

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DAY_US = 24 * HOUR_US
NO_HOLDOUT = Holdout(np.empty(0), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Stream:
    """Columns in order of time."""

    times_us: Ints
    columns: Mapping[str, Floats]
    texts: Mapping[str, Ints]

    @property
    def rows(self) -> int:
        return len(self.times_us)

    def part(self, start: int, end: int) -> "Stream":
        return Stream(
            self.times_us[start:end],
            {name: each[start:end].copy() for name, each in self.columns.items()},
            {name: each[start:end].copy() for name, each in self.texts.items()},
        )

    def features(self) -> dict[str, ColumnValues]:
        found: dict[str, ColumnValues] = {
            name: NumberColumn(each) for name, each in self.columns.items()
        }
        for name, codes in self.texts.items():
            found[name] = CategoryColumn(codes.astype(np.int32), [*"abcdefgh"])
        return found


def autoregressive(rng: np.random.Generator, rows: int, memory: float) -> Floats:
    """AR(1) of deviation 1."""
    noise = rng.normal(size=rows) * np.sqrt(1 - memory**2)
    noise[0] = rng.normal()
    found: Floats = lfilter([1.0], [1.0, -memory], noise)
    return found


def a_stream(seed: int, days: int, *, rows_a_day: int = 600, trend: float = 0.0) -> Stream:
    """Weather that remembers, a daily and a weekly season, a slow trend (deviations a day), what
    belongs to it, white noise, and texts."""
    rng = np.random.default_rng(seed)
    rows = days * rows_a_day
    day = np.arange(rows) / rows_a_day
    daily, weekly = np.sin(2 * np.pi * day), np.sin(2 * np.pi * day / 7)
    slow = autoregressive(rng, rows, 0.99)
    return Stream(
        np.arange(rows, dtype=np.int64) * (DAY_US // rows_a_day),
        {
            "slow": slow + trend * day,
            "season": daily + 0.5 * weekly + 0.5 * autoregressive(rng, rows, 0.9),
            "like_slow": slow + trend * day + 0.3 * rng.normal(size=rows),
            "white": rng.normal(size=rows),
        },
        {"kind": rng.choice(4, rows, p=[0.5, 0.3, 0.15, 0.05])},
    )


def a_reference(stream: Stream) -> ReferenceRows:
    """Its rows, without scores."""
    return ReferenceRows(
        event_times_us=stream.times_us,
        features=stream.features(),
        scores=np.full(stream.rows, np.nan),
        is_holdout=np.zeros(stream.rows, dtype=bool),
        holdout=NO_HOLDOUT,
    )


def windows(counts: ReferenceCounts, stream: Stream, length_us: int) -> list[Window]:
    """The closed windows of a stream."""
    starts, groups = np.unique(stream.times_us // length_us, return_inverse=True)
    columns = tuple(stream.features().values())
    scores = np.full(stream.rows, np.nan)
    sums = count(counts.layout, Rows(groups.astype(np.intp), len(starts), columns, scores))
    return [
        Window(start, start + length_us, each)
        for start, each in zip((starts * length_us).tolist(), sums, strict=True)
    ]
