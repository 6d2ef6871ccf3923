"""The i.i.d. mode: silent where nothing happens, quick where something does; each trap of drift
detection that is known to fool detectors has a test that says it."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat_monitor.domain.detection.budget import MONTH_US, Budget
from homeostat_monitor.domain.detection.multiscale import multiscale
from homeostat_monitor.domain.detection.plan import SCALES, plan_of
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Counter, Rows
from homeostat_monitor.domain.windows.window import Window

Columns = dict[str, ColumnValues]

PANE = 25
LEVEL = 1e-4
NO_HOLDOUT = Holdout(np.empty(0), np.empty(0, np.int64))


def numbers(values: np.ndarray) -> NumberColumn:
    return NumberColumn(np.asarray(values, dtype=np.float64))


def texts(values: np.ndarray | list[str]) -> CategoryColumn:
    distinct, codes = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    return CategoryColumn(codes.astype(np.int32), [str(each) for each in distinct])


def length(columns: Mapping[str, ColumnValues]) -> int:
    first = next(iter(columns.values()))
    return len(first.values if isinstance(first, NumberColumn) else first.codes)


def counts_of(
    columns: Mapping[str, ColumnValues], scores: np.ndarray | None = None
) -> ReferenceCounts:
    rows = length(columns)
    return ReferenceCounts(
        ReferenceRows(
            event_times_us=np.arange(rows, dtype=np.int64),
            features=columns,
            scores=np.full(rows, np.nan) if scores is None else scores,
            is_holdout=np.full(rows, scores is not None),
            holdout=NO_HOLDOUT,
        )
    )


def panes_of(
    counts: ReferenceCounts,
    columns: Mapping[str, ColumnValues],
    scores: np.ndarray | None = None,
    pane: int = PANE,
) -> list[Window]:
    rows = length(columns)
    groups = np.arange(rows) // pane
    said = np.full(rows, np.nan) if scores is None else scores
    total = int(groups[-1]) + 1
    sums = Counter(counts.layout).count(Rows(groups, total, tuple(columns.values()), said))
    return [Window(at, at + 1, each) for at, each in enumerate(sums)]


def breaches(
    reference: Mapping[str, ColumnValues],
    live: Mapping[str, ColumnValues],
    scores: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[tuple[Rule, str], int]:
    """Rule and feature -> in which pane it was told first."""
    counts = counts_of(reference, scores and scores[0])
    panes = panes_of(counts, live, scores and scores[1])
    detector = multiscale(counts, level_per_look=LEVEL)
    found: dict[tuple[Rule, str], int] = {}
    for pane, findings in enumerate(detector.feed(panes)):
        for each in findings:
            if each.is_breach:
                found.setdefault((each.rule, each.feature), pane)
    return found


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def world(rng: np.random.Generator, rows: int) -> Columns:
    factor = rng.normal(size=rows)
    return {
        "x": numbers(factor + 0.3 * rng.normal(size=rows)),
        "y": numbers(factor + 0.3 * rng.normal(size=rows)),
        "c": texts(np.array(list("abcd"))[rng.integers(0, 4, rows)]),
    }


def replaced(columns: Mapping[str, ColumnValues], **others: ColumnValues) -> Columns:
    return {**columns, **others}


def test_rows_like_the_reference_are_silent_and_every_rule_says_so(
    rng: np.random.Generator,
) -> None:
    counts = counts_of(world(rng, 5000))
    detector = multiscale(counts, level_per_look=LEVEL, segment="s")
    told = detector.feed(panes_of(counts, world(rng, 20_000)))
    assert not [each for findings in told for each in findings if each.is_breach]
    assert {each.rule for each in told[-1]} == {
        Rule.MISSING_VALUES,
        Rule.UNSEEN_VALUES,
        Rule.OUT_OF_RANGE,
        Rule.STUCK,
        Rule.COVARIATE,
        Rule.CORRELATION,
    }
    assert {each.segment for each in told[-1]} == {"s"}


def test_a_shift_of_half_a_deviation_is_told_within_300_rows(rng: np.random.Generator) -> None:
    live = world(rng, 2000)
    x = live["x"]
    assert isinstance(x, NumberColumn)
    found = breaches(world(rng, 5000), replaced(live, x=numbers(x.values + 0.5)))
    assert found[Rule.COVARIATE, "x"] * PANE <= 300
    assert (Rule.COVARIATE, "y") not in found


def test_a_wider_spread_is_told_though_the_mean_stays(rng: np.random.Generator) -> None:
    found = breaches(
        {"x": numbers(rng.normal(size=5000))}, {"x": numbers(2 * rng.normal(size=500))}
    )
    assert found[Rule.COVARIATE, "x"] * PANE <= 200


def test_a_broken_pair_is_told_though_its_features_stay(rng: np.random.Generator) -> None:
    live = world(rng, 1000)
    y = live["y"]
    assert isinstance(y, NumberColumn)
    found = breaches(world(rng, 5000), replaced(live, y=numbers(rng.permutation(y.values))))
    assert set(found) == {(Rule.CORRELATION, "x")}
    assert found[Rule.CORRELATION, "x"] * PANE <= 200


def test_a_text_that_no_longer_goes_with_its_number_is_told(rng: np.random.Generator) -> None:
    def rows(size: int, *, is_swapped: bool) -> Columns:
        kinds = rng.integers(0, 4, size)
        names = np.array(list("cbad" if is_swapped else "abcd"))
        return {"x": numbers(kinds + rng.normal(size=size)), "c": texts(names[kinds])}

    found = breaches(rows(5000, is_swapped=False), rows(1000, is_swapped=True))
    assert [rule for rule, _ in found] == [Rule.CORRELATION]


def test_missing_values_are_told_within_a_hundred_rows(rng: np.random.Generator) -> None:
    values = rng.normal(size=1000)
    values[rng.random(1000) < 0.05] = np.nan
    found = breaches({"x": numbers(rng.normal(size=5000))}, {"x": numbers(values)})
    assert set(found) == {(Rule.MISSING_VALUES, "x")}
    assert found[Rule.MISSING_VALUES, "x"] * PANE <= 150


def test_scores_that_move_are_prediction_drift(rng: np.random.Generator) -> None:
    columns = {"x": numbers(rng.normal(size=3000))}
    live = {"x": numbers(rng.normal(size=1500))}
    found = breaches(columns, live, (rng.beta(2, 5, 3000), rng.beta(3, 4, 1500)))
    assert set(found) == {(Rule.PREDICTION, "")}


def test_many_features_that_move_a_little_are_told_together(rng: np.random.Generator) -> None:
    def rows(size: int, shift: float) -> Columns:
        return {f"x{each}": numbers(shift + rng.normal(size=size)) for each in range(20)}

    found = breaches(rows(5000, 0.0), rows(1000, 0.13))
    assert {rule for rule, _ in found} == {Rule.COVARIATE}


# Traps, each of which makes detectors alarm for ever or blind.


def test_trap_new_texts_come_at_the_good_turing_rate_not_at_one_in_n(
    rng: np.random.Generator,
) -> None:
    def ids(rows: int) -> np.ndarray:
        return np.where(rng.random(rows) < 0.03, rng.integers(0, 10**9, rows), 0).astype(str)

    assert not breaches({"c": texts(ids(5000))}, {"c": texts(ids(20_000))})
    more = np.where(rng.random(500) < 0.3, rng.integers(0, 10**9, 500), 0).astype(str)
    found = breaches({"c": texts(ids(5000))}, {"c": texts(more)})
    assert found[Rule.UNSEEN_VALUES, "c"] * PANE <= 100


@pytest.mark.parametrize("sentinel", [-2.0, -1.0, 0.0, 999.0])
def test_trap_a_sentinel_that_collides_with_real_values_is_a_value(
    rng: np.random.Generator, sentinel: float
) -> None:
    def rows(size: int) -> Columns:
        values = rng.normal(size=size)
        values[rng.random(size) < 0.2] = sentinel
        words = rng.choice(["-2", "nan", "null", "0"], size)
        return {"x": numbers(values), "c": texts(words)}

    assert not breaches(rows(5000), rows(10_000))


def test_trap_thin_bins_are_pooled(rng: np.random.Generator) -> None:
    def rows(size: int) -> Columns:
        return {
            "tail": texts(np.minimum(rng.zipf(1.6, size), 5000).astype(str)),
            "flat": texts(rng.integers(0, 1000, size).astype(str)),
        }

    assert not breaches(rows(5000), rows(20_000))


def test_trap_a_constant_that_starts_to_move_is_seen(rng: np.random.Generator) -> None:
    reference = {"x": numbers(np.full(5000, 3.0)), "y": numbers(rng.normal(size=5000))}
    live = {"x": numbers(np.full(500, 3.0)), "y": numbers(rng.normal(size=500))}
    assert not breaches(reference, live)
    moving = replaced(live, x=numbers(3.0 + 1e-6 * rng.normal(size=500)))
    found = breaches(reference, moving)
    assert found[Rule.OUT_OF_RANGE, "x"] <= 1
    assert {feature for _, feature in found} == {"x"}


def test_trap_a_feature_that_is_stuck_is_seen_even_at_its_most_frequent_value(
    rng: np.random.Generator,
) -> None:
    def rain(size: int) -> np.ndarray:
        return np.where(rng.random(size) < 0.8, 0.0, rng.exponential(size=size))

    found = breaches({"x": numbers(rain(5000))}, {"x": numbers(np.zeros(500))})
    assert found[Rule.STUCK, "x"] * PANE <= 150
    assert not breaches({"x": numbers(rain(5000))}, {"x": numbers(rain(5000))})


def test_trap_almost_empty_columns_do_not_alarm_for_ever(rng: np.random.Generator) -> None:
    def rows(size: int) -> Columns:
        empty = np.where(rng.random(size) < 0.997, np.nan, rng.normal(size=size))
        words = np.where(rng.random(size) < 0.997, "", rng.integers(0, 50, size).astype(str))
        return {"x": numbers(empty), "c": texts(words), "y": numbers(rng.normal(size=size))}

    assert not breaches(rows(5000), rows(20_000))


def test_trap_columns_of_a_hundred_values_do_not_alarm_for_ever(rng: np.random.Generator) -> None:
    def rows(size: int) -> Columns:
        return {
            "even": texts(rng.integers(0, 100, size).astype(str)),
            "steep": texts(np.minimum(rng.geometric(0.05, size), 100).astype(str)),
            "count": numbers(rng.integers(0, 100, size)),
        }

    assert not breaches(rows(1000), rows(20_000))


def test_trap_a_column_without_any_value_stays_silent_until_it_has_some(
    rng: np.random.Generator,
) -> None:
    reference = {"x": numbers(np.full(2000, np.nan)), "y": numbers(rng.normal(size=2000))}
    live = {"x": numbers(np.full(5000, np.nan)), "y": numbers(rng.normal(size=5000))}
    assert not breaches(reference, live)


def test_trap_a_backlog_that_drains_partition_by_partition_looks_the_same(
    rng: np.random.Generator,
) -> None:
    counts = counts_of(world(rng, 3000))
    live = world(rng, 3000)
    whole = panes_of(counts, live)
    # Rows of even and of odd place come from two partitions, one long after the other.
    rows = np.arange(3000)
    parts = []
    for partition in (0, 1):
        kept = rows % 2 == partition
        columns = tuple(
            NumberColumn(each.values[kept])
            if isinstance(each, NumberColumn)
            else CategoryColumn(each.codes[kept], each.dictionary)
            for each in live.values()
        )
        groups = (rows // PANE)[kept]
        scores = np.full(int(kept.sum()), np.nan)
        parts.append(Counter(counts.layout).count(Rows(groups, len(whole), columns, scores)))
    merged = parts[0] + parts[1]
    assert all((a.sums == b).all() for a, b in zip(whole, merged, strict=True))


# What is remembered.


@given(st.lists(st.integers(1, 400), min_size=1, max_size=12), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_other_portions_of_panes_give_the_same_findings_and_the_same_state(
    cuts: list[int], seed: int
) -> None:
    counts, panes = _a_history(seed)
    whole = multiscale(counts, level_per_look=LEVEL)
    at_once = whole.feed(panes)
    piecewise: list[list[Finding]] = []
    detector = multiscale(counts, level_per_look=LEVEL)
    begin = 0
    for cut in [*cuts, len(panes)]:
        piecewise += detector.feed(panes[begin : begin + cut])
        begin += cut
        fresh = multiscale(counts, level_per_look=LEVEL)
        fresh.restore(detector.to_bytes())
        assert fresh.to_bytes() == detector.to_bytes()
        detector = fresh
    assert piecewise == at_once
    assert detector.to_bytes() == whole.to_bytes()


def _a_history(seed: int) -> tuple[ReferenceCounts, list[Window]]:
    """Panes of very different sizes, in the end with a shift."""
    rng = np.random.default_rng(seed)
    counts = counts_of({"x": numbers(rng.normal(size=1000))})
    sizes = np.minimum(rng.geometric(0.05, 500), 90)
    sizes[rng.random(500) < 0.01] = 3000
    values = rng.normal(size=int(sizes.sum()))
    values[-200:] += 1.5
    groups = np.repeat(np.arange(500), sizes)
    scores = np.full(len(values), np.nan)
    sums = Counter(counts.layout).count(Rows(groups, 500, (numbers(values),), scores))
    return counts, [Window(at, at + 1, each) for at, each in enumerate(sums)]


def test_what_is_remembered_stays_small_however_long_it_runs(rng: np.random.Generator) -> None:
    counts = counts_of(world(rng, 2000))
    detector = multiscale(counts, level_per_look=LEVEL)
    detector.feed(panes_of(counts, world(rng, 50_000), pane=10))
    assert len(detector.to_bytes()) < 40_000


def test_a_damaged_state_and_one_of_another_reference_are_refused(
    rng: np.random.Generator,
) -> None:
    counts = counts_of(world(rng, 1000))
    detector = multiscale(counts, level_per_look=LEVEL)
    detector.feed(panes_of(counts, world(rng, 500)))
    state = detector.to_bytes()
    with pytest.raises(CorruptState):
        multiscale(counts, level_per_look=LEVEL).restore(state[:-1] + b"\x00")
    with pytest.raises(CorruptState):
        multiscale(counts_of(world(rng, 1000)), level_per_look=LEVEL).restore(state)


# The budget.


def test_the_shares_of_all_tests_are_no_more_than_the_budget(rng: np.random.Generator) -> None:
    plan = plan_of(counts_of(world(rng, 3000), rng.random(3000)))
    shares = np.concatenate(
        [plan.cells.share_more, plan.cells.share_fewer, plan.share_shape, plan.trends.share]
    )
    assert len(SCALES) * (np.exp(shares).sum() + np.exp(plan.joint.share)) <= 1.0
    assert plan.tests > 100


def test_looks_of_a_month_spend_the_budget_and_no_more() -> None:
    level = Budget(2.0).level_per_look(60_000_000, segments=4)
    assert level * (MONTH_US / 60_000_000) * 4 == pytest.approx(2.0)


@pytest.mark.parametrize("no_number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("every", [1, 10])
def test_scores_that_are_no_finite_numbers_are_told_of_the_score(
    rng: np.random.Generator, no_number: float, every: int
) -> None:
    reference, live = world(rng, 5000), world(rng, 1000)
    usual, said = rng.normal(size=5000), rng.normal(size=1000)
    said[::every] = no_number
    found = breaches(reference, live, (usual, said))
    assert set(found) == {(Rule.MISSING_VALUES, "")}


def test_scores_that_are_no_numbers_in_the_hold_out_too_are_no_news(
    rng: np.random.Generator,
) -> None:
    reference, live = world(rng, 5000), world(rng, 5000)
    usual, said = rng.normal(size=5000), rng.normal(size=5000)
    usual[rng.random(5000) < 0.1] = said[rng.random(5000) < 0.1] = np.nan
    assert not breaches(reference, live, (usual, said))
