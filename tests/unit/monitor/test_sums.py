"""Sums of windows: parts make the whole, in any order and any cut."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from homeostat_monitor.domain.windows.bins import (
    CategoryColumn,
    NumberColumn,
    category_bins,
    number_bins,
)
from homeostat_monitor.domain.windows.sums import Layout, Rows, count, layout_of
from homeostat_monitor.domain.windows.window import (
    HOUR_US,
    Skipped,
    Window,
    due_windows,
    merge,
    window_length_us,
)

REFERENCE = np.array([0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9], dtype=np.float32)
WORDS = ["a", "b", "c", "", "zzz"]


def a_layout() -> Layout:
    words = CategoryColumn(np.array([0, 1, 2, 0], np.int32), WORDS)
    return layout_of(
        {"x": number_bins(NumberColumn(REFERENCE)), "c": category_bins(words)},
        number_bins(NumberColumn(np.linspace(0, 1, 20))),
    )


LAYOUT = a_layout()
VALUES = st.lists(
    st.tuples(
        st.floats(-5, 15, width=32) | st.just(float("nan")),
        st.integers(0, len(WORDS) - 1),
        st.floats(0, 1),
        st.integers(0, 3),
    ),
    max_size=60,
)


def summed(values: list[tuple[float, int, float, int]]) -> np.ndarray:
    """Four windows' sums."""
    x, c, score, group = (np.array(each) for each in zip(*values, strict=True))
    rows = Rows(
        group.astype(np.intp),
        4,
        (NumberColumn(x.astype(np.float32)), CategoryColumn(c.astype(np.int32), WORDS)),
        score,
    )
    return count(LAYOUT, rows)


@given(VALUES.filter(bool), st.data())
def test_any_cut_in_any_order_gives_the_same_sums(
    values: list[tuple[float, int, float, int]], data: st.DataObject
) -> None:
    whole = summed(values)
    order = data.draw(st.permutations(values))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    parts = [order[a:b] for a, b in zip([0, *cuts], [*cuts, len(values)], strict=True)]
    sums = sum(summed(each) for each in parts if each)
    assert (sums == whole).all()


@given(VALUES.filter(bool))
def test_every_row_falls_into_one_bin_of_every_feature(
    values: list[tuple[float, int, float, int]],
) -> None:
    sums = summed(values)
    for name in LAYOUT.names:
        bins = LAYOUT.histogram(name, sums).sum(axis=1) + LAYOUT.nulls(name, sums)
        assert (bins == sums[:, 0]).all()
    missing = sum(np.isnan(each[0]) for each in values)
    assert LAYOUT.nulls("x", sums).sum() == missing
    assert LAYOUT.nulls("c", sums).sum() == sum(WORDS[each[1]] == "" for each in values)
    assert LAYOUT.unseen("c", sums).sum() == sum(WORDS[each[1]] == "zzz" for each in values)


@given(VALUES.filter(bool))
def test_bytes_give_the_sums_back(values: list[tuple[float, int, float, int]]) -> None:
    for each in summed(values):
        assert (LAYOUT.from_bytes(LAYOUT.to_bytes(each)) == each).all()


def test_frequent_values_have_bins_of_their_own() -> None:
    sums = count(
        LAYOUT,
        Rows(
            np.zeros(4, np.intp),
            1,
            (
                NumberColumn(np.array([0, 0, np.nextafter(np.float32(0), 1), -1], np.float32)),
                CategoryColumn(np.zeros(4, np.int32), ["a"]),
            ),
            np.zeros(4),
        ),
    )[0]
    assert 2 in LAYOUT.histogram("x", sums)
    assert LAYOUT.out_of_range("x", sums) == 1


def test_another_reference_is_another_layout() -> None:
    other = layout_of(
        {"x": number_bins(NumberColumn(REFERENCE + 1)), "c": LAYOUT.bins[1]}, LAYOUT.bins[2]
    )
    assert other.fingerprint != LAYOUT.fingerprint
    assert a_layout().fingerprint == LAYOUT.fingerprint


def test_the_window_is_as_short_as_the_traffic_allows() -> None:
    day = np.arange(30) * 24 * HOUR_US
    busy = (day[:, None] + np.linspace(0, 24 * HOUR_US - 1, 900)[None, :]).astype(np.int64).ravel()
    assert window_length_us(busy) == 24 * HOUR_US
    assert window_length_us(np.arange(600_000) * (HOUR_US // 600)) == HOUR_US
    assert window_length_us(day) == 7 * 24 * HOUR_US


def thin(rows: int) -> np.ndarray:
    sums = LAYOUT.empty()
    sums[0] = rows
    return sums


@given(
    st.dictionaries(st.integers(0, 40), st.integers(1, 250), max_size=30),
    st.lists(st.integers(0, 45), max_size=8),
)
def test_windows_do_not_depend_on_where_judging_stopped(
    rows: dict[int, int], stops: list[int]
) -> None:
    sums = {start: thin(each) for start, each in rows.items()}
    at_once = list(due_windows(sums, length_us=1, from_us=-1, until_us=50))
    piecewise: list[Window | Skipped] = []
    begun = -1
    for until in [*sorted(stops), 50]:
        for each in due_windows(sums, length_us=1, from_us=begun, until_us=until):
            piecewise.append(each)
            begun = each.end_us
    assert [(type(a), a.start_us, a.end_us, a.rows) for a in at_once] == [
        (type(a), a.start_us, a.end_us, a.rows) for a in piecewise
    ]
    judged = [each for each in at_once if isinstance(each, Window)]
    assert all(each.rows >= 100 for each in judged)
    assert sum(each.rows for each in at_once) <= sum(rows.values())


def test_thin_windows_wait_for_the_next_and_are_given_up_in_the_end() -> None:
    sums = {0: thin(60), 1: thin(60), 2: thin(30), 20: thin(150)}
    found = list(due_windows(sums, length_us=1, from_us=0, until_us=30))
    assert [(type(each), each.start_us, each.rows) for each in found] == [
        (Window, 0, 120),
        (Skipped, 2, 30),
        (Window, 20, 150),
    ]


def test_partitions_are_merged_per_window() -> None:
    whole = merge([(0, thin(3)), (5, thin(4)), (0, thin(10))])
    assert {start: int(each[0]) for start, each in whole.items()} == {0: 13, 5: 4}
