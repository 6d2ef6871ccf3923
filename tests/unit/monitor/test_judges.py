"""What a judge may say of a window: calibration, and the traps of drift detection."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat_monitor.domain.alerts.texts import findings_summary
from homeostat_monitor.domain.judges import Finding, Judge, Rule
from homeostat_monitor.domain.judges.covariate import covariate_judge
from homeostat_monitor.domain.judges.distance import FLOOR, STRICT_FLOOR, distances
from homeostat_monitor.domain.judges.missing import missing_values_judge
from homeostat_monitor.domain.judges.prediction import prediction_judge
from homeostat_monitor.domain.judges.rates import chance_of_at_least, critical_count
from homeostat_monitor.domain.judges.stuck import stuck_judge
from homeostat_monitor.domain.judges.unseen import (
    good_turing,
    unseen_elsewhere,
    unseen_values_judge,
)
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.layout import Layout
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows, count
from homeostat_monitor.domain.windows.window import Window

NO_HOLDOUT = Holdout(np.empty(0), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The judges of one reference, without a calendar."""

    layout: Layout
    judges: tuple[Judge, ...]

    @property
    def remarks(self) -> list[str]:
        return [remark for judge in self.judges for remark in judge.remarks]


def calibrated(reference: ReferenceRows) -> Calibrated:
    counts = ReferenceCounts(reference)
    makers = (missing_values_judge, unseen_values_judge, covariate_judge, prediction_judge)
    return Calibrated(counts.layout, tuple(make(counts) for make in makers))


def a_reference(
    scores: np.ndarray | None = None, *, is_holdout: bool = True, **features: ColumnValues
) -> ReferenceRows:
    first = next(iter(features.values()))
    rows = len(first.values if isinstance(first, NumberColumn) else first.codes)
    return ReferenceRows(
        event_times_us=np.arange(rows) * 1_000_000,
        features=features,
        scores=np.linspace(0, 1, rows) if scores is None else scores,
        is_holdout=np.full(rows, is_holdout),
        holdout=NO_HOLDOUT,
    )


def texts(values: np.ndarray | list[str]) -> CategoryColumn:
    distinct, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    return CategoryColumn(codes.astype(np.int32), [str(each) for each in distinct])


def numbers(values: np.ndarray) -> NumberColumn:
    return NumberColumn(values.astype(np.float32))


def judged(
    profile: Calibrated, scores: np.ndarray | None = None, **features: ColumnValues
) -> list[Finding]:
    first = next(iter(features.values()))
    rows = len(first.values if isinstance(first, NumberColumn) else first.codes)
    said = np.linspace(0, 1, rows) if scores is None else scores
    columns = tuple(features.values())
    sums = count(profile.layout, Rows(np.zeros(rows, np.intp), 1, columns, said))[0]
    window = Window(0, 1, sums)
    return [each for judge in profile.judges for each in judge.judge(profile.layout, window)]


