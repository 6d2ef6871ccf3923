"""What is said to be seen in time is seen, in simulated runs of the detector itself."""

import numpy as np
import pytest
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.multiscale import multiscale
from homeostat_monitor.domain.detection.power import power_lines
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.losses.watch import LossWatch
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.layout import SCORE
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Counter, Rows
from homeostat_monitor.domain.windows.window import Window

Floats = NDArray[np.float64]

LEVEL = 1e-4
WITHIN = 1000
PANE = 25
REFERENCES, RUNS = 4, 24
WORDS = ["a", "b", "new"]


def columns(rng: np.random.Generator, rows: int) -> dict[str, ColumnValues]:
    return {
        "x": NumberColumn(rng.normal(size=rows)),
        "c": CategoryColumn(rng.integers(0, 2, rows).astype(np.int32), WORDS[:2]),
    }


def counts_of(rng: np.random.Generator, rows: int) -> ReferenceCounts:
    return ReferenceCounts(
        ReferenceRows(
            np.arange(rows, dtype=np.int64),
            columns(rng, rows),
            rng.random(rows),
            np.ones(rows, dtype=bool),
            Holdout(np.empty(0), np.empty(0, np.int64)),
        )
    )


def seen(change: str, size: float, rule: Rule) -> float:
    """In what share of runs the change is told in time."""
    rng = np.random.default_rng(3)
    references = [counts_of(rng, 2000) for _ in range(REFERENCES)]
    told = [_is_seen(rng, references[run % REFERENCES], change, size, rule) for run in range(RUNS)]
    return float(np.mean(told))


def _is_seen(
    rng: np.random.Generator, counts: ReferenceCounts, change: str, size: float, rule: Rule
) -> bool:
    live = columns(rng, WITHIN)
    x, c = live["x"], live["c"]
    assert isinstance(x, NumberColumn)
    assert isinstance(c, CategoryColumn)
    if change == "shift":
        x = NumberColumn(x.values + size)
    elif change == "null":
        x = NumberColumn(np.where(rng.random(WITHIN) < size, np.nan, x.values))
    else:
        codes = np.where(rng.random(WITHIN) < size, 2, c.codes).astype(np.int32)
        c = CategoryColumn(codes, WORDS)
    groups = np.arange(WITHIN) // PANE
    rows = Rows(groups, WITHIN // PANE, (x, c), rng.random(WITHIN))
    sums = Counter(counts.layout).count(rows)
    detector = multiscale(counts, level_per_look=LEVEL)
    told = detector.feed([Window(at, at + 1, each) for at, each in enumerate(sums)])
    return any(each.is_breach and each.rule is rule for findings in told for each in findings)


@pytest.mark.parametrize(
    ("change", "feature", "rule"),
    [
        ("shift", "x", Rule.COVARIATE),
        ("null", "x", Rule.MISSING_VALUES),
        ("unseen", "c", Rule.UNSEEN_VALUES),
    ],
)
def test_what_is_said_to_be_seen_is_seen_and_not_much_less_is(
    change: str, feature: str, rule: Rule
) -> None:
    lines = power_lines(counts_of(np.random.default_rng(1), 2000), LEVEL, WITHIN)
    line = {each.feature: each for each in lines}[feature]
    size = {"shift": line.shift, "null": line.null_rate, "unseen": line.unseen_rate}[change]
    assert size is not None
    assert seen(change, size, rule) >= 0.85
    assert seen(change, size / 3, rule) <= 0.5


def test_more_events_see_smaller_changes_and_too_few_see_none() -> None:
    counts = counts_of(np.random.default_rng(2), 2000)

    def of(within: int) -> dict[str, float | None]:
        return {each.feature: each.shift for each in power_lines(counts, LEVEL, within)}

    few, many = of(500), of(5000)
    for name in ("x", SCORE):
        few_shift, many_shift = few[name], many[name]
        assert few_shift is not None
        assert many_shift is not None
        assert many_shift < few_shift
    assert of(20) == {"x": None, "c": None, SCORE: None}


@pytest.mark.parametrize("is_binary", [True, False])
def test_a_rise_of_the_loss_that_is_said_to_be_seen_is_seen(is_binary: bool) -> None:
    rng = np.random.default_rng(8)

    def losses(rows: int, rise: float = 0.0) -> Floats:
        if is_binary:
            return (rng.random(rows) < 0.2 + rise).astype(np.float64)
        return rng.gamma(4.0, size=rows) + rise

    told = []
    for _ in range(20):
        past = losses(2000)
        at = np.arange(len(past), dtype=np.int64)
        watch = LossWatch.seeded(Holdout(past, at), is_binary=is_binary)
        rise = watch.smallest_rise(past, WITHIN)
        assert rise is not None
        now = losses(WITHIN, rise + past.mean() - (0.2 if is_binary else 4.0))
        known = at[-1] + 1 + np.arange(WITHIN, dtype=np.int64)
        told.append(bool(watch.feed(Truths(known, known, now, now, now, now))))
    assert np.mean(told) >= 0.8
    assert rise < (0.15 if is_binary else 1.0)


def test_no_rise_of_the_loss_is_seen_in_a_few_truths() -> None:
    past = np.repeat([0.0, 1.0], [800, 200])
    watch = LossWatch.seeded(Holdout(past, np.arange(1000)), is_binary=True)
    assert watch.smallest_rise(past, 5) is None
    assert LossWatch.seeded(None, is_binary=True).smallest_rise(past, 1000) is None
