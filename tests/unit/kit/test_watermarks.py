"""Watermarks: what a promise of every source on every partition amounts to."""

from hypothesis import given
from hypothesis import strategies as st

from homeostat.events.v1.column_pb2 import Watermark
from homeostat.topics import OUTCOMES, PREDICTIONS
from homeostat_kit.watermarks import Watermarks


def a_mark(source: str, at_us: int, *, is_closed: bool = False) -> Watermark:
    return Watermark(source_id=source, watermark_us=at_us, is_closed=is_closed)


def observed(*marks: tuple[int, Watermark]) -> Watermarks:
    watermarks = Watermarks()
    for partition, mark in marks:
        watermarks.observe(PREDICTIONS, partition, mark)
    return watermarks


def test_none_until_every_partition_has_a_mark() -> None:
    marks = observed((0, a_mark("a", 10)))
    assert marks.current(PREDICTIONS, 2) is None
    assert marks.current(PREDICTIONS, [0]) == 10
    assert marks.current(OUTCOMES, 1) is None


def test_the_slowest_source_on_the_slowest_partition_decides() -> None:
    marks = observed(
        (0, a_mark("b", 7)), (0, a_mark("a", 10)), (1, a_mark("b", 9)), (1, a_mark("a", 10))
    )
    assert marks.current(PREDICTIONS.name, 2) == 7


def test_a_new_source_takes_no_promise_back_but_holds_further_ones() -> None:
    marks = observed((0, a_mark("a", 10)), (0, a_mark("b", 7)), (0, a_mark("a", 20)))
    assert marks.current(PREDICTIONS, 1) == 10
    marks.observe(PREDICTIONS, 0, a_mark("b", 15))
    assert marks.current(PREDICTIONS, 1) == 15


def test_a_source_that_left_holds_nothing_back() -> None:
    marks = observed((0, a_mark("a", 5)), (0, a_mark("b", 9)))
    marks.observe(PREDICTIONS, 0, a_mark("a", 6, is_closed=True))
    assert marks.current(PREDICTIONS, 1) == 9


def test_the_last_source_to_leave_keeps_its_promise() -> None:
    marks = observed((0, a_mark("a", 5)), (0, a_mark("a", 8, is_closed=True)))
    assert marks.current(PREDICTIONS, 1) == 8


def test_a_mark_from_before_the_leaving_does_not_bring_a_source_back() -> None:
    marks = observed((0, a_mark("a", 8, is_closed=True)), (0, a_mark("a", 5)), (0, a_mark("b", 20)))
    assert marks.current(PREDICTIONS, 1) == 20


def test_in_a_new_life_of_the_broker_only_who_speaks_there_holds_back() -> None:
    marks = observed((0, a_mark("a", 10)), (0, a_mark("gone", 7)), (0, a_mark("a", 20)))
    assert marks.current(PREDICTIONS, 1) == 10
    marks.begin_anew()
    assert marks.current(PREDICTIONS, 1) == 10
    marks.observe(PREDICTIONS, 0, a_mark("a", 5))
    assert marks.current(PREDICTIONS, 1) == 10
    marks.observe(PREDICTIONS, 0, a_mark("a", 20))
    assert marks.current(PREDICTIONS, 1) == 20


def test_a_source_that_came_back_holds_back_again() -> None:
    marks = observed(
        (0, a_mark("a", 8, is_closed=True)), (0, a_mark("a", 12)), (0, a_mark("b", 20))
    )
    assert marks.current(PREDICTIONS, 1) == 12


MARKS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.builds(a_mark, st.sampled_from("abc"), st.integers(-5, 50), is_closed=st.booleans()),
    ),
    max_size=30,
)


@given(MARKS)
def test_it_never_falls(marks: list[tuple[int, Watermark]]) -> None:
    watermarks, before = Watermarks(), None
    for partition, mark in marks:
        watermarks.observe(PREDICTIONS, partition, mark)
        now = watermarks.current(PREDICTIONS, 2)
        assert before is None or (now is not None and now >= before)
        before = now


@given(MARKS)
def test_reading_everything_twice_changes_nothing(marks: list[tuple[int, Watermark]]) -> None:
    """A new life of the broker is read from its start, and holds what the old one held."""
    rising = [
        (partition, a_mark(mark.source_id, index, is_closed=mark.is_closed))
        for index, (partition, mark) in enumerate(marks)
    ]
    assert observed(*rising, *rising).to_json() == observed(*rising).to_json()


@given(MARKS)
def test_the_state_survives_storage(marks: list[tuple[int, Watermark]]) -> None:
    watermarks = observed(*marks)
    restored = Watermarks.from_json(watermarks.to_json())
    assert restored.to_json() == watermarks.to_json()
    assert restored.current(PREDICTIONS, 2) == watermarks.current(PREDICTIONS, 2)