def breaches(findings: list[Finding]) -> set[tuple[Rule, str]]:
    return {(each.rule, each.feature) for each in findings if each.is_breach}


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_window_like_the_reference_is_silent(rng: np.random.Generator) -> None:
    profile = calibrated(
        a_reference(x=numbers(rng.normal(size=8000)), c=texts(rng.choice(list("abcd"), 8000)))
    )
    for rows in (100, 150, 700, 3000):
        window = judged(
            profile, x=numbers(rng.normal(size=rows)), c=texts(["a", "b"] * (rows // 2))
        )
        assert breaches([each for each in window if each.feature == "x"]) == set()


def test_a_shift_of_one_deviation_is_seen_in_500_rows(rng: np.random.Generator) -> None:
    profile = calibrated(a_reference(x=numbers(rng.normal(size=8000))))
    found = judged(profile, x=numbers(rng.normal(1.0, size=500)))
    assert (Rule.COVARIATE, "x") in breaches(found)


def test_a_stream_that_moves_by_itself_stays_silent_until_it_moves_further() -> None:
    """Contiguous blocks of the reference say how far it moves: here by a daily wave."""
    rng = np.random.default_rng(3)
    wave = 2 * np.sin(np.arange(24_000) / 24_000 * 2 * np.pi * 6)
    profile = calibrated(a_reference(x=numbers(wave + rng.normal(size=24_000))))
    crest = numbers(2 + rng.normal(size=800))
    assert breaches(judged(profile, x=crest)) == set()
    assert (Rule.COVARIATE, "x") in breaches(judged(profile, x=numbers(7 + rng.normal(size=800))))


def test_a_short_reference_is_said_to_be_short_and_judged_more_strictly() -> None:
    rng = np.random.default_rng(3)
    profile = calibrated(a_reference(x=numbers(rng.normal(size=350))))
    assert any("too short" in each for each in profile.remarks)
    (finding,) = (
        each
        for each in judged(profile, x=numbers(rng.normal(0.4, size=2000)))
        if each.rule is Rule.COVARIATE
    )
    assert finding.threshold >= STRICT_FLOOR > FLOOR
    assert not finding.is_breach
    assert breaches(judged(profile, x=numbers(rng.normal(4, size=2000))))


def test_a_category_that_keeps_bringing_new_values_is_expected_to_go_on() -> None:
    """Good-Turing: with 1/n as the expected rate, every window of an id column would alarm."""
    rng = np.random.default_rng(3)
    names = np.array([f"id-{each}" for each in rng.zipf(1.3, 9000)])
    profile = calibrated(a_reference(c=texts(names[:6000])))
    found = judged(profile, c=texts(names[6000:]))
    (unseen,) = (each for each in found if each.rule is Rule.UNSEEN_VALUES)
    assert unseen.observed > 20 / 6000
    assert not unseen.is_breach


def test_a_few_never_seen_values_in_a_closed_set_are_a_breach() -> None:
    rng = np.random.default_rng(3)
    profile = calibrated(a_reference(c=texts(rng.choice(list("abcd"), 6000))))
    window = rng.choice(list("abcd"), 1000)
    window[:12] = "z"
    assert (Rule.UNSEEN_VALUES, "c") in breaches(judged(profile, c=texts(window)))
    window[2:12] = "a"
    assert (Rule.UNSEEN_VALUES, "c") not in breaches(judged(profile, c=texts(window)))


def test_values_that_look_like_markers_are_values() -> None:
    """No sentinel of ours stands for null, unseen or rare: these would collide with it."""
    rng = np.random.default_rng(3)
    odd = np.array([-1.0, -2.0, 0.0, 3.4e38])
    words = ["null", "nan", "None", "-1", "unseen", "other", " "]
    profile = calibrated(
        a_reference(x=numbers(rng.choice(odd, 4000)), c=texts(rng.choice(words, 4000)))
    )
    found = judged(profile, x=numbers(rng.choice(odd, 900)), c=texts(rng.choice(words, 900)))
    assert breaches(found) == set()
    assert {each.observed for each in found if each.rule is Rule.MISSING_VALUES} == {0.0}
    assert {each.observed for each in found if each.rule is Rule.UNSEEN_VALUES} == {0.0}


def test_a_flood_of_one_default_number_is_seen() -> None:
    rng = np.random.default_rng(3)
    profile = calibrated(a_reference(x=numbers(rng.normal(size=8000))))
    window = rng.normal(size=600)
    window[:120] = -999
    found = judged(profile, x=numbers(window))
    assert (Rule.COVARIATE, "x") in breaches(found)
    (drift,) = (each for each in found if each.rule is Rule.COVARIATE)
    assert drift.out_of_range == pytest.approx(0.2, abs=0.02)


def test_thin_bins_are_pooled() -> None:
    """Two hundred categories with a heavy tail, windows of 200 rows: mostly empty bins."""
    rng = np.random.default_rng(3)
    weights = 1 / np.arange(1, 201)
    kinds = np.array([f"k{each}" for each in range(200)])
    draw = lambda rows: texts(rng.choice(kinds, rows, p=weights / weights.sum()))  # noqa: E731
    profile = calibrated(a_reference(c=draw(20_000)))
    for _ in range(40):
        assert (Rule.COVARIATE, "c") not in breaches(judged(profile, c=draw(200)))


def test_a_column_of_about_a_hundred_even_values_does_not_alarm_for_ever() -> None:
    rng = np.random.default_rng(3)
    profile = calibrated(
        a_reference(
            c=texts(rng.integers(0, 100, 3000).astype(str)), x=numbers(rng.integers(0, 100, 3000))
        )
    )
    for _ in range(40):
        c, x = rng.integers(0, 100, 300), rng.integers(0, 100, 300)
        assert breaches(judged(profile, c=texts(c.astype(str)), x=numbers(x))) == set()


def test_a_constant_that_starts_to_move_is_seen() -> None:
    rng = np.random.default_rng(3)
    profile = calibrated(a_reference(x=numbers(np.full(5000, 7.0))))
    assert breaches(judged(profile, x=numbers(np.full(500, 7.0)))) == set()
    moved = np.where(rng.random(500) < 0.2, 7.001, 7.0)
    assert (Rule.COVARIATE, "x") in breaches(judged(profile, x=numbers(moved)))


def test_an_almost_empty_column_is_not_judged_by_its_few_values() -> None:
    rng = np.random.default_rng(3)

    def sparse(rows: int) -> NumberColumn:
        values = rng.normal(size=rows)
        values[rng.random(rows) < 0.99] = np.nan
        return numbers(values)

    profile = calibrated(a_reference(x=sparse(20_000)))
    for _ in range(40):
        assert breaches(judged(profile, x=sparse(900))) == set()


def test_nulls_where_there_were_none_are_a_breach_and_more_of_many_too() -> None:
    rng = np.random.default_rng(3)

    def with_nulls(rows: int, rate: float) -> NumberColumn:
        return NumberColumn(np.zeros(rows, np.float32), rng.random(rows) < rate)

    profile = calibrated(a_reference(a=with_nulls(8000, 0.0), b=with_nulls(8000, 0.1)))
    one = NumberColumn(np.zeros(1000, np.float32), np.arange(1000) < 1)
    assert breaches(judged(profile, a=one, b=with_nulls(1000, 0.1))) == set()
    found = breaches(judged(profile, a=with_nulls(1000, 0.03), b=with_nulls(1000, 0.25)))
    assert found >= {(Rule.MISSING_VALUES, "a"), (Rule.MISSING_VALUES, "b")}


def test_nulls_that_come_in_bursts_stay_silent() -> None:
    """Autocorrelation: the sensor was off for days in the reference too."""
    rng = np.random.default_rng(3)
    off = np.repeat(rng.random(40) < 0.2, 500)
    profile = calibrated(a_reference(x=NumberColumn(np.zeros(20_000, np.float32), off)))
    window = NumberColumn(np.zeros(500, np.float32), np.full(500, True))
    assert (Rule.MISSING_VALUES, "x") not in breaches(judged(profile, x=window))


def test_scores_are_compared_with_honest_ones_where_there_are_enough() -> None:
    rng = np.random.default_rng(3)
    is_holdout = np.arange(6000) >= 4000
    scores = np.where(is_holdout, rng.beta(4, 4, 6000), rng.beta(0.5, 0.5, 6000))
    reference = a_reference(scores, x=numbers(rng.normal(size=6000)))
    reference = ReferenceRows(
        reference.event_times_us, reference.features, scores, is_holdout, NO_HOLDOUT
    )
    profile = calibrated(reference)
    window = numbers(rng.normal(size=500))
    assert breaches(judged(profile, rng.beta(4, 4, 500), x=window)) == set()
    assert breaches(judged(profile, rng.beta(0.5, 0.5, 500), x=window)) == {(Rule.PREDICTION, "")}


def test_a_feature_of_another_precision_is_the_same_feature() -> None:
    """A reference written as float64 and traffic in float32 meet in the signature's type."""
    values = np.array([0.1, 0.2, 0.3] * 2000)
    profile = calibrated(a_reference(x=numbers(values)))
    assert breaches(judged(profile, x=NumberColumn(values[:900].astype(np.float32)))) == set()


@given(
    st.lists(st.integers(0, 200), min_size=2, max_size=30).filter(lambda each: sum(each) > 0),
    st.lists(st.integers(0, 200), min_size=30, max_size=30),
)
def test_a_distance_lies_between_0_and_1(base: list[int], other: list[int]) -> None:
    window = np.array([other[: len(base)]])
    measured, noise = distances(np.array([base]), window)
    assert 0.0 <= measured[0] <= 1.0
    assert noise[0] > 0
    same, _ = distances(np.array([base]), np.array([base]) * 3)
    assert same[0] < 1e-6


@given(st.integers(1, 400), st.floats(1e-6, 0.999))
def test_the_critical_count_is_the_first_unlikely_one(rows: int, rate: float) -> None:
    limit = critical_count(rows, rate, 10)
    assert chance_of_at_least(limit, rows, rate) < 1e-5 or limit == rows + 1
    assert chance_of_at_least(limit - 1, rows, rate) >= 1e-5


def test_the_binomial_is_exact() -> None:
    assert chance_of_at_least(3, 10, 0.2) == pytest.approx(0.3222004736)
    assert chance_of_at_least(0, 10, 0.2) == 1.0
    assert chance_of_at_least(11, 10, 0.2) == 0.0


def test_good_turing_is_not_one_over_n() -> None:
    once = np.ones(100, dtype=np.int64)
    typical, bound = good_turing(once)
    assert typical == 1.0
    assert bound == 1.0
    _, often = good_turing(np.full(4, 2500))
    assert often < 0.001


def test_values_that_one_block_alone_has_are_unseen_by_the_others() -> None:
    codes = np.array([0, 1, 0, 1, 2, 0, 0, 1, 3])
    shares = unseen_elsewhere(codes, np.ones(9, dtype=bool), 3)
    assert shares.tolist() == pytest.approx([0, 1 / 3, 1 / 3])


@pytest.mark.parametrize("no_number", [np.nan, np.inf])
@pytest.mark.parametrize("every", [1, 20])
def test_scores_that_are_no_finite_numbers_are_missing_values_of_the_score(
    rng: np.random.Generator, no_number: float, every: int
) -> None:
    usual = rng.normal(size=5000)
    profile = calibrated(a_reference(usual, x=numbers(rng.normal(size=5000))))
    live, said = numbers(rng.normal(size=1000)), rng.normal(size=1000)
    assert not breaches(judged(profile, said, x=live))
    said[::every] = no_number
    found = judged(profile, said, x=live)
    assert breaches(found) == {(Rule.MISSING_VALUES, "")}
    told = next(each for each in found if each.is_breach)
    assert findings_summary([told]).startswith("The score is no finite number more often than")


def test_what_is_one_value_a_day_by_nature_does_not_stand_still() -> None:
    """Days of other lengths than blocks, so that no block of a day's size lies within one."""
    at = np.arange(200, 200 + 5 * 801)
    weekday = numbers(at // 801 % 7)
    reference = replace(a_reference(x=weekday), event_times_us=at)
    for length_us, is_stuck in ((801, False), (801 * 3, True)):
        counts = ReferenceCounts(reference)
        columns, scores = (numbers(np.full(801, 4)),), np.linspace(0, 1, 801)
        sums = count(counts.layout, Rows(np.zeros(801, np.intp), 1, columns, scores))[0]
        found = stuck_judge(counts, length_us).judge(counts.layout, Window(0, 801, sums))
        assert [each.is_breach for each in found] == [is_stuck]
