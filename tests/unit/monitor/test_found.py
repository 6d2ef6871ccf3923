"""Segments and dependences that were planted are found, and noise is left alone."""

import time

import numpy as np
import pytest
from scipy.signal import lfilter

from homeostat_monitor.domain.diagnosis.found import found_segments
from homeostat_monitor.domain.diagnosis.residuals import context_residuals
from homeostat_monitor.domain.diagnosis.rows import PastRows
from homeostat_monitor.domain.segments.expressions import parse
from homeostat_monitor.domain.segments.nodes import And, Comparison, Node
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn

CARRIERS = ["AA", "DL", "EV", "UA", "WN"]


def rows_of(
    seed: int, rows: int = 4_000, columns: int = 6, *, rate: float = 0.2, shift: float = 0.0
) -> PastRows:
    """Independent columns; losses of 0 and 1 that depend on none of them."""
    random = np.random.default_rng(seed)
    values: dict[str, ColumnValues] = {
        f"x{each}": NumberColumn(random.normal(shift, 1, rows).astype(np.float32))
        for each in range(columns)
    }
    nulls = random.random(rows) < 0.05
    values["carrier"] = CategoryColumn(
        random.integers(0, 5, rows).astype(np.int32), CARRIERS, nulls
    )
    scores = random.random(rows)
    truths = (random.random(rows) < scores).astype(float)
    return PastRows(values, scores, truths, (random.random(rows) < rate).astype(float))


def planted(seed: int, text: str, rate: float) -> PastRows:
    """With a higher loss where the expression holds."""
    rows = rows_of(seed, 8_000)
    inside = parse(text).mask(rows.columns, len(rows))
    random = np.random.default_rng([seed, 1])
    losses = np.where(inside, random.random(len(rows)) < rate, rows.losses)
    return PastRows(rows.columns, rows.scores, rows.truths, losses)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ('carrier == "EV"', 0.35),
        ("x3 >= 1.2", 0.4),
        ('carrier == "EV" and x1 < 0', 0.45),
        ("carrier is null", 0.6),
    ],
)
def test_the_segment_that_carries_the_loss_is_found_first(text: str, rate: float) -> None:
    hits = 0
    for seed in range(8):
        before, now = rows_of(1_000 + seed, 8_000), planted(seed, text, rate)
        found = found_segments(now, before)
        hits += bool(found) and overlap(found[0].expression, text, now) >= 0.7
        assert all(parse(each.expression).text == each.expression for each in found)
    assert hits >= 6


def overlap(found: str, text: str, rows: PastRows) -> float:
    """Intersection over union of the rows."""
    one, other = (parse(each).mask(rows.columns, len(rows)) for each in (found, text))
    return float((one & other).sum() / (one | other).sum())


def test_a_segment_says_its_share_and_its_loss_now_and_before() -> None:
    (found,) = found_segments(planted(1, 'carrier == "EV"', 0.5), rows_of(20))
    assert found.expression == 'carrier == "EV"'
    assert (found.statistic, found.name) == ("loss", "")
    assert found.row_share == pytest.approx(0.19, abs=0.02)
    assert found.observed == pytest.approx(0.5, abs=0.05)
    assert found.reference == pytest.approx(0.2, abs=0.05)
    assert found.weight == pytest.approx(0.19 * 0.3 / 0.4, rel=0.2)


def test_in_noise_a_segment_is_found_in_one_of_twenty_cases_at_most() -> None:
    found = [
        found_segments(rows_of(seed, 1_000, 4), rows_of(9_000 + seed, 1_000, 4))
        for seed in range(60)
    ]
    assert sum(map(bool, found)) <= 3


def wandering(seed: int, rows: int = 4_000) -> PastRows:
    """Columns and a loss that each wander by themselves, for some 200 rows in one direction."""
    random = np.random.default_rng([seed, 7])

    def wander() -> np.ndarray:
        return lfilter([0.1], [1, -0.995], random.normal(size=rows))

    columns: dict[str, ColumnValues] = {
        f"x{each}": NumberColumn(0.7 * wander() + 0.7 * random.normal(size=rows))
        for each in range(4)
    }
    rate = 1 / (1 + np.exp(1.4 - 0.8 * wander()))
    losses = (random.random(rows) < rate).astype(float)
    return PastRows(columns, losses, losses, losses)


