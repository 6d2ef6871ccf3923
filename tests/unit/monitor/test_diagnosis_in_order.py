"""Causes in order of time: what breaks is told from what the world does by itself."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import (
    Case,
    Diagnosis,
    Infrastructure,
    LossEvidence,
    StepKind,
)
from homeostat_monitor.domain.diagnosis.conversions import CATALOGUE, log_priors
from homeostat_monitor.domain.diagnosis.judging import diagnose
from homeostat_monitor.domain.diagnosis.natural import Natural, natural_of
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.bins import CategoryColumn, NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows
from homeostat_monitor.domain.windows.window import Window

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[np.generic]]
Change = Callable[[Columns, slice, np.random.Generator], None]

DAY_US = 86_400_000_000
ROWS, REFERENCE, CALM, AFTER = 600, 35, 10, 3
# The first day of what happens, counted from the first live one.
LAST = CALM * ROWS


def wandering(rng: np.random.Generator, days: int, memory: float = 0.6) -> Floats:
    """A level a day that remembers, of deviation 1, going over from day to day."""
    levels = rng.normal(size=days + 1)
    for day in range(1, days + 1):
        levels[day] = memory * levels[day - 1] + np.sqrt(1 - memory**2) * levels[day]
    found: Floats = np.interp(np.arange(days * ROWS) / ROWS, np.arange(days + 1), levels)
    return found


def a_world(seed: int) -> Columns:
    """A temperature and a dew point of one air, a wind alone, a weekday, a site."""
    rng = np.random.default_rng(seed)
    days = REFERENCE + CALM + AFTER
    rows = days * ROWS
    air = 45 + 10 * wandering(rng, days)
    return {
        "temp": air + rng.normal(0, 2, rows),
        "dewp": air - 10 - 2 * wandering(rng, days) + rng.normal(0, 1, rows),
        "wind": np.exp(2 + 0.3 * wandering(rng, days, 0.3) + rng.normal(0, 0.3, rows)),
        "weekday": np.arange(rows) // ROWS % 7.0,
        "site": rng.choice(["n", "s"], rows).astype(object),
    }


def as_columns(columns: Columns, rows: slice) -> dict[str, "NumberColumn | CategoryColumn"]:
    found: dict[str, NumberColumn | CategoryColumn] = {}
    for name, each in columns.items():
        if name == "site":
            texts, codes = np.unique(each[rows].astype(str), return_inverse=True)
            found[name] = CategoryColumn(codes.astype(np.int32), texts.tolist())
        else:
            found[name] = NumberColumn(each[rows].astype(np.float64))
    return found


@cache
def a_profile() -> VersionProfile:
    rows = REFERENCE * ROWS
    times = np.arange(rows, dtype=np.int64) * (DAY_US // ROWS)
    known = ReferenceRows(
        times,
        as_columns(a_world(4), slice(0, rows)),
        np.full(rows, 0.5),
        np.ones(rows, dtype=bool),
        Holdout(np.empty(0), np.empty(0, dtype=np.int64)),
    )
    return profile_of(known, length_us=DAY_US, policy=Policy(mode=Mode.TIME_ORDERED))


def live_days(change: Change | None, days: int = CALM + 1) -> list[Window]:
    profile, world = a_profile(), a_world(4)
    live = {name: each[REFERENCE * ROWS :][: days * ROWS].copy() for name, each in world.items()}
    if change is not None:
        change(live, slice(LAST, None), np.random.default_rng(1))
    columns = tuple(as_columns(live, slice(None)).values())
    rows = Rows(np.repeat(np.arange(days), ROWS), days, columns, np.full(days * ROWS, 0.5))
    begin = REFERENCE * DAY_US
    return [
        Window(begin + at * DAY_US, begin + (at + 1) * DAY_US, each)
        for at, each in enumerate(profile.counter.count(rows))
    ]


def judged(windows: Sequence[Window]) -> list[list[Finding]]:
    detector, state = a_profile().detectors[""][0]
    detector.restore(state)
    return detector.feed(windows)


def a_case(windows: Sequence[Window], findings: Sequence[Finding], rule: Rule) -> Case:
    profile = a_profile()
    return Case(
        rule=rule,
        segment="",
        mode=profile.mode,
        layout=profile.layout,
        reference=profile.reference,
        findings=findings,
        windows=windows,
        at_us=windows[-1].end_us,
        natural=profile.norm("").natural,
    )


def told(change: Change) -> Diagnosis:
    """Of the alert on the change's first day, by the rule that it breaches most."""
    windows = live_days(change)
    findings = judged(windows)[-1]
    worst = max((each for each in findings if each.is_breach), key=lambda each: each.excess)
    return diagnose(a_case(windows, findings, worst.rule))


