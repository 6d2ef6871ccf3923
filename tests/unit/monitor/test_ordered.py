"""Time-ordered mode: silent on streams that move by themselves, awake where they break."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.natural_streams import (
    DAY_US,
    Stream,
    a_reference,
    a_stream,
    windows,
)

from homeostat_monitor.domain.detection import Detector
from homeostat_monitor.domain.detection.calendar import Calendar, period_windows
from homeostat_monitor.domain.detection.ordered import ordered
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.judges.distance import FLOOR, limits, measure, strides
from homeostat_monitor.domain.judges.outside import outside_elsewhere
from homeostat_monitor.domain.windows.layout import SCORE
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import HOUR_US, Window

ROWS_A_DAY = 600
REFERENCE_DAYS = 28


@cache
def a_world(seed: int, trend: float = 0.0) -> tuple[Stream, ReferenceCounts]:
    stream = a_stream(seed, 70, trend=trend)
    return stream, ReferenceCounts(a_reference(stream.part(0, REFERENCE_DAYS * ROWS_A_DAY)))


def a_detector(counts: ReferenceCounts, length_us: int = DAY_US) -> Detector:
    return ordered(counts, length_us=length_us, level_per_look=1e-4)


def days(stream: Stream, first: int, last: int) -> Stream:
    return stream.part(first * ROWS_A_DAY, last * ROWS_A_DAY)


def breaches(findings: list[Finding]) -> set[tuple[Rule, str]]:
    return {(each.rule, each.feature) for each in findings if each.is_breach}


@pytest.mark.parametrize("trend", [0.0, 0.05])
@pytest.mark.parametrize("length_us", [6 * HOUR_US, DAY_US])
def test_streams_that_remember_and_have_seasons_are_silent(trend: float, length_us: int) -> None:
    alarms = looks = 0
    for seed in range(2):
        stream, counts = a_world(seed, trend)
        live = windows(counts, days(stream, REFERENCE_DAYS, 60), length_us)
        found = a_detector(counts, length_us).feed(live)
        alarms += sum(bool(breaches(each)) for each in found)
        looks += len(found)
    assert alarms <= 0.05 * looks


def rain(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Mostly nothing; showers that last for hours, each of a strength of its own."""
    fallen, at = np.zeros(rows), 0
    while at < rows:
        at += int(rng.exponential(5 * ROWS_A_DAY))
        lasts = min(int(rng.exponential(ROWS_A_DAY / 2)), max(rows - at, 0))
        fallen[at : at + lasts] = rng.exponential(rng.exponential(), lasts).round(2)
        at += lasts
    return fallen


def test_a_shower_heavier_than_any_before_is_no_news_where_showers_differ() -> None:
    alarms = looks = 0
    for seed in range(6):
        stream = a_stream(seed, 70)
        stream.columns["slow"][:] = rain(np.random.default_rng(seed), stream.rows)
        counts = ReferenceCounts(a_reference(days(stream, 0, REFERENCE_DAYS)))
        found = a_detector(counts).feed(windows(counts, days(stream, REFERENCE_DAYS, 70), DAY_US))
        alarms += sum(any(name == "slow" for _, name in breaches(each)) for each in found)
        looks += len(found)
    assert alarms <= 0.02 * looks


def missing(part: Stream, rng: np.random.Generator) -> None:
    part.columns["slow"][rng.random(part.rows) < 0.1] = np.nan


def unit(part: Stream, rng: np.random.Generator) -> None:
    part.columns["season"][:] *= 10


def stuck(part: Stream, rng: np.random.Generator) -> None:
    part.columns["season"][:] = part.columns["season"][0]


def new_text(part: Stream, rng: np.random.Generator) -> None:
    part.texts["kind"][rng.random(part.rows) < 0.2] = 7


def step(part: Stream, rng: np.random.Generator) -> None:
    part.columns["white"][:] += 1


def sentinel(part: Stream, rng: np.random.Generator) -> None:
    part.columns["slow"][rng.random(part.rows) < 0.05] = -999.0


def apart(part: Stream, rng: np.random.Generator) -> None:
    part.columns["like_slow"][:] = rng.permutation(part.columns["like_slow"])


FAULTS = {
    missing: (Rule.MISSING_VALUES, "slow"),
    unit: (Rule.OUT_OF_RANGE, "season"),
    stuck: (Rule.STUCK, "season"),
    new_text: (Rule.UNSEEN_VALUES, "kind"),
    step: (Rule.COVARIATE, "white"),
    sentinel: (Rule.OUT_OF_RANGE, "slow"),
    apart: (Rule.CORRELATION, "slow"),
}