def test_where_everything_wanders_the_loss_is_seldom_blamed_on_a_segment() -> None:
    found = [found_segments(wandering(seed), wandering(900 + seed)) for seed in range(30)]
    assert sum(any(each.statistic == "loss" for each in some) for some in found) <= 3


def test_a_segment_that_was_as_bad_before_and_a_rise_everywhere_are_no_hotspots() -> None:
    before, now = planted(3, 'carrier == "EV"', 0.6), planted(4, 'carrier == "EV"', 0.6)
    assert not found_segments(now, before)
    assert not found_segments(rows_of(15, rate=0.4), rows_of(16, rate=0.2))


def test_traffic_that_moved_is_found_also_without_truths() -> None:
    now, before = rows_of(7), rows_of(8)
    moved = dict(now.columns)
    moved["x2"] = NumberColumn(np.asarray(now.columns["x2"].values) + 1)  # type: ignore[union-attr]
    unknown = np.full(len(now), np.nan)
    found = found_segments(
        PastRows(moved, now.scores, unknown, unknown),
        PastRows(before.columns, before.scores, unknown, unknown),
    )
    assert found
    assert {each.statistic for each in found} == {"row_share"}
    assert names(parse(found[0].expression).root) == {"x2"}
    assert found[0].observed > found[0].reference


def names(node: Node) -> set[str]:
    parts = node.parts if isinstance(node, And) else (node,)
    assert all(isinstance(each, Comparison) for each in parts)
    return {name for each in parts for name in parse(each.text).names}


def test_constant_empty_and_torn_columns_are_left_aside() -> None:
    rows = rows_of(9)
    columns: dict[str, ColumnValues] = {
        "constant": NumberColumn(np.ones(len(rows))),
        "empty": NumberColumn(np.full(len(rows), np.nan)),
        "one": CategoryColumn(np.zeros(len(rows), np.int32), ["a"]),
        "torn": NumberColumn(np.arange(len(rows))),
    }
    now = PastRows(columns, rows.scores, rows.truths, rows.losses)
    torn = {**columns, "torn": rows.columns["carrier"]}
    assert not found_segments(now, PastRows(torn, rows.scores, rows.truths, rows.losses))
    assert not found_segments(rows_of(1, 10), rows_of(2, 10))


def test_rows_by_the_ten_thousand_take_a_moment() -> None:
    now, before = rows_of(1, 30_000, 29), rows_of(2, 30_000, 29)
    begun = time.process_time()
    found_segments(now, before)
    context_residuals(now, before, unused=list(now.columns))
    # Far above what it takes: a guard against another order of growth, not a figure.
    assert time.process_time() - begun < 60


def depending(seed: int, strength: float) -> PastRows:
    """Truths that depend on the carrier more than the score knows."""
    rows = rows_of(seed)
    carrier = rows.columns["carrier"]
    assert isinstance(carrier, CategoryColumn)
    random = np.random.default_rng(seed)
    chance = np.clip(rows.scores * 0.5 + 0.25 + strength * (carrier.codes % 2 - 0.4), 0, 1)
    truths = (random.random(len(rows)) < chance).astype(float)
    return PastRows(rows.columns, rows.scores * 0.5 + 0.25, truths, rows.losses)


def test_a_column_that_was_left_out_and_matters_now_is_named() -> None:
    now, before = depending(1, 0.2), depending(2, 0.0)
    unused = ["x1", "x2", "carrier"]
    (found,) = context_residuals(now, before, unused=unused)
    assert found.context == "carrier"
    assert found.explained > 0.02
    assert found.explained_before < 0.005
    assert "a column you left out" in found.text


def test_noise_explains_no_residuals() -> None:
    found = [
        context_residuals(
            depending(seed, 0.0), depending(500 + seed, 0.0), unused=["x1", "carrier"]
        )
        for seed in range(60)
    ]
    assert sum(map(bool, found)) <= 3


def test_without_truths_nothing_is_said_of_residuals() -> None:
    rows = rows_of(1)
    unknown = np.full(len(rows), np.nan)
    blind = PastRows(rows.columns, rows.scores, unknown, unknown)
    assert not context_residuals(blind, rows, unused=["carrier"])