def celsius(columns: Columns, since: slice, rng: np.random.Generator) -> None:
    columns["temp"][since] = (columns["temp"][since] - 32) / 1.8


def cold(columns: Columns, since: slice, rng: np.random.Generator) -> None:
    for name in ("temp", "dewp"):
        columns[name][since] -= 60


def off(columns: Columns, since: slice, rng: np.random.Generator) -> None:
    columns["dewp"][since] += 45


def storm(columns: Columns, since: slice, rng: np.random.Generator) -> None:
    columns["wind"][since] += 23


def thousandfold(columns: Columns, since: slice, rng: np.random.Generator) -> None:
    columns["wind"][since] *= 1000


def silent(columns: Columns, since: slice, rng: np.random.Generator) -> None:
    gone = rng.random(len(columns["temp"][since])) < 0.1
    for name in ("temp", "dewp"):
        columns[name][since][gone] = np.nan


def renamed(columns: Columns, since: slice, rng: np.random.Generator) -> None:
    columns["site"][since][rng.random(len(columns["site"][since])) < 0.3] = "x"


def stands(columns: Columns, since: slice, rng: np.random.Generator) -> None:
    columns["temp"][since] = columns["temp"][since][0]


def test_calm_days_breach_nothing() -> None:
    assert not any(each.is_breach for found in judged(live_days(None)) for each in found)


def test_one_feed_of_two_in_another_unit_is_named_with_its_day_and_the_conversion() -> None:
    found = told(celsius)
    assert found.cause is Cause.DATA_BREAK
    assert found.confidence >= 0.8
    assert [each.feature for each in found.features] == ["temp"]
    assert found.since_us == (REFERENCE + CALM) * DAY_US
    assert [each.kind for each in found.steps] == [StepKind.FIX_UPSTREAM, StepKind.INVESTIGATE]
    assert "degrees Fahrenheit sent as Celsius" in found.steps[0].text
    assert "dewp, which goes with it, is as it always was" in found.steps[0].text


def test_what_is_another_value_every_day_does_not_stand_still() -> None:
    told_of = [
        Finding(Rule.STUCK, name, "still_share", 1.0, 0.0, 0.98, is_breach=True)
        for name in ("weekday", "temp")
    ]
    days = live_days(None)
    assert diagnose(a_case(days, told_of[:1], Rule.STUCK)).cause is Cause.UNKNOWN
    loss = LossEvidence(days[-1].start_us, 0.4, 0.2, 500)
    risen = replace(a_case(days, told_of[:1], Rule.PERFORMANCE), loss=loss)
    assert diagnose(risen).cause is Cause.CONCEPT
    for since in (CALM * ROWS, (CALM - 2) * ROWS):

        def stuck(columns: Columns, _: slice, __: np.random.Generator, at: int = since) -> None:
            columns["temp"][at:] = columns["temp"][at]

        found = diagnose(a_case(live_days(stuck), told_of, Rule.STUCK))
        assert found.cause is Cause.DATA_BREAK
        assert [each.feature for each in found.features] == ["temp"]


@pytest.mark.parametrize(
    ("change", "feature"),
    [(off, "dewp"), (thousandfold, "wind"), (renamed, "site"), (stands, "temp")],
)
def test_what_breaks_alone_is_broken_data(change: Change, feature: str) -> None:
    found = told(change)
    assert found.cause is Cause.DATA_BREAK
    assert found.features[0].feature == feature
    assert found.since_us == (REFERENCE + CALM) * DAY_US
    assert found.steps[0].kind is StepKind.FIX_UPSTREAM


def test_a_feed_that_is_silent_is_named_with_what_it_carried_and_nothing_else() -> None:
    found = told(silent)
    assert found.cause is Cause.DATA_BREAK
    assert {each.feature for each in found.features} == {"temp", "dewp"}


def test_a_cold_spell_that_moves_all_that_belongs_together_is_no_broken_data() -> None:
    windows = live_days(cold)
    findings = [
        Finding(Rule.COVARIATE, name, "js_distance", 0.9, 0.3, 0.5, is_breach=True)
        for name in ("temp", "dewp")
    ]
    found = diagnose(a_case(windows, findings, Rule.COVARIATE))
    assert found.cause is Cause.COVARIATE
    assert {each.feature for each in found.features} == {"temp", "dewp"}


def test_what_goes_further_than_ever_by_no_known_factor_is_no_broken_data() -> None:
    found = told(storm)
    assert found.cause is Cause.COVARIATE
    assert found.features[0].feature == "wind"
    assert all(each.kind is not StepKind.FIX_UPSTREAM for each in found.steps)


OTHER_SCORES = Finding(Rule.PREDICTION, "", "js_distance", 0.6, 0.1, 0.3, is_breach=True)


