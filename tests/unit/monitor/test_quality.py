"""Data quality: rows come when the calendar expects them, and each but once."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.natural_streams import DAY_US, Ints, Stream, a_reference, windows

from homeostat_monitor.domain.detection.budget import Budget
from homeostat_monitor.domain.detection.duplicates import chance, extra_copies
from homeostat_monitor.domain.detection.quality import QualityDetector, quality
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.reference import ReferenceCounts
from homeostat_monitor.domain.windows.window import HOUR_US, Window

LEVEL = 1e-6
WEEK_HOURS = 168
SHOP_OPENS, SHOP_CLOSES = 8, 20


def hours(seed: int, weeks: int, usual: float = 60.0) -> Ints:
    """Rows per hour of a shop: none at night, half on weekends, overdispersed."""
    rng = np.random.default_rng(seed)
    hour = np.arange(weeks * WEEK_HOURS)
    of_day, day = hour % 24, hour // 24 % 7
    mean = usual * ((of_day >= SHOP_OPENS) & (of_day < SHOP_CLOSES)) * np.where(day >= 5, 0.5, 1.0)
    return rng.poisson(mean * rng.gamma(20, 1 / 20, len(hour)))


def stream_of(rows_an_hour: Ints, seed: int = 0, length_us: int = HOUR_US) -> Stream:
    rng = np.random.default_rng(seed)
    at = np.repeat(np.arange(len(rows_an_hour)) * length_us, rows_an_hour)
    times = np.sort(at + rng.integers(0, length_us, len(at)))
    return Stream(times, {"x": rng.normal(size=len(at)), "y": rng.normal(size=len(at))}, {})


@pytest.fixture(scope="module")
def counts() -> ReferenceCounts:
    """A sample of a tenth of three weeks."""
    return ReferenceCounts(a_reference(stream_of(hours(1, 3, 6.0))))


def fed(counts: ReferenceCounts, rows: Ints) -> tuple[QualityDetector, list[list[Finding]]]:
    detector = quality(counts, length_us=HOUR_US, level_per_look=LEVEL)
    live = windows(counts, stream_of(rows), HOUR_US)
    return detector, detector.feed(live)


def arrival(found: list[list[Finding]]) -> list[Finding]:
    return [one for each in found for one in each if one.rule is Rule.ARRIVAL_RATE]


def breaches(found: list[list[Finding]]) -> list[Finding]:
    return [one for one in arrival(found) if one.is_breach]


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_traffic_by_the_calendar_is_silent_at_any_share_of_the_reference(
    counts: ReferenceCounts, seed: int
) -> None:
    for usual in (60.0, 7.0):
        _, found = fed(counts, hours(seed, 5, usual))
        assert len(arrival(found)) > 100
        assert breaches(found) == []


def test_a_silent_noon_is_told_with_its_beginning_and_a_silent_night_is_not(
    counts: ReferenceCounts,
) -> None:
    rows = hours(11, 4)
    noon = 3 * WEEK_HOURS + 2 * 24 + 10
    rows[noon : noon + 4] = 0
    _, found = fed(counts, rows)
    (one,) = breaches(found)
    assert one.statistic == "times_fewer_rows"
    assert one.since_us == noon * HOUR_US


def test_the_first_day_already_teaches_the_scale_of_the_references_shape(
    counts: ReferenceCounts,
) -> None:
    rows = hours(11, 1)
    rows[3 * 24 + 10 : 3 * 24 + 15] = 0
    assert len(breaches(fed(counts, rows)[1])) == 1


def test_a_twentieth_of_the_rows_is_told(counts: ReferenceCounts) -> None:
    rows = hours(11, 4)
    noon = 3 * WEEK_HOURS + 24 + 12
    rows[noon] //= 20
    (one,) = breaches(fed(counts, rows)[1])
    assert one.statistic == "times_fewer_rows"
    assert one.observed > one.threshold >= 2
    assert one.p_value is not None
    assert one.p_value < LEVEL


def test_five_times_the_rows_are_told(counts: ReferenceCounts) -> None:
    rows = hours(11, 4)
    rows[3 * WEEK_HOURS + 24 + 12] *= 5
    (one,) = breaches(fed(counts, rows)[1])
    assert one.statistic == "times_more_rows"


def test_a_few_rows_at_night_are_no_burst(counts: ReferenceCounts) -> None:
    rows = hours(11, 4)
    rows[3 * WEEK_HOURS + 24 + 2] = 1
    assert breaches(fed(counts, rows)[1]) == []


def test_a_new_level_is_told_and_then_learned(counts: ReferenceCounts) -> None:
    rows = np.concatenate([hours(11, 4), 6 * hours(12, 4)])
    _, found = fed(counts, rows)
    ends = [bool(breaches([each])) for each in found]
    assert any(ends)
    assert not any(ends[-12 * 7 * 2 :])


def test_rows_are_overdue_before_any_window_says_so(counts: ReferenceCounts) -> None:
    rows = hours(11, 4)[: 3 * WEEK_HOURS + 10]
    detector, _ = fed(counts, rows)
    before = detector.to_bytes()
    end = len(rows) * HOUR_US
    assert detector.overdue(end) is None
    late = detector.overdue(end + 3 * HOUR_US)
    assert late is not None
    assert late.is_breach
    assert late.since_us == end
    assert detector.to_bytes() == before


def closed(kind: str, seed: int, weeks: int, usual: float) -> Ints:
    """Rows per hour of what sleeps: at night, on weekends, all day but for one hour."""
    rng = np.random.default_rng(seed)
    hour = np.arange(weeks * WEEK_HOURS)
    of_day, day = hour % 24, hour // 24 % 7
    is_open = {
        "nights": (of_day >= SHOP_OPENS) & (of_day < SHOP_CLOSES),
        "weekends": (of_day >= SHOP_OPENS) & (of_day < SHOP_CLOSES) & (day < 5),
        "called once a day": of_day == 3,
        "called once a working day": (of_day == 3) & (day < 5),
        "called once a week": (of_day == 3) & (day == 1),
    }[kind]
    return rng.poisson(usual * is_open * rng.gamma(20, 1 / 20, len(hour)))


def silences(detector: QualityDetector, live: list[Window], length_us: int) -> list[Finding]:
    """What is told while nothing comes, looked for at every length, and at windows."""
    told: list[Finding] = []
    for window, following in pairwise(live):
        told += breaches(detector.feed([window]))
        looks = range(window.end_us + 2 * length_us, following.start_us + 1, length_us)
        found = [detector.overdue(at) for at in looks]
        told += [each for each in found if each is not None]
    return told


@pytest.mark.parametrize(
    "kind",
    [
        "nights",
        "weekends",
        "called once a day",
        "called once a working day",
        "called once a week",
    ],
)
@pytest.mark.parametrize("reference_hours", [4 * WEEK_HOURS, 2 * WEEK_HOURS, 200, 72])
@pytest.mark.parametrize("length_us", [HOUR_US, DAY_US])
def test_closed_hours_and_days_are_no_silence_whatever_the_reference_knows_of_them(
    kind: str, reference_hours: int, length_us: int
) -> None:
    level = Budget(0.1).level_per_look(length_us)
    reference = stream_of(closed(kind, 1, 4, 12.0)[:reference_hours])
    counts = ReferenceCounts(a_reference(reference))
    detector = quality(counts, length_us=length_us, level_per_look=level)
    live = windows(counts, stream_of(closed(kind, 2, 6, 60.0)), length_us)
    assert silences(detector, live, length_us) == []


def test_a_silent_monday_after_closed_weekends_is_told() -> None:
    counts = ReferenceCounts(a_reference(stream_of(closed("weekends", 1, 4, 12.0))))
    rows = closed("weekends", 2, 4, 60.0)
    monday = 3 * WEEK_HOURS
    detector, _ = fed(counts, rows[:monday])
    end = (monday - 52) * HOUR_US  # Friday 20:00
    assert detector.overdue(end + 60 * HOUR_US) is None  # Monday 8:00
    late = detector.overdue(end + 64 * HOUR_US)
    assert late is not None
    assert late.since_us == end


def test_without_a_week_of_anything_nothing_is_said() -> None:
    short = ReferenceCounts(a_reference(stream_of(hours(1, 1)[:30], 0)))
    rows = hours(11, 1)
    rows[60:64] = 0
    assert arrival(fed(short, rows)[1]) == []


@pytest.mark.parametrize("length_us", [1_000_000, 60_000_000, HOUR_US, 3 * HOUR_US, DAY_US])
def test_every_length_of_pane_and_window_has_its_phases(length_us: int) -> None:
    rng = np.random.default_rng(5)
    counts = ReferenceCounts(a_reference(stream_of(rng.poisson(5, 3 * WEEK_HOURS))))
    slots = 400 if length_us < HOUR_US else 4 * WEEK_HOURS * HOUR_US // length_us
    rows = rng.poisson(40, slots)
    detector = quality(counts, length_us=length_us, level_per_look=LEVEL)
    live = windows(counts, stream_of(rows, length_us=length_us), length_us)
    assert all(one.observed < 3 for one in arrival(detector.feed(live)))


def test_a_backlog_that_drains_is_the_traffic_that_it_was(counts: ReferenceCounts) -> None:
    """Partition by partition: sums of event-time windows do not know when rows came."""
    stream = stream_of(hours(11, 4))
    parts = [stream.part(0, stream.rows // 2), stream.part(stream.rows // 2, stream.rows)]
    whole = {each.start_us: each for each in windows(counts, stream, HOUR_US)}
    merged: dict[int, Window] = {}
    for part in reversed(parts):
        for each in windows(counts, part, HOUR_US):
            before = merged.get(each.start_us)
            merged[each.start_us] = (
                each if before is None else replace(each, sums=before.sums + each.sums)
            )
    assert merged.keys() == whole.keys()
    assert all((merged[at].sums == whole[at].sums).all() for at in whole)
    one, other = (quality(counts, length_us=HOUR_US, level_per_look=LEVEL) for _ in range(2))
    in_order = [merged[at] for at in sorted(merged)]
    assert one.feed(in_order) == other.feed(list(whole.values()))


def test_a_stored_detector_goes_on_bit_for_bit_in_other_portions(counts: ReferenceCounts) -> None:
    rows = hours(11, 3)
    rows[2 * WEEK_HOURS + 34 : 2 * WEEK_HOURS + 60] *= 4
    live = windows(counts, stream_of(rows), HOUR_US)
    whole = quality(counts, length_us=HOUR_US, level_per_look=LEVEL)
    at_once = whole.feed(live)

    @settings(max_examples=8, deadline=None)
    @given(cut=st.integers(0, len(live)))
    def check(cut: int) -> None:
        first = quality(counts, length_us=HOUR_US, level_per_look=LEVEL)
        found = first.feed(live[:cut])
        second = quality(counts, length_us=HOUR_US, level_per_look=LEVEL)
        second.restore(first.to_bytes())
        assert found + second.feed(live[cut:]) == at_once
        assert second.to_bytes() == whole.to_bytes()

    check()


def test_corrupt_state_is_refused(counts: ReferenceCounts) -> None:
    detector, _ = fed(counts, hours(11, 1))
    state = detector.to_bytes()
    for at in range(0, len(state), max(len(state) // 40, 1)):
        with pytest.raises(CorruptState):
            detector.restore(state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :])
    other = quality(counts, length_us=DAY_US, level_per_look=LEVEL)
    with pytest.raises(CorruptState):
        other.restore(state)


def copies(counts: ReferenceCounts, rows: int, twice: float, seed: int = 0) -> Finding:
    rng = np.random.default_rng(seed)
    at = np.sort(np.concatenate([np.arange(rows), rng.choice(rows, int(twice * rows), False)]))
    stream = stream_of(np.array([rows]), seed)
    columns = {name: each[at] for name, each in stream.columns.items()}
    (window,) = windows(counts, Stream(stream.times_us[at], columns, {}), HOUR_US)
    detector = quality(counts, length_us=HOUR_US, level_per_look=LEVEL)
    (found,) = [
        one for each in detector.feed([window]) for one in each if one.rule is Rule.DUPLICATES
    ]
    return found


@pytest.mark.parametrize("rows", [30, 200, 3000])
def test_rows_that_come_twice_are_told_with_their_share(counts: ReferenceCounts, rows: int) -> None:
    found = copies(counts, rows, 1.0)
    assert found.is_breach
    assert found.observed == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("rows", [30, 200, 3000])
def test_different_rows_are_no_duplicates(counts: ReferenceCounts, rows: int) -> None:
    assert not any(copies(counts, rows, 0.0, seed).is_breach for seed in range(30))


def test_a_reference_whose_rows_repeat_explains_repeats() -> None:
    stream = stream_of(hours(1, 3, 12.0))
    at = np.repeat(np.arange(stream.rows), 2)
    twice = Stream(stream.times_us[at], {k: v[at] for k, v in stream.columns.items()}, {})
    assert not copies(ReferenceCounts(a_reference(twice)), 1000, 1.0).is_breach


def test_where_rows_are_often_alike_by_nature_duplicates_are_not_judged() -> None:
    stream = stream_of(hours(1, 3, 12.0))
    few = Stream(stream.times_us, {"x": np.round(stream.columns["x"])}, {})
    detector = quality(ReferenceCounts(a_reference(few)), length_us=HOUR_US, level_per_look=LEVEL)
    found = detector.feed([Window(0, HOUR_US, ReferenceCounts(a_reference(few)).sums)])
    assert not any(one.rule is Rule.DUPLICATES for one in found[0])


def test_chance_of_sharing_a_bucket_is_below_its_limit() -> None:
    rng = np.random.default_rng(7)
    for rows in (30, 100, 1000, 20_000):
        seen = extra_copies(rng.multinomial(rows, np.full(256, 1 / 256), size=2000))
        assert (seen > chance(rows, 1e-2)).mean() < 0.02