def with_fault(
    stream: Stream, fault: Callable[[Stream, np.random.Generator], None], first: int, last: int
) -> Stream:
    """The days from 28 to ``last``, broken from day ``first`` on."""
    whole = days(stream, REFERENCE_DAYS, last)
    broken = days(stream, first, last)
    fault(broken, np.random.default_rng(1))
    at = (first - REFERENCE_DAYS) * ROWS_A_DAY
    for name, each in whole.columns.items():
        each[at:] = broken.columns[name]
    for name, codes in whole.texts.items():
        codes[at:] = broken.texts[name]
    return whole


@pytest.mark.parametrize("fault", FAULTS, ids=lambda each: each.__name__)
def test_a_fault_is_seen_on_its_first_day(
    fault: Callable[[Stream, np.random.Generator], None],
) -> None:
    stream, counts = a_world(0)
    live = windows(counts, with_fault(stream, fault, 50, 51), DAY_US)
    rule, feature = FAULTS[fault]
    found = breaches(a_detector(counts).feed(live)[-1])
    assert rule in {each for each, _ in found}
    assert feature in {name for each, name in found if each is rule} or rule is Rule.CORRELATION


def test_a_step_that_lasts_is_not_learned_as_the_prior_period() -> None:
    stream, counts = a_world(1)
    live = windows(counts, with_fault(stream, step, 40, 70), DAY_US)
    found = a_detector(counts).feed(live)
    seen = [(Rule.COVARIATE, "white") in breaches(each) for each in found]
    assert not any(seen[:12])
    assert all(seen[12:])


def test_what_breaks_in_one_feature_is_learned_of_the_others() -> None:
    stream, counts = a_world(2, 0.05)
    live = windows(counts, with_fault(stream, step, 30, 70), DAY_US)
    found = a_detector(counts).feed(live)
    others = [each - {(Rule.COVARIATE, "white")} for each in map(breaches, found)]
    assert sum(map(bool, others)) <= 0.05 * len(others)


def test_a_phase_that_the_reference_knows_is_no_news() -> None:
    """Every Sunday alike is far from the rest; four of them in the reference make a habit."""
    stream, _ = a_world(0)
    weekday = stream.times_us // DAY_US % 7
    stream.texts["kind"][weekday == 6] = 4
    counts = ReferenceCounts(a_reference(stream.part(0, 28 * ROWS_A_DAY)))
    try:
        found = a_detector(counts).feed(windows(counts, days(stream, 28, 56), DAY_US))
    finally:
        a_world.cache_clear()
    assert not any((Rule.COVARIATE, "kind") in breaches(each) for each in found)


def test_the_prior_period_is_a_day_of_hours_or_a_week_of_days() -> None:
    assert [period_windows(hours * HOUR_US) for hours in (1, 3, 6, 24, 168)] == [24, 8, 7, 7, 7]


def test_the_calendar_forgets_half_of_a_phase_after_eight_windows() -> None:
    _, counts = a_world(1)
    calendar = Calendar(counts.layout, DAY_US)
    sums = counts.grouped(np.zeros(counts.rows, dtype=np.intp), 1)[0]
    for week in range(100):
        start = week * 7 * DAY_US
        calendar.learn("white", Window(start, start + DAY_US, sums))
    phase = calendar.arrays()["week"]
    white = counts.layout.histogram("white", phase).sum(axis=1).max()
    assert white <= 9 * counts.rows


def test_a_stored_detector_goes_on_bit_for_bit_in_other_portions() -> None:
    stream, counts = a_world(2)
    live = windows(counts, with_fault(stream, step, 50, 60), 6 * HOUR_US)
    whole = a_detector(counts, 6 * HOUR_US)
    at_once = whole.feed(live)

    @settings(max_examples=5, deadline=None)
    @given(cut=st.integers(0, len(live)))
    def check(cut: int) -> None:
        first = a_detector(counts, 6 * HOUR_US)
        found = first.feed(live[:cut])
        second = a_detector(counts, 6 * HOUR_US)
        second.restore(first.to_bytes())
        assert second.to_bytes() == first.to_bytes()
        assert found + second.feed(live[cut:]) == at_once
        assert second.to_bytes() == whole.to_bytes()

    check()


