"""Which mode a version is judged in, and what its reference is too short to know."""

import numpy as np
import pytest
from tests.support.natural_streams import (
    DAY_US,
    Ints,
    Stream,
    a_reference,
    a_stream,
    autoregressive,
)

from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.detection.mode import ModeChoice, choose_mode
from homeostat_monitor.domain.windows.reference import ReferenceCounts


def choice(stream: Stream) -> ModeChoice:
    reference = a_reference(stream)
    return choose_mode(reference, ReferenceCounts(reference))


def shuffled(stream: Stream, seed: int = 0) -> Stream:
    order = np.random.default_rng(seed).permutation(stream.rows)
    return rows_of(stream, order, stream.times_us)


def rows_of(stream: Stream, order: Ints, times_us: Ints) -> Stream:
    return Stream(
        times_us,
        {name: each[order] for name, each in stream.columns.items()},
        {name: each[order] for name, each in stream.texts.items()},
    )


def seconds(rows: int) -> Ints:
    return np.arange(rows, dtype=np.int64) * 1_000_000


def test_a_stream_in_its_order_is_time_ordered_and_the_reason_has_figure_and_feature() -> None:
    found = choice(a_stream(0, 20))
    assert found.mode is Mode.TIME_ORDERED
    assert "times as much in" in found.reason
    assert any(name in found.reason for name in ("slow", "season"))


def test_the_same_rows_in_random_order_are_iid() -> None:
    stream = a_stream(0, 20)
    assert all(choice(shuffled(stream, seed)).mode is Mode.IID for seed in range(10))


def test_random_rows_are_iid_at_the_level() -> None:
    found = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        columns = {"a": rng.normal(size=2000), "b": rng.exponential(size=2000)}
        found.append(choice(Stream(seconds(2000), columns, {"c": rng.integers(0, 4, 2000)})))
    assert all(each.mode is Mode.IID for each in found)


def test_a_short_memory_of_a_single_feature_is_enough() -> None:
    rng = np.random.default_rng(1)
    columns = {"white": rng.normal(size=5000), "ar": autoregressive(rng, 5000, 0.7)}
    found = choice(Stream(seconds(5000), columns, {}))
    assert found.mode is Mode.TIME_ORDERED
    assert "in ar" in found.reason


@pytest.mark.parametrize("times", [2, 5])
def test_rows_written_several_times_in_a_row_are_taken_once(times: int) -> None:
    stream = shuffled(a_stream(0, 10))
    order = np.repeat(np.arange(stream.rows), times)
    found = choice(rows_of(stream, order, seconds(len(order))))
    assert found.mode is Mode.IID
    assert any("repeat the row before" in each for each in found.remarks)


def test_rows_drawn_with_replacement_are_iid() -> None:
    stream = a_stream(0, 10)
    order = np.random.default_rng(2).integers(0, 500, 6000)
    assert choice(rows_of(stream, order, seconds(6000))).mode is Mode.IID


def test_a_sorted_reference_does_not_show_that_order_is_of_no_matter() -> None:
    stream = shuffled(a_stream(0, 10))
    order = np.argsort(stream.columns["white"])
    found = choice(rows_of(stream, order, stream.times_us))
    assert found.mode is Mode.TIME_ORDERED
    assert any("sorted by white" in each for each in found.remarks)


def test_one_event_time_for_all_is_told() -> None:
    stream = shuffled(a_stream(0, 10))
    found = choice(Stream(np.zeros(stream.rows, np.int64), stream.columns, stream.texts))
    assert found.mode is Mode.IID
    assert any("same event time" in each for each in found.remarks)


@pytest.mark.parametrize("rows", [0, 1, 10, 999])
def test_a_short_reference_is_judged_with_care(rows: int) -> None:
    stream = a_stream(0, 2).part(0, rows)
    reference = a_reference(stream)
    counts = ReferenceCounts(reference) if rows else ReferenceCounts(a_reference(a_stream(0, 1)))
    found = choose_mode(reference, counts)
    assert found.mode is Mode.TIME_ORDERED
    assert f"{rows} rows are too few" in found.reason


def test_constant_features_show_nothing() -> None:
    found = choice(Stream(seconds(3000), {"x": np.ones(3000)}, {"c": np.zeros(3000, np.int64)}))
    assert found.mode is Mode.TIME_ORDERED
    assert "no feature varies" in found.reason


@pytest.mark.parametrize(
    ("span_us", "said"),
    [
        (DAY_US // 4, "hours of a day"),
        (3 * DAY_US, "days of a week"),
        (31 * DAY_US, "spans 31 days: it cannot know the seasons of a year"),
        (400 * DAY_US, None),
    ],
)
def test_what_the_reference_is_too_short_to_know_is_remarked(span_us: int, said: str) -> None:
    stream = a_stream(0, 3)
    times = np.linspace(0, span_us, stream.rows).astype(np.int64)
    remarks = choice(Stream(times, stream.columns, stream.texts)).remarks
    assert (not remarks) if said is None else any(said in each for each in remarks)
