"""What is summed beside histograms: exact moments, products of pairs, a sketch of whole rows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.layout import BUCKETS, Layout
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows, count

WORDS = ["low", "high", "", "never seen"]


def columns(rng: np.random.Generator, rows: int) -> dict[str, ColumnValues]:
    x = rng.normal(10, 2, rows)
    y = x + rng.normal(size=rows)
    y[rng.random(rows) < 0.1] = np.nan
    return {
        "x": NumberColumn(x),
        "y": NumberColumn(y.astype(np.float32)),
        "c": CategoryColumn((x > 10).astype(np.int32), WORDS[:2]),
    }


def a_reference(rows: int = 4000) -> ReferenceRows:
    rng = np.random.default_rng(7)
    given = columns(rng, rows)
    x = given["x"]
    assert isinstance(x, NumberColumn)
    return ReferenceRows(
        np.arange(rows, dtype=np.int64),
        given,
        rng.random(rows),
        np.ones(rows, dtype=bool),
        Holdout(np.empty(0), np.empty(0, np.int64)),
        truths=np.where(x.values > 11, 1.0, 0.0),
    )


REFERENCE = a_reference()
COUNTS = ReferenceCounts(REFERENCE)
LAYOUT: Layout = COUNTS.layout


def summed(given: dict[str, ColumnValues], groups: np.ndarray | None = None) -> np.ndarray:
    first = given["x"]
    assert isinstance(first, NumberColumn)
    rows = len(first.values)
    at = np.zeros(rows, np.intp) if groups is None else groups
    said = np.zeros(rows)
    return count(LAYOUT, Rows(at, int(at.max()) + 1, tuple(given.values()), said))


@given(st.integers(1, 30_000), st.integers(1, 5), st.integers(0, 9))
@settings(max_examples=10, deadline=None)
def test_groups_and_chunks_add_up_to_the_whole_exactly(rows: int, groups: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    given = columns(rng, rows)
    whole = summed(given)[0]
    parts = summed(given, rng.integers(0, groups, rows))
    assert (parts.sum(axis=0) == whole).all()
    assert LAYOUT.sketch(whole).sum() == rows


def test_mean_and_deviation_come_back_in_the_features_own_unit() -> None:
    given = columns(np.random.default_rng(1), 5000)
    found = LAYOUT.mean_and_deviation("x", summed(given)[0])
    x = given["x"]
    assert found is not None
    assert isinstance(x, NumberColumn)
    assert np.allclose(found, (x.values.mean(), x.values.std()), atol=0.01)


def test_a_changed_unit_and_values_without_end_are_clipped_not_overflowed() -> None:
    given = columns(np.random.default_rng(1), 3)
    given["x"] = NumberColumn(np.array([np.inf, -np.inf, 1e300]))
    first, second = LAYOUT.moments("x", summed(given)[0]) or (0, 0)
    assert first == 4096 * 256
    assert second == 3 * (4096 * 256) ** 2


def test_dependent_features_are_paired_texts_too() -> None:
    assert {frozenset(pair) for pair in LAYOUT.extras.pairs} == {
        frozenset("xy"),
        frozenset("xc"),
        frozenset("yc"),
    }
    rows, products = LAYOUT.pair(0, COUNTS.whole)
    assert 3000 < rows <= 4000
    assert abs(products / rows) / 64**2 > 0.5


def test_rows_that_repeat_share_a_bucket_and_others_hardly_do() -> None:
    rng = np.random.default_rng(2)
    given = columns(rng, 2000)
    buckets = LAYOUT.sketch(summed(given)[0])
    pairs = (buckets * (buckets - 1) // 2).sum()
    by_chance = 2000 * 1999 / 2 / BUCKETS
    assert abs(pairs - by_chance) < 6 * np.sqrt(by_chance)
    twice = {
        name: NumberColumn(np.tile(each.values[:1000], 2))
        if isinstance(each, NumberColumn)
        else CategoryColumn(np.tile(each.codes[:1000], 2), each.dictionary)
        for name, each in given.items()
    }
    buckets = LAYOUT.sketch(summed(twice)[0])
    assert (buckets * (buckets - 1) // 2).sum() > by_chance + 800


def test_sums_by_class_and_of_a_segment_are_parts_of_the_reference() -> None:
    by_class = COUNTS.sums_by_class()
    assert by_class is not None
    assert (by_class.sum(axis=0) == COUNTS.whole).all()
    x = REFERENCE.features["x"]
    assert isinstance(x, NumberColumn)
    mask = x.values > 10
    parts = [ReferenceCounts(REFERENCE, rows=each, layout=LAYOUT) for each in (mask, ~mask)]
    assert (parts[0].whole + parts[1].whole == COUNTS.whole).all()
    assert parts[0].layout is LAYOUT


def test_other_pairs_or_scales_are_another_layout() -> None:
    shifted = REFERENCE.only(np.arange(REFERENCE.rows) % 2 == 0)
    assert ReferenceCounts(shifted).layout.fingerprint != LAYOUT.fingerprint
    assert ReferenceCounts(a_reference()).layout.fingerprint == LAYOUT.fingerprint
