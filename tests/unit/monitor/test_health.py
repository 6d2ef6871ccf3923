"""What is told of a model's health: figures beside those of the hold-out."""

import math

import numpy as np
import pytest
from tests.support import truths as streams

from homeostat_monitor.app.watches import fresh_rolling
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.performance.rolling import Rolling
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.bins import NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows
from homeostat_monitor.health import metrics_of
from homeostat_monitor.ports import KnownVersion, StateKey

_MAKE = {
    Task.BINARY: streams.binary,
    Task.MULTICLASS: streams.multiclass,
    Task.REGRESSION: streams.regression,
}


def a_profile(rows: Truths) -> VersionProfile:
    values = np.random.default_rng(5).normal(size=len(rows))
    reference = ReferenceRows(
        np.arange(len(rows), dtype=np.int64) * 60_000_000,
        {"x": NumberColumn(values)},
        rows.scores,
        np.ones(len(rows), dtype=bool),
        Holdout(rows.losses, rows.known_at_us, rows),
    )
    return profile_of(reference, length_us=3_600_000_000)


@pytest.mark.parametrize("task", list(Task))
def test_metrics_stand_beside_the_hold_outs(task: Task) -> None:
    known = KnownVersion(Subject("m", 1), task, a_profile(_MAKE[task](1000, seed=1)))
    rolling = fresh_rolling(known)
    rolling.feed(_MAKE[task](1000, seed=2))
    told = metrics_of({StateKey("", Rolling.name): rolling.to_bytes()}, known)
    assert told == rolling.metrics()
    for each in told:
        assert math.isfinite(each.reference), each.name
        assert each.reference == pytest.approx(each.value, abs=0.2 * abs(each.value) + 0.2)


def test_a_reference_of_few_rows_says_how_long_one_waits_for_the_first_window() -> None:
    rows = streams.binary(120, seed=1)
    reference = ReferenceRows(
        np.arange(120, dtype=np.int64) * 1_000_000,
        {"x": NumberColumn(np.random.default_rng(5).normal(size=120))},
        rows.scores,
        np.ones(120, dtype=bool),
        Holdout(rows.losses, rows.known_at_us, rows),
    )
    told = [each for each in profile_of(reference).remarks if each.startswith("windows are 7 days")]
    assert len(told) == 1
    assert "cure" in told[0]
    fixed = profile_of(reference, length_us=3_600_000_000)
    assert not any(each.startswith("windows") for each in fixed.remarks)
