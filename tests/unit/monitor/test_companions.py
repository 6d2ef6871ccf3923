"""Companions: what belongs together goes together, however far it wanders."""

import numpy as np
import pytest
from numpy.typing import NDArray

from homeostat_monitor.domain.judges import Past
from homeostat_monitor.domain.judges.companions import CompanionJudge, companion_judge
from homeostat_monitor.domain.windows.bins import NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows, count
from homeostat_monitor.domain.windows.window import Window

LEVEL = 1e-4
DAY_ROWS = 400
Floats = NDArray[np.float64]


def wandering(rows: int, draw: np.random.Generator, memory: float = 0.999) -> Floats:
    """AR(1) of unit deviation."""
    steps = draw.normal(0, np.sqrt(1 - memory**2), rows)
    values = np.empty(rows)
    value = draw.normal()
    for i, step in enumerate(steps.tolist()):
        value = memory * value + step
        values[i] = value
    return values


def weather(rows: int, seed: int) -> dict[str, Floats]:
    """A temperature, a dew point below it, and a wind that has nothing to do with either."""
    draw = np.random.default_rng(seed)
    temperature = 50 + 15 * wandering(rows, draw)
    dew_point = temperature - 8 - 2 * wandering(rows, draw) + draw.normal(0, 1, rows)
    return {"temp": temperature, "dewp": dew_point, "wind": 5 + wandering(rows, draw)}


def counted(rows: dict[str, Floats]) -> ReferenceCounts:
    total = len(rows["temp"])
    return ReferenceCounts(
        ReferenceRows(
            event_times_us=np.arange(total),
            features={name: NumberColumn(values) for name, values in rows.items()},
            scores=np.linspace(0, 1, total),
            is_holdout=np.ones(total, dtype=bool),
            holdout=Holdout(np.zeros(0), np.zeros(0, dtype=np.int64)),
        )
    )


def windows(counts: ReferenceCounts, rows: dict[str, Floats]) -> list[Window]:
    total = len(rows["temp"]) // DAY_ROWS
    kept = {name: values[: total * DAY_ROWS] for name, values in rows.items()}
    groups = np.arange(total * DAY_ROWS) // DAY_ROWS
    columns = [NumberColumn(values) for values in kept.values()]
    sums = count(counts.layout, Rows(groups, total, columns, np.zeros(len(groups))))
    return [Window(i, i + 1, each) for i, each in enumerate(sums)]


@pytest.fixture(scope="module")
def known() -> tuple[ReferenceCounts, CompanionJudge]:
    counts = counted(weather(12_000, 1))
    return counts, companion_judge(counts, LEVEL)


def breaches(
    known: tuple[ReferenceCounts, CompanionJudge], rows: dict[str, Floats]
) -> list[list[str]]:
    counts, judge = known
    found = []
    for window in windows(counts, rows):
        over = [each for each in judge.judge(counts.layout, window) if each.is_breach]
        found.append([e.feature for e in sorted(over, key=lambda each: -each.excess)])
    return found


def test_each_finds_its_companion_and_the_lonely_none(
    known: tuple[ReferenceCounts, CompanionJudge],
) -> None:
    companions = {name: companion for name, (companion, _) in known[1].lines.items()}
    assert companions == {"temp": "dewp", "dewp": "temp"}


@pytest.mark.parametrize("seed", range(2, 7))
def test_a_stream_that_wanders_far_raises_nothing(
    known: tuple[ReferenceCounts, CompanionJudge], seed: int
) -> None:
    rows = weather(100 * DAY_ROWS, seed)
    # As far as the reference never was: the next season.
    rows["temp"] += 40
    rows["dewp"] += 40
    assert not any(breaches(known, rows))


def test_another_unit_is_seen_in_its_first_window_and_the_right_one_comes_first(
    known: tuple[ReferenceCounts, CompanionJudge],
) -> None:
    rows = weather(10 * DAY_ROWS, 8)
    rows["temp"][5 * DAY_ROWS :] = (rows["temp"][5 * DAY_ROWS :] - 32) / 1.8
    found = breaches(known, rows)
    assert not any(found[:5])
    assert found[5][0] == "temp"
    assert all(found[5:])


def test_what_was_off_before_is_not_off_again(
    known: tuple[ReferenceCounts, CompanionJudge],
) -> None:
    counts, judge = known
    rows = weather(2 * DAY_ROWS, 9)
    rows["temp"] += 60
    before, now = windows(counts, rows)
    assert any(each.is_breach for each in judge.judge(counts.layout, now))
    against = judge.against(counts.layout, now, "temp", Past(before.sums, lag=1))
    assert against is not None
    assert not against.is_breach


def test_a_window_without_the_companion_says_nothing(
    known: tuple[ReferenceCounts, CompanionJudge],
) -> None:
    rows = weather(DAY_ROWS, 10)
    rows["dewp"][:] = np.nan
    assert breaches(known, rows) == [[]]
    assert known[1].judge(known[0].layout, windows(known[0], rows)[0]) == []


def test_a_short_reference_has_no_lines() -> None:
    assert not companion_judge(counted(weather(900, 3)), LEVEL).lines


def test_a_constant_has_no_companion() -> None:
    rows = weather(6_000, 4)
    rows["dewp"][:] = 7.0
    assert not companion_judge(counted(rows), LEVEL).lines
