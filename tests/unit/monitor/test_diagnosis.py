"""What a diagnosis may say: each class of causes beside the one that it is easily taken for."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import (
    Case,
    Diagnosis,
    Infrastructure,
    LossEvidence,
    StepKind,
)
from homeostat_monitor.domain.diagnosis.conversions import OFFSETS, SLOPES, pushed, source_of
from homeostat_monitor.domain.diagnosis.judging import diagnose
from homeostat_monitor.domain.diagnosis.mixture import mixture
from homeostat_monitor.domain.diagnosis.views import View
from homeostat_monitor.domain.diagnosis.weighing import posterior
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.bins import (
    CategoryColumn,
    ColumnValues,
    NumberBins,
    NumberColumn,
    bins_of,
)
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows, count
from homeostat_monitor.domain.windows.window import Window

REFERENCE, PANE, PANES, CHANGED = 4000, 50, 60, 40
PANE_US = 60_000_000
Columns = dict[str, Any]
Change = Callable[[Columns, int, np.random.Generator], None]


def a_world(rng: np.random.Generator, rows: int) -> tuple[Columns, np.ndarray, np.ndarray]:
    """A temperature and its twin, a skewed flow, a site; truths that follow from them; scores."""
    heat = rng.normal(20, 5, rows)
    columns = {
        "heat": heat,
        "twin": heat + rng.normal(0, 1.5, rows),
        "flow": rng.lognormal(1, 0.6, rows),
        "site": rng.choice(["a", "b", "c"], rows, p=[0.6, 0.3, 0.1]).astype(object),
    }
    logit = 0.4 * (heat - 20) + 0.5 * (columns["flow"] - 3) + 1.5 * (columns["site"] == "b")
    scores = 1 / (1 + np.exp(-logit))
    return columns, scores, (rng.random(rows) < scores).astype(float)


def as_columns(columns: Columns) -> dict[str, ColumnValues]:
    found: dict[str, ColumnValues] = {}
    for name, values in columns.items():
        if values.dtype.kind == "f":
            found[name] = NumberColumn(values)
        else:
            texts, codes = np.unique(values.astype(str), return_inverse=True)
            found[name] = CategoryColumn(codes.astype(np.int32), texts.tolist())
    return found


def a_case(
    change: Change | None = None,
    *,
    seed: int = 1,
    prior: float | None = None,
    with_classes: bool = True,
    panes: int = PANES,
    **changes: Any,
) -> Case:
    """Windows of 50 rows; ``change`` happens with the 40th, or the share of class 1 becomes
    ``prior`` with it."""
    rng = np.random.default_rng(seed)
    columns, scores, truths = a_world(rng, REFERENCE)
    reference = ReferenceRows(
        np.arange(REFERENCE),
        as_columns(columns),
        scores,
        np.ones(REFERENCE, dtype=bool),
        Holdout(np.empty(0), np.empty(0, dtype=np.int64)),
        truths=truths,
    )
    counts = ReferenceCounts(reference)
    live, said, known = a_world(rng, 4 * PANE * panes)
    first = CHANGED * PANE
    kept = np.arange(PANE * panes)
    if prior is not None:
        pools = [np.flatnonzero(known[kept[-1] :] == each) + kept[-1] for each in (0, 1)]
        wanted = (rng.random(len(kept) - first) < prior).astype(int)
        kept[first:] = [rng.choice(pools[each]) for each in wanted]
    live, said = {name: each[kept] for name, each in live.items()}, said[kept]
    if change is not None:
        change(live, first, rng)
    groups = np.repeat(np.arange(panes), PANE)
    sums = count(counts.layout, Rows(groups, panes, tuple(as_columns(live).values()), said))
    case = Case(
        rule=Rule.COVARIATE,
        segment="",
        mode=Mode.IID,
        layout=counts.layout,
        reference=counts.whole,
        findings=(),
        windows=[Window(at * PANE_US, (at + 1) * PANE_US, each) for at, each in enumerate(sums)],
        at_us=panes * PANE_US,
        reference_by_class=counts.sums_by_class() if with_classes else None,
    )
    return replace(case, **changes)


def breach(rule: Rule, feature: str = "", **changes: Any) -> Finding:
    return replace(Finding(rule, feature, "rate", 0.3, 0.0, 0.1, True), **changes)


def by(name: str, how: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Change:
    def change(columns: Columns, first: int, rng: np.random.Generator) -> None:
        columns[name] = columns[name].copy()
        columns[name][first:] = how(columns[name][first:], rng)

    return change


def swap(columns: Columns, first: int, rng: np.random.Generator) -> None:
    columns["heat"], columns["flow"] = columns["heat"].copy(), columns["flow"].copy()
    old = columns["heat"][first:].copy()
    columns["heat"][first:] = columns["flow"][first:]
    columns["flow"][first:] = old


def warmer(columns: Columns, first: int, rng: np.random.Generator) -> None:
    for name in ("heat", "twin"):
        columns[name] = columns[name].copy()
        columns[name][first:] += 4


def nulls(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(len(values)) < 0.3, np.nan, values)


def kinds(diagnosis: Diagnosis) -> list[StepKind]:
    return [each.kind for each in diagnosis.steps]


FAHRENHEIT = by("heat", lambda values, rng: values * 1.8 + 32)
EXCHANGED = by("site", lambda v, rng: np.where(v == "a", "b", np.where(v == "b", "a", v)))

BREAKS = {
    "unit": (FAHRENHEIT, "heat", "Celsius sent as Fahrenheit"),
    "thousandths": (by("flow", lambda values, rng: values * 1000), "flow", "x 1000"),
    "stuck": (by("flow", lambda values, rng: np.full_like(values, values[0])), "flow", "stuck"),
    "nulls": (by("flow", nulls), "flow", "null"),
    "a new text": (
        by("site", lambda v, rng: np.where(rng.random(len(v)) < 0.2, "new", v)),
        "site",
        "never had",
    ),
    "exchanged texts": (EXCHANGED, "site", "look exchanged"),
    "broken order": (by("twin", lambda v, rng: rng.permutation(v)), None, "no longer go together"),
    "swapped columns": (swap, None, "each has the other's values"),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_broken_data_is_told_by_what_is_wrong_and_never_cured_by_retraining(kind: str) -> None:
    change, feature, words = BREAKS[kind]
    found = diagnose(a_case(change))
    assert found.cause is Cause.DATA_BREAK
    assert found.confidence > 0.6
    assert any(words in each.text for each in found.evidence if each.cause is Cause.DATA_BREAK)
    assert found.features[0].feature in ({feature} if feature else {"heat", "twin", "flow"})
    assert StepKind.RETRAIN not in kinds(found)
    assert words in found.steps[0].text


MOVES = {
    "shift": (by("flow", lambda values, rng: values + 1.0), "flow"),
    "noise": (by("heat", lambda values, rng: values + rng.normal(0, 6, len(values))), "heat"),
    "together": (warmer, None),
    "gradual": (by("heat", lambda v, rng: v + np.linspace(0, 8, len(v))), "heat"),
    "other sites": (by("site", lambda v, rng: rng.choice(["a", "b", "c"], len(v))), "site"),
}


@pytest.mark.parametrize("kind", MOVES)
def test_a_population_that_moves_is_no_broken_data(kind: str) -> None:
    change, feature = MOVES[kind]
    found = diagnose(a_case(change))
    assert found.cause is Cause.COVARIATE
    assert found.features[0].feature in ({feature} if feature else {"heat", "twin"})


@pytest.mark.parametrize("prior", [0.3, 0.85])
def test_other_shares_of_the_classes_are_no_drift_of_features(prior: float) -> None:
    found = diagnose(a_case(prior=prior, rule=Rule.PREDICTION))
    assert found.cause is Cause.LABEL_SHIFT
    assert kinds(found)[0] is StepKind.RECALIBRATE
    assert any("instead of" in each.text for each in found.evidence)


def test_without_known_classes_no_label_shift_is_told() -> None:
    found = diagnose(a_case(prior=0.25, with_classes=False))
    assert found.cause is not Cause.LABEL_SHIFT


def a_loss(**changes: Any) -> LossEvidence:
    return replace(LossEvidence((CHANGED - 5) * PANE_US, 0.35, 0.2, 1000), **changes)


def test_a_loss_that_rises_with_inputs_as_before_is_the_concept() -> None:
    found = diagnose(a_case(rule=Rule.PERFORMANCE, loss=a_loss()))
    assert found.cause is Cause.CONCEPT
    assert kinds(found)[0] is StepKind.RETRAIN
    assert found.since_from_us <= CHANGED * PANE_US <= found.since_to_us


def test_a_loss_that_rises_with_broken_data_is_the_data() -> None:
    case = a_case(FAHRENHEIT, rule=Rule.PERFORMANCE, loss=a_loss(since_us=CHANGED * PANE_US))
    assert diagnose(case).cause is Cause.DATA_BREAK


def test_residuals_that_moved_evenly_are_recalibrated() -> None:
    loss = a_loss(observed=5.0, reference=4.0, bias=1.0, reference_bias=0.0, rows=5000)
    found = diagnose(a_case(rule=Rule.PERFORMANCE, loss=loss))
    assert found.cause is Cause.CONCEPT
    assert kinds(found)[0] is StepKind.RECALIBRATE


def test_inputs_that_move_without_harm_need_nothing_done() -> None:
    change = MOVES["shift"][0]
    case = a_case(change, loss=a_loss(since_us=None, observed=0.2))
    assert kinds(diagnose(case))[0] is StepKind.DO_NOTHING


def test_a_change_that_falls_together_with_a_new_version_is_the_versions() -> None:
    around = Infrastructure(serving_since_us=CHANGED * PANE_US)
    found = diagnose(a_case(MOVES["shift"][0], around=around))
    assert found.cause is Cause.NEW_VERSION
    assert kinds(found)[0] is StepKind.ROLL_BACK


def test_a_version_that_served_long_before_is_not_blamed() -> None:
    around = Infrastructure(serving_since_us=2 * PANE_US)
    assert diagnose(a_case(MOVES["shift"][0], around=around)).cause is Cause.COVARIATE


@pytest.mark.parametrize("rule", [Rule.ARRIVAL_RATE, Rule.LABEL_DELAY, Rule.LABEL_COVERAGE])
def test_what_carries_the_rows_is_told_from_what_is_in_them(rule: Rule) -> None:
    found = diagnose(a_case(rule=rule, findings=[breach(rule)]))
    assert found.cause is Cause.INFRASTRUCTURE
    assert StepKind.RETRAIN not in kinds(found)


def test_rows_that_came_twice_with_inputs_as_before_were_sent_twice() -> None:
    found = diagnose(a_case(rule=Rule.DUPLICATES, findings=[breach(Rule.DUPLICATES)]))
    assert found.cause is Cause.INFRASTRUCTURE


def test_where_nothing_stands_out_the_cause_is_unknown() -> None:
    found = diagnose(a_case(rule=Rule.PREDICTION, findings=[breach(Rule.PREDICTION)]))
    assert found.cause is Cause.UNKNOWN
    assert found.features == []
    assert kinds(found) == [StepKind.INVESTIGATE]


@pytest.mark.parametrize("change", [FAHRENHEIT, MOVES["shift"][0], BREAKS["nulls"][0]])
def test_the_change_lies_in_its_interval(change: Change) -> None:
    found = diagnose(a_case(change))
    assert found.since_from_us <= CHANGED * PANE_US <= found.since_to_us
    assert abs(found.since_us - CHANGED * PANE_US) <= 2 * PANE_US
    assert found.since_to_us - found.since_from_us <= 6 * PANE_US


def test_a_gradual_change_has_a_wider_interval_than_a_sudden_one() -> None:
    gradual, sudden = (
        diagnose(a_case(by("flow", how)))
        for how in (
            lambda v, rng: v + np.linspace(0, 2, len(v)),
            lambda v, rng: v + 2,
        )
    )
    assert gradual.since_to_us - gradual.since_from_us > sudden.since_to_us - sudden.since_from_us


def test_shares_add_up_and_scores_have_none() -> None:
    def both(columns: Columns, first: int, rng: np.random.Generator) -> None:
        MOVES["shift"][0](columns, first, rng)
        EXCHANGED(columns, first, rng)

    found = diagnose(a_case(both))
    assert sum(each.share for each in found.features) == pytest.approx(1.0)
    assert {each.feature for each in found.features} <= {"heat", "twin", "flow", "site"}


def test_the_confidence_is_the_posterior_of_all_the_evidence() -> None:
    found = diagnose(a_case(FAHRENHEIT))
    chances = posterior(found.evidence)
    assert sum(chances.values()) == pytest.approx(1.0)
    assert found.confidence == chances[found.cause] == max(chances.values())


def test_the_same_case_gives_the_same_diagnosis() -> None:
    assert diagnose(a_case(FAHRENHEIT)) == diagnose(a_case(FAHRENHEIT))


def test_a_case_without_windows_is_diagnosed_too() -> None:
    found = diagnose(a_case(windows=(), rule=Rule.PERFORMANCE, loss=a_loss()))
    assert found.cause is Cause.UNKNOWN
    assert diagnose(a_case(windows=(), rule=Rule.LABEL_DELAY)).since_us == PANES * PANE_US


def test_a_single_window_that_holds_the_change_is_enough_to_see_a_unit() -> None:
    case = a_case(FAHRENHEIT)
    last = case.windows[CHANGED]
    assert diagnose(replace(case, windows=[last], at_us=last.end_us)).cause is Cause.DATA_BREAK


def test_windows_that_vary_by_nature_are_believed_less() -> None:
    def wandering(columns: Columns, first: int, rng: np.random.Generator) -> None:
        levels = np.repeat(rng.normal(0, 4, PANES), PANE)
        columns["heat"] = columns["heat"] + levels

    found = diagnose(a_case(wandering, mode=Mode.TIME_ORDERED, rule=Rule.PREDICTION))
    calm = diagnose(a_case(by("heat", lambda v, rng: v + 4)))
    weight = sum(each.weight for each in found.evidence if each.cause is Cause.COVARIATE)
    assert weight <= sum(each.weight for each in calm.evidence if each.cause is Cause.COVARIATE)


def with_seasons(columns: Columns, first: int, rng: np.random.Generator) -> None:
    """Warmth comes and goes over days, and grows; the twin goes with it."""
    days = np.arange(len(columns["heat"])) / PANE
    season = 4 * np.sin(days / 4) + 0.1 * days
    for name in ("heat", "twin"):
        columns[name] = columns[name] + season


def test_in_seasons_a_unit_that_switches_is_still_the_units() -> None:
    def change(columns: Columns, first: int, rng: np.random.Generator) -> None:
        with_seasons(columns, first, rng)
        last = (PANES - 1) * PANE
        FAHRENHEIT(columns, last, rng)

    told = [
        breach(Rule.CORRELATION, "twin", statistic="off_companion", other_feature="heat"),
        breach(Rule.COVARIATE, "heat"),
    ]
    found = diagnose(a_case(change, mode=Mode.TIME_ORDERED, findings=told))
    assert found.cause is Cause.DATA_BREAK
    assert found.features[0].feature == "heat"
    assert found.since_from_us <= (PANES - 1) * PANE_US <= found.since_to_us
    assert kinds(found)[0] is StepKind.FIX_UPSTREAM


def test_the_class_shares_that_explain_a_mixture_are_found() -> None:
    case = a_case()
    by_class = [np.array([[80.0, 20.0, 0.0], [20.0, 80.0, 0.0]]) * 10] * 3
    after = np.array([380.0, 620.0, 0.0])
    views = [View(each, case.layout.bins[0], by_class[0].sum(axis=0), after) for each in "xyz"]
    found = mixture(views, by_class)
    assert found is not None
    assert found.after == pytest.approx([0.3, 0.7], abs=0.02)
    assert found.log_odds > 3
    assert found.explained > 0.95


def test_a_figure_that_is_no_loss_is_told_under_its_own_name() -> None:
    loss = a_loss(observed=0.81, reference=0.9, name="auc")
    found = diagnose(a_case(rule=Rule.POLICY, loss=loss))
    texts = [each.text for each in found.evidence]
    assert any("(auc 0.81, was 0.9)" in each for each in texts)
    assert not any("loss 0.81" in each for each in texts)


@pytest.mark.parametrize("mode", list(Mode))
def test_an_alert_of_nulls_names_its_own_feature_first(mode: Mode) -> None:
    def change(columns: Columns, first: int, rng: np.random.Generator) -> None:
        by("heat", lambda values, _: values * 1.8 + 32)(columns, first, rng)
        by("flow", lambda values, _: np.where(rng.random(len(values)) < 0.1, np.nan, values))(
            columns, first, rng
        )

    of_nulls = breach(Rule.MISSING_VALUES, "flow", observed=0.1, statistic="null_rate")
    findings = (breach(Rule.COVARIATE, "heat", observed=0.9), of_nulls)
    found = diagnose(a_case(change, rule=Rule.MISSING_VALUES, findings=findings, mode=mode))
    assert [each.feature for each in found.features][:2] == ["flow", "heat"]
    assert found.steps[0].text.startswith("Fix the source of flow")


@pytest.mark.parametrize("mode", list(Mode))
def test_scores_that_are_no_numbers_are_spoken_of_as_scores(mode: Mode) -> None:
    finding = breach(Rule.MISSING_VALUES, observed=1.0, statistic="null_rate")
    found = diagnose(a_case(rule=Rule.MISSING_VALUES, findings=(finding,), mode=mode))
    assert not any("of  " in each.text for each in found.evidence)
    assert found.cause is Cause.UNKNOWN
    assert [each.text for each in found.steps] == [
        "Ask the model for rows since then by hand: its scores are no finite numbers."
    ]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_infinite_values_of_a_reference_are_converted_without_a_warning() -> None:
    values = np.concatenate([np.random.default_rng(4).normal(size=900), np.full(50, np.inf)])
    values = np.concatenate([values, np.full(50, -np.inf), np.full(60, 1e308)])
    bins = bins_of(NumberColumn(values))
    assert isinstance(bins, NumberBins)
    source = source_of(bins, np.bincount(bins.assign(NumberColumn(values)), minlength=bins.width))
    shares = pushed(source, bins.edges, SLOPES, OFFSETS)
    assert ((shares >= 0) & (shares <= 1 + 1e-9)).all()
