"""References that nobody would wish for: no detector breaks on them."""

import warnings

import numpy as np
import pytest
from tests.support.natural_streams import NO_HOLDOUT

from homeostat_monitor.domain.detection.mode import choose_mode
from homeostat_monitor.domain.detection.multiscale import multiscale
from homeostat_monitor.domain.detection.ordered import ordered
from homeostat_monitor.domain.detection.quality import quality
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.reference import ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.window import HOUR_US, Window

ROWS = 3000


def columns(rows: int) -> dict[str, ColumnValues]:
    rng = np.random.default_rng(0)
    values = rng.normal(size=rows)
    holes = values.copy()
    holes[::3] = np.nan
    infinite = values.copy()
    infinite[::7] = np.inf
    return {
        "empty": NumberColumn(np.full(rows, np.nan)),
        "constant": NumberColumn(np.full(rows, 7.0)),
        "whole": NumberColumn(rng.integers(-5, 5, rows)),
        "huge": NumberColumn(values * 1e100),
        "all_but_endless": NumberColumn(np.where(values > 0, 1.7e308, -1.7e308)),
        "hardly_any": NumberColumn(rng.integers(0, 9, rows) * 5e-324),
        "nothing_finite": NumberColumn(np.where(values > 0, np.inf, -np.inf)),
        "all_whole_numbers": NumberColumn(rng.integers(0, 2**64 - 1, rows, dtype=np.uint64)),
        "holes": NumberColumn(holes),
        "infinite": NumberColumn(infinite),
        "flags": NumberColumn(rng.integers(0, 2, rows).astype(bool)),
        "no_text": CategoryColumn(np.zeros(rows, np.int32), [""], np.ones(rows, dtype=bool)),
        "ids": CategoryColumn(np.arange(rows, dtype=np.int32), [str(at) for at in range(rows)]),
    }


def a_reference(rows: int) -> ReferenceRows:
    return ReferenceRows(
        event_times_us=np.arange(rows, dtype=np.int64) * 36_000_000,
        features=columns(rows),
        scores=np.full(rows, np.nan),
        is_holdout=np.zeros(rows, dtype=bool),
        holdout=NO_HOLDOUT,
    )


@pytest.mark.parametrize("rows", [1, 60, 450, ROWS])
def test_odd_columns_and_short_references_are_judged_without_an_error(rows: int) -> None:
    reference = a_reference(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        counts = ReferenceCounts(reference)
        choose_mode(reference, counts)
        detectors = [
            make(counts, length_us=HOUR_US, level_per_look=1e-5) for make in (ordered, quality)
        ]
        detectors.append(multiscale(counts, level_per_look=1e-5))
        window = Window(10**13, 10**13 + HOUR_US, counts.grouped(np.zeros(rows, np.intp), 1)[0])
        found = [one for each in detectors for one in each.feed([window])[0]]
    # The reference itself, come again.
    assert [one for one in found if one.is_breach and one.rule is not Rule.DUPLICATES] == []


def test_a_segment_without_rows_in_the_reference_breaks_nothing() -> None:
    whole = ReferenceCounts(a_reference(ROWS))
    none = ReferenceCounts(a_reference(ROWS), rows=np.zeros(ROWS, dtype=bool), layout=whole.layout)
    window = Window(0, HOUR_US, whole.grouped(np.zeros(ROWS, np.intp), 1)[0])
    for make in (ordered, quality):
        detector = make(none, length_us=HOUR_US, level_per_look=1e-5, segment="s")
        assert all(one.segment == "s" for one in detector.feed([window])[0])
