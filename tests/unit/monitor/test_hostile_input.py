"""Whatever comes is judged, counted or refused with a reason: nothing of it stops the monitor, what
can be told of it can be sent, and an ordinary day after it is judged as ever."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.support.memory_monitor import (
    DAY_US,
    SUBJECT,
    Monitor,
    Rows,
    a_block,
    a_version,
    assert_an_ordinary_day_is_judged,
    rows_of,
    truths_of,
)

from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.errors import UnusableReference
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.ports import KnownVersion

NAN, INF = np.nan, np.inf

# References


def change(**columns: Any) -> Callable[[Rows], None]:
    """Columns by name, from a function of their rows."""

    def changed(past: Rows) -> None:
        for name, make in columns.items():
            if name in past.features:
                past.features[name] = np.array(make(past), dtype=past.features[name].dtype)
            else:
                old = getattr(past, name)
                setattr(past, name, np.array(make(past), dtype=old.dtype))

    return changed


def full(value: Any) -> Callable[[Rows], Any]:
    return lambda past: np.full(past.rows, value, dtype=object if isinstance(value, str) else None)


def every(step: int, value: Any, name: str) -> Callable[[Rows], Any]:
    """Every so many rows have this value."""

    def made(past: Rows) -> Any:
        values = (past.features[name] if name in past.features else getattr(past, name)).copy()
        values[::step] = value
        return values

    return made


def only(rows: int) -> Callable[[Rows], None]:
    def changed(past: Rows) -> None:
        for name in ("times", "scores", "truths", "known_at", "is_holdout", "losses"):
            setattr(past, name, getattr(past, name)[:rows])
        past.features = {name: values[:rows] for name, values in past.features.items()}

    return changed


def constant(past: Rows) -> None:
    for name, values in past.features.items():
        past.features[name] = np.full(past.rows, values[0], dtype=values.dtype)


def at(day: float) -> Callable[[Rows], None]:
    def changed(past: Rows) -> None:
        shift = int(day * DAY_US) - int(past.times[0])
        past.times, past.known_at = past.times + shift, past.known_at + shift

    return changed


YEAR_9999, YEAR_0 = 2_932_800, -719_000
MANY = [f"value {number}" for number in range(10_000)]
ODD = [
    "\0",
    "\u202e\ufdfa",
    "👩‍👩‍👧",
    "a\nb",
    "'; --",
    "\ufffe",
    "b" * 300,
    '"',
    "\\",
    "é",
    "e\u0301",
]

REFERENCES: dict[str, Callable[[Rows], None]] = {
    "one row": only(1),
    "two rows": only(2),
    "30 rows": only(30),
    "no rows": only(0),
    "constant columns": constant,
    "constant scores": change(scores=full(0.5)),
    "no hold-out": change(is_holdout=full(False)),
    "a hold-out of everything": change(is_holdout=full(True)),
    "a hold-out of one row": change(is_holdout=lambda past: np.arange(past.rows) == 7),
    "one class alone": change(truths=full(1.0), losses=full(0.0)),
    "no truths": change(truths=full(NAN), losses=full(NAN)),
    "infinite losses": change(losses=every(3, INF, "losses")),
    "huge losses": change(losses=every(3, 1e300, "losses"), truths=every(3, 1e150, "truths")),
    "losses beyond squares": change(losses=every(3, 1.7e308, "losses")),
    "scores that are none": change(scores=full(NAN)),
    "infinite scores": change(scores=every(2, -INF, "scores")),
    "huge scores": change(scores=every(2, 1e300, "scores")),
    "a feature of nulls": change(amount=full(NAN), small=full(NAN)),
    "an infinite feature": change(amount=every(2, INF, "amount"), small=every(2, -INF, "small")),
    "only infinite numbers": change(amount=full(INF), small=full(-INF)),
    "huge numbers": change(amount=every(2, 1e300, "amount"), small=every(2, 3e38, "small")),
    "huge numbers of both signs": change(
        amount=lambda past: np.where(np.arange(past.rows) % 2, 1.7e308, -1.7e308)
    ),
    "tiny numbers": change(amount=lambda past: past.features["amount"] * 5e-324),
    "the ends of whole numbers": change(
        count=lambda past: np.where(np.arange(past.rows) % 2, 2**63 - 1, -(2**63))
    ),
    "10,000 categories": change(kind=lambda past: [MANY[i * 7 % 10_000] for i in range(past.rows)]),
    "a category of a megabyte": change(kind=every(900, "x" * 2**20, "kind")),
    "odd texts": change(kind=lambda past: [ODD[i % len(ODD)] for i in range(past.rows)]),
    "empty texts": change(kind=full("")),
    "one event time for all": change(times=full(100 * DAY_US)),
    "one row a day": change(times=lambda past: np.arange(past.rows) * DAY_US // 10),
    "rows of 1970": at(0),
    "rows of long before": at(YEAR_0),
    "rows of the year 9999": at(YEAR_9999),
    "rows over 10,000 years": change(
        times=lambda past: np.linspace(YEAR_0 * DAY_US, YEAR_9999 * DAY_US, past.rows)
    ),
    "times beyond the ages": change(
        times=lambda past: np.where(np.arange(past.rows) < 9, -(2**63), 2**63 - 1)
    ),
    "truths known before their event": change(known_at=lambda past: past.times - DAY_US),
}


# What regressions take otherwise than classes.
OF_TRUTHS = {"row", "hold-out", "class", "truths", "losses", "scores"}
# Of these nobody can say what is usual.
TOO_LITTLE = ("no rows", "one row", "two rows", "30 rows", "a feature of nulls")


@pytest.mark.parametrize(
    ("what", "task"),
    [
        *((what, Task.BINARY) for what in REFERENCES),
        *((what, Task.REGRESSION) for what in REFERENCES if OF_TRUTHS & {*what.split()}),
    ],
)
def test_any_reference_is_judged_against_or_refused_with_a_reason(what: str, task: Task) -> None:
    past = rows_of(90, 3)
    REFERENCES[what](past)
    try:
        known = a_version(past, task=task, segments=True)
    except UnusableReference as error:
        assert str(error)
        known = KnownVersion(SUBJECT, task, None, remarks=(str(error),))
    monitor = Monitor(known)
    moved = rows_of(100, seed=3)
    moved.features["amount"] += 50
    monitor.take(a_block(moved))
    monitor.learn(truths_of(moved))
    monitor.judge(101)
    assert monitor.count("predictions") == moved.rows
    assert_an_ordinary_day_is_judged(monitor)
    if what not in TOO_LITTLE:
        features = {share.feature for each in monitor.alerts for share in each.shares}
        assert "amount" in features


# Live traffic


def a_monitor(mode: Mode | None = None, *, segments: bool = True) -> Monitor:
    return Monitor(a_version(rows_of(90, 3), mode=mode, segments=segments))


def spoiled(feature: str, values: Any) -> Callable[[Rows], None]:
    def changed(now: Rows) -> None:
        kind = now.features[feature].dtype
        now.features[feature] = np.resize(np.array(values, dtype=kind), now.rows)

    return changed


LIVE: dict[str, Callable[[Rows], None]] = {
    "numbers that are none": spoiled("amount", [NAN, INF, -INF]),
    "huge numbers": spoiled("amount", [1e300, -1e300, 1.7e308, 5e-324, -0.0]),
    "huge small numbers": spoiled("small", [3e38, -3e38, INF, NAN]),
    "the ends of whole numbers": spoiled("count", [2**63 - 1, -(2**63), 0]),
    "only nulls": spoiled("amount", [NAN]),
    "10,000 new categories": spoiled("kind", MANY),
    "a category of a megabyte": spoiled("kind", ["x" * 2**20, *["a"] * 300]),
    "odd texts": spoiled("kind", ODD),
    "only null texts": spoiled("kind", [None]),
    "scores that are none": change(scores=full(NAN)),
    "infinite scores": change(scores=every(2, INF, "scores")),
    "huge scores": change(scores=every(2, -1e300, "scores")),
    "huge losses and truths": change(
        losses=every(2, 1.7e308, "losses"), truths=every(2, -1.7e308, "truths")
    ),
    "losses that are none": change(losses=every(2, NAN, "losses")),
    "truths that are none": change(truths=full(NAN)),
    "truths of classes that are none": change(truths=full(7.0)),
    "truths known before their event": change(known_at=lambda now: now.times - DAY_US // 2),
    "truths known years before": change(known_at=full(0)),
    "one event time for all": change(times=full(100 * DAY_US)),
    "rows out of order": change(times=lambda now: now.times[::-1]),
    "rows of 1970": at(0),
    "rows of long before": at(YEAR_0 + 400),
    "rows from year 1 on": change(
        times=lambda now: np.linspace((YEAR_0 + 400) * DAY_US, 101 * DAY_US - 1, now.rows)
    ),
}


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("what", LIVE)
def test_any_rows_are_counted_and_judged_and_the_day_after_them_too(what: str, mode: Mode) -> None:
    monitor, now = a_monitor(mode), rows_of(100, seed=3)
    LIVE[what](now)
    monitor.take(a_block(now))
    monitor.learn(truths_of(now))
    monitor.judge(101)
    assert monitor.refused == []
    assert monitor.count("predictions") == now.rows
    told = monitor.count("losses") + monitor.count("losses_not_finite")
    assert told + monitor.count("late_losses") == now.rows
    assert_an_ordinary_day_is_judged(monitor)


@pytest.mark.parametrize(
    "time",
    [
        2**62,
        -(2**62),
        2**63 - 1,
        -(2**63),
        YEAR_9999 * DAY_US + DAY_US * 365,
        YEAR_0 * DAY_US - 365 * DAY_US,
    ],
)
def test_a_time_that_no_calendar_has_is_refused_with_its_block_and_no_other(time: int) -> None:
    monitor, now, others = a_monitor(), rows_of(100, seed=3), rows_of(100, seed=4)
    now.times[5] = now.known_at[7] = time
    monitor.take(a_block(now), a_block(others, number=2))
    monitor.learn(truths_of(now), truths_of(others, number=2))
    assert monitor.refused == ["a time is beyond the ages"] * 2
    assert monitor.count("predictions") == monitor.count("losses") == others.rows
    assert_an_ordinary_day_is_judged(monitor)


def test_one_row_a_day_is_judged_or_waits_and_none_is_lost() -> None:
    for mode in Mode:
        monitor, rows = a_monitor(mode), rows_of(100, 60, rows=1)
        monitor.take(*[a_block(rows)])
        monitor.judge(100 + 60)
        assert monitor.count("predictions") == 60
        windows = monitor.judged_windows
        assert windows == (60 if mode is Mode.IID else 0)
        skipped = monitor.count("skipped_rows")
        assert (skipped > 0) == (mode is Mode.TIME_ORDERED)
        assert_an_ordinary_day_is_judged(monitor)


def test_a_million_rows_in_one_block_are_one_million_rows() -> None:
    monitor, now = a_monitor(), rows_of(100, seed=3, rows=1_000_000)
    monitor.take(a_block(now))
    monitor.judge(101)
    assert monitor.count("predictions") == now.rows
    assert monitor.judged_windows == 24
    assert_an_ordinary_day_is_judged(monitor)


def test_a_block_counts_once_however_often_and_where_it_comes() -> None:
    monitor, now = a_monitor(), rows_of(100, seed=3)
    other = rows_of(100, seed=4)
    monitor.take(a_block(now), a_block(now), a_block(other))
    monitor.take(a_block(now))
    monitor.judge(101)
    monitor.take(a_block(now))
    assert monitor.count("predictions") == now.rows
    assert monitor.count("repeated_rows") == 4 * now.rows
    assert_an_ordinary_day_is_judged(monitor)


def test_truths_may_come_before_their_predictions() -> None:
    monitor, now = a_monitor(), rows_of(100, seed=3)
    monitor.learn(truths_of(now))
    monitor.judge(100.5)
    monitor.take(a_block(now))
    monitor.judge(101.2)
    assert monitor.count("losses") == monitor.count("predictions") == now.rows
    assert_an_ordinary_day_is_judged(monitor)


def test_truths_of_predictions_that_nobody_made_are_truths_of_no_segment() -> None:
    """Of blocks that are not known, and of rows that a known block does not have."""
    monitor, now = a_monitor(), rows_of(100, seed=3)
    monitor.take(a_block(now))
    unknown, beyond = truths_of(rows_of(100, seed=4), number=77), truths_of(now)
    ids = np.frombuffer(beyond.prediction_ids, dtype=np.uint8).reshape(-1, 20).copy()
    ids[:, 16:] = 255
    beyond.prediction_ids = ids.tobytes()
    monitor.learn(unknown, beyond)
    monitor.judge(102)
    assert monitor.count("losses") == 2 * now.rows
    assert_an_ordinary_day_is_judged(monitor)


def test_the_same_truth_in_two_events_is_fed_as_it_was_told() -> None:
    monitor, now = a_monitor(), rows_of(100, seed=3)
    monitor.take(a_block(now))
    first = truths_of(now)
    again = truths_of(now, revision=2)
    monitor.learn(first, first, again)
    monitor.judge(102)
    assert monitor.count("losses") == now.rows
    assert monitor.count("repeated_losses") == now.rows
    assert monitor.count("corrections") == now.rows
    assert_an_ordinary_day_is_judged(monitor)