def of_a_first_day(change: Change | None, rule: Rule, serving_since_day: int) -> Diagnosis:
    """Of the only day of a version so far, whose scores are told of where no input is."""
    windows = live_days(change)[-1:]
    findings = judged(windows)[-1]
    if not any(each.is_breach for each in findings):
        findings = [*findings, OTHER_SCORES]
    since = (REFERENCE + serving_since_day) * DAY_US
    case = a_case(windows, findings, rule)
    return diagnose(replace(case, around=Infrastructure(serving_since_us=since)))


def test_scores_that_moved_alone_with_a_versions_first_day_are_the_versions() -> None:
    found = of_a_first_day(None, Rule.PREDICTION, CALM)
    assert found.cause is Cause.NEW_VERSION
    assert found.steps[0].kind is StepKind.ROLL_BACK


def test_scores_that_moved_alone_later_follow_from_inputs() -> None:
    assert of_a_first_day(None, Rule.PREDICTION, 0).cause is Cause.COVARIATE


def test_a_unit_that_changed_with_a_versions_first_day_is_broken_data() -> None:
    assert of_a_first_day(celsius, Rule.COVARIATE, CALM).cause is Cause.DATA_BREAK


def test_a_loss_that_rose_with_a_version_of_other_scores_is_the_versions() -> None:
    windows = live_days(None)[-1:]
    since = (REFERENCE + CALM) * DAY_US
    case = replace(
        a_case(windows, [OTHER_SCORES], Rule.PERFORMANCE),
        loss=LossEvidence(since, 0.4, 0.2, 500),
        around=Infrastructure(serving_since_us=since),
    )
    assert diagnose(case).cause is Cause.NEW_VERSION
    assert diagnose(replace(case, findings=[])).cause is Cause.CONCEPT


def of_loss(change: Change | None, since_day: int, **loss: float) -> Diagnosis:
    """Of a loss that rose on a live day, told at the end of the last one."""
    windows = live_days(change)
    findings = [each for each in judged(windows)[-1] if each.is_breach]
    since = (REFERENCE + since_day) * DAY_US
    evidence = LossEvidence(since, loss.get("observed", 0.4), 0.2, 500)
    return diagnose(replace(a_case(windows, findings, Rule.PERFORMANCE), loss=evidence))


def test_a_loss_that_rises_with_a_sure_break_of_every_row_is_the_break() -> None:
    found = of_loss(celsius, CALM)
    assert found.cause is Cause.DATA_BREAK
    assert found.features[0].feature == "temp"


def test_a_loss_that_rose_days_before_the_break_is_not_the_break() -> None:
    assert of_loss(celsius, CALM - 4).cause is Cause.CONCEPT


def test_a_few_nulls_do_not_explain_a_loss_that_doubled() -> None:
    def gaps(columns: Columns, since: slice, rng: np.random.Generator) -> None:
        columns["wind"][since][rng.random(len(columns["wind"][since])) < 0.03] = np.nan

    found = of_loss(gaps, CALM)
    assert found.cause is Cause.CONCEPT
    assert all(each.kind is not StepKind.FIX_UPSTREAM for each in found.steps)
    assert any("explains 0% of the rise" in each.text for each in found.evidence)


def test_a_loss_that_rises_while_days_differ_as_they_do_is_the_concept() -> None:
    assert of_loss(None, CALM).cause is Cause.CONCEPT


def test_what_is_natural_is_measured_on_the_references_own_days() -> None:
    natural = a_profile().norm("").natural
    assert natural is not None
    assert natural.is_known
    assert natural.of("temp").companion == "dewp"
    assert natural.of("dewp").companion == "temp"
    assert natural.of("wind").companion == ""
    # Days of weather differ by much more than chance makes of 600 rows; what is drawn does not.
    assert natural.of("temp").dispersion > 20
    assert natural.of("site").dispersion < 3


def test_of_few_days_nothing_is_known_and_the_guess_is_wide() -> None:
    natural = natural_of(a_profile().layout, live_days(None)[:4])
    assert not natural.is_known
    assert natural.of("temp") == Natural().of("temp")
    assert natural.of("temp").centre > 0.3


def test_a_name_says_which_units_are_likely() -> None:
    kinds = [each.text for each in CATALOGUE]
    for name, unit in (("temp_outside", "degrees Fahrenheit sent as Celsius"), ("x", "")):
        priors = log_priors(name)
        assert np.exp(priors).sum() == pytest.approx(1)
        best = {kinds[at] for at in np.flatnonzero(priors == priors.max())}
        assert any(each.startswith(unit) for each in best)
        assert (len(best) == len(kinds)) is (not unit)
