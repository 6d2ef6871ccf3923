"""When an alert of the i.i.d. mode ends: soon after the shift, and never while it lasts."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.natural_streams import NO_HOLDOUT

from homeostat_monitor.domain.alerts.alert import (
    LONGEST_SPAN_ROWS,
    Alert,
    Calm,
    Moment,
    Subject,
    after_window,
)
from homeostat_monitor.domain.alerts.clear import is_clear, latest_begin
from homeostat_monitor.domain.detection.multiscale import multiscale
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.bins import NumberColumn
from homeostat_monitor.domain.windows.reference import ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Counter, Rows
from homeostat_monitor.domain.windows.window import Window
from homeostat_monitor.store.rows import alert_of

PANE = 25
LEVEL = 1e-6
# The longest span is at most a sixteenth longer, and looked at every quarter of it.
LATEST = LONGEST_SPAN_ROWS * (1 + 1 / 16 + 1 / 4) + 2 * PANE
SEEDS = st.integers(0, 1000)


def shifts(*parts: tuple[float, int]) -> np.ndarray:
    """Size and rows of each part."""
    return np.concatenate([np.full(rows, size) for size, rows in parts])


def found(shift: np.ndarray, seed: int) -> list[tuple[int, list[Finding]]]:
    """Rows up to the end of each pane, and what is said of the inputs there."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=20_000)
    missing = np.full(len(reference), np.nan)
    counts = ReferenceCounts(
        ReferenceRows(
            event_times_us=np.arange(len(reference)),
            features={"x": NumberColumn(reference)},
            scores=missing,
            is_holdout=np.zeros(len(reference), dtype=bool),
            holdout=NO_HOLDOUT,
        )
    )
    live = rng.normal(size=len(shift)) + shift
    groups = np.arange(len(live)) // PANE
    panes = int(groups[-1]) + 1
    rows = Rows(groups, panes, (NumberColumn(live),), np.full(len(live), np.nan))
    sums = Counter(counts.layout).count(rows)
    windows = [Window(at, at + 1, each) for at, each in enumerate(sums)]
    told = multiscale(counts, level_per_look=LEVEL).feed(windows)
    inputs = [[each for each in those if each.rule is Rule.COVARIATE] for those in told]
    return [((at + 1) * PANE, those) for at, those in enumerate(inputs) if those]


def lives(told: list[tuple[int, list[Finding]]]) -> list[Alert]:
    """Every alert as it was in the end."""
    alerts: list[Alert] = []
    for rows, findings in told:
        after = after_window(
            alerts[-1] if alerts else None,
            findings,
            subject=Subject("m", 1),
            window_start_us=rows // PANE - 1,
            moment=Moment(rows, rows),
            rows=PANE,
            calm=Calm(rows=LONGEST_SPAN_ROWS),
        )
        if after is not None:
            is_same = alerts and alerts[-1].alert_id == after.alert_id
            alerts[-1:] = [after] if is_same else [*alerts[-1:], after]
    return alerts


@given(st.floats(0.25, 2.0), st.integers(50, 200), SEEDS)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_a_shift_that_is_over_ends_its_alert_as_soon_as_no_span_reaches_back_to_it(
    size: float, panes: int, seed: int
) -> None:
    over = 2000 + panes * PANE
    alerts = lives(found(shifts((0, 2000), (size, panes * PANE), (0, 12_000)), seed))
    assert len(alerts) == 1
    # A look may be in doubt by chance; then it is the next one that ends it.
    latest = over + LATEST + LONGEST_SPAN_ROWS / 4
    assert over + LONGEST_SPAN_ROWS - 500 <= alerts[0].moment.occurred_us <= latest
    assert not alerts[0].is_open


@given(st.floats(0.5, 2.0), st.floats(0.17, 0.4), SEEDS)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_a_strong_shift_that_becomes_weak_has_one_alert(
    strong: float, weak: float, seed: int
) -> None:
    alerts = lives(found(shifts((0, 2000), (strong, 4000), (weak, 20_000)), seed))
    assert [each.is_open for each in alerts] == [True]


@given(st.integers(100, 400), st.integers(1000, 3200), SEEDS)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_a_shift_that_comes_and_goes_has_one_alert(on: int, off: int, seed: int) -> None:
    alerts = lives(found(shifts((0, 2000), *[(1.2, on), (0, off)] * 7), seed))
    assert [each.is_open for each in alerts] == [True]


@pytest.mark.parametrize("size", [0.08, 0.1, 0.12])
def test_a_marginal_shift_has_no_more_alerts_than_by_calm_alone(size: float) -> None:
    for seed in range(4):
        told = found(shifts((0, 2000), (size, 40_000)), seed)
        calm = [
            (rows, [replace(each, clear_since_us=None) for each in those]) for rows, those in told
        ]
        assert len(lives(told)) <= len(lives(calm))


def test_rows_like_the_reference_are_seldom_in_doubt() -> None:
    told = found(np.zeros(100_000), seed=3)
    clear = [each for _, those in told for each in those if each.clear_since_us is not None]
    looks = (100_000 - LONGEST_SPAN_ROWS) // 1000
    assert 0.9 * looks <= len(clear) <= looks + 1
    assert not any(each.is_breach for each in clear)


def a_finding(since_us: int | None = None, clear_since_us: int | None = None) -> Finding:
    one = Finding(Rule.COVARIATE, "x", "surprise", 9.0, 0.0, 6.0, since_us is not None)
    return replace(one, since_us=since_us, clear_since_us=clear_since_us)


def test_only_rows_newer_than_every_breach_began_are_clear() -> None:
    begun = latest_begin([a_finding(since_us=3)], latest_begin([a_finding(since_us=7)]))
    assert begun == 7
    assert is_clear(begun, [a_finding(clear_since_us=7)])
    assert not is_clear(begun, [a_finding(clear_since_us=6)])
    assert not is_clear(begun, [a_finding()])
    assert not is_clear(latest_begin([a_finding()]), [a_finding(clear_since_us=7)])


def test_where_the_last_breach_began_is_stored() -> None:
    (alert,) = lives(found(shifts((0, 2000), (1, 1000)), seed=1))
    assert alert.begun_us is not None
    stored = alert_of(json.dumps(asdict(alert)))
    assert stored.begun_us == alert.begun_us
    assert stored.shares == alert.shares