def test_a_window_that_comes_again_is_not_learned_twice() -> None:
    stream, counts = a_world(2)
    live = windows(counts, days(stream, 28, 40), DAY_US)
    detector = a_detector(counts)
    detector.feed(live)
    before = detector.to_bytes()
    detector.feed(live[-3:])
    assert detector.to_bytes() == before


def test_corrupt_state_is_refused() -> None:
    _, counts = a_world(2)
    state = bytearray(a_detector(counts).to_bytes())
    detector = a_detector(counts)
    for at in range(0, len(state), max(len(state) // 50, 1)):
        broken = bytes(state[:at]) + bytes([state[at] ^ 1]) + bytes(state[at + 1 :])
        with pytest.raises(CorruptState):
            detector.restore(broken)
    for end in (0, 10, 40, len(state) - 1):
        with pytest.raises(CorruptState):
            detector.restore(bytes(state[:end]))


def test_state_of_another_window_length_or_reference_is_refused() -> None:
    _, counts = a_world(2)
    _, other = a_world(1)
    with pytest.raises(CorruptState):
        a_detector(counts, 6 * HOUR_US).restore(a_detector(counts, DAY_US).to_bytes())
    with pytest.raises(CorruptState):
        a_detector(counts).restore(a_detector(other).to_bytes())


def test_an_almost_empty_column_has_no_distribution_to_drift() -> None:
    reference = np.array([3, 2, 1, 0, 2, 1], dtype=np.int64)
    window = np.array([0, 9, 30, 0, 1, 5], dtype=np.int64)
    assert measure(reference, window, limits(reference, [])) is None
    assert measure(reference * 1000, window, limits(reference, [])) is None


def test_a_hundred_values_do_not_alarm_by_chance() -> None:
    """JS of .1 and PSI of .2 do all the time on ten bins of a hundred values."""
    rng = np.random.default_rng(3)
    rows = rng.multinomial(100, [0.1] * 10, size=500).astype(np.int64)
    reference = rows.sum(axis=0)
    calibrated = limits(reference, [(100, rows[:100])])
    found = [measure(reference, each, calibrated) for each in rows[100:]]
    over = [each for each in found if each is not None and each[0] > each[2]]
    above_usual = [each for each in found if each is not None and each[0] > FLOOR]
    assert len(above_usual) > 50
    assert len(over) <= 2


def test_in_a_world_that_stands_a_step_stays_one_however_long_ago() -> None:
    rng = np.random.default_rng(4)
    halves = rng.multinomial(500, [0.25] * 4, size=200).astype(np.int64)
    standing = strides([(1000, halves[:-1] + halves[1:])], 7)
    assert standing.at(1000, 1) == standing.at(1000, 32) == FLOOR


def test_in_a_world_that_wanders_the_past_explains_more_the_longer_ago() -> None:
    level = np.clip(0.5 + 0.004 * np.arange(100), 0.05, 0.95)
    halves = np.round(500 * np.column_stack([level, 1 - level])).astype(np.int64)
    wandering = strides([(1000, halves[:-1] + halves[1:])], 2)
    assert wandering.at(1000, 16) > wandering.at(1000, 1)


def test_outside_elsewhere_compares_each_block_with_all_the_others() -> None:
    values = np.array([1.0, 2.0, 3.0, 9.0, 2.0, np.nan, 0.0, 2.5])
    assert outside_elsewhere(values, 2).tolist() == [0.0, 1.0, 0.0, 0.5]
    assert outside_elsewhere(values, 8).tolist() == []


def test_training_rows_without_honest_scores_make_no_habit_of_scores_that_are_no_numbers() -> None:
    stream, _ = a_world(3)
    reference = a_reference(stream.part(0, REFERENCE_DAYS * ROWS_A_DAY))
    is_holdout = np.arange(reference.rows) % 5 == 0
    scores = np.random.default_rng(3).normal(size=reference.rows)
    counts = ReferenceCounts(replace(reference, scores=scores, is_holdout=is_holdout))
    detector = a_detector(counts)
    live = windows(counts, days(stream, REFERENCE_DAYS, REFERENCE_DAYS + 2), DAY_US)
    at = counts.layout.names.index(SCORE)
    start, end = counts.layout.starts[at], counts.layout.starts[at] + counts.layout.bins[at].width
    live[0].sums[start:end], live[0].sums[end] = counts.score_sums, 0
    calm, broken = detector.feed(live)
    assert (Rule.MISSING_VALUES, "") not in breaches(calm)
    assert (Rule.MISSING_VALUES, "") in breaches(broken)
