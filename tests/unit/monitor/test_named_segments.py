"""Named segments: one that the reference does not know is never measured by other rows, what is
said to be seen in one is seen, and one that falls silent is missed."""

from dataclasses import replace

import numpy as np
import pytest
from tests.support.memory_monitor import (
    DAY_US,
    SCHEMA,
    SUBJECT,
    Monitor,
    Rows,
    a_block,
    parquet,
    rows_of,
    truths_of,
)

from homeostat.columns import pack
from homeostat_monitor.api.health import in_force_of
from homeostat_monitor.domain.detection import Detector, Mode
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import Comparison, Policy, PolicyRule, Segment
from homeostat_monitor.domain.windows.window import Window
from homeostat_monitor.intake.blocks import taken_rows
from homeostat_monitor.ports import KnownVersion
from homeostat_monitor.powers import power_of
from homeostat_monitor.references import reference_rows
from homeostat_monitor.versions import _profile

THIN = Segment("thin", "small > 1.5")
CONTEXT = Segment("annex", 'context.house == "annex"')
OF_B = Segment("b", 'kind == "b"')
WITHIN = 2_000
RUNS = 24
ROWS_OF_A_PANE = 8


def known(past: Rows, policy: Policy) -> KnownVersion:
    made = _profile(parquet(past), SCHEMA, None, policy)
    return KnownVersion(SUBJECT, Task.BINARY, made, policy=policy)


def in_houses(live: Rows) -> np.ndarray:
    """Rows of the annex are unlike all others, as they always were."""
    is_annex = np.arange(live.rows) % 3 == 0
    live.features["amount"] = live.features["amount"] + 5 * is_annex
    return is_annex


@pytest.mark.parametrize("mode", [Mode.IID, Mode.TIME_ORDERED])
def test_a_segment_that_the_reference_does_not_know_is_not_compared_with_all_rows(
    mode: Mode,
) -> None:
    past = rows_of(70, 5, seed=1)
    in_houses(past)
    version = known(past, Policy(mode=mode, segments=(THIN, CONTEXT)))
    assert version.profile is not None
    remarks = [each for each in version.profile.remarks if "are not watched" in each]
    assert [each.split()[2] for each in remarks] == ["thin", "annex"]
    assert all("cure: push the version with more rows" in each for each in remarks)

    monitor, live = Monitor(version), rows_of(100, 5, seed=2)
    is_annex = in_houses(live)
    block = a_block(live)
    block.contexts.append(pack("house", np.where(is_annex, "annex", "main").astype(object)))
    monitor.take(block)
    monitor.judge(105)
    assert monitor.count("predictions@annex") == is_annex.sum()
    assert monitor.alerts == []

    others = ["the segment gone has too few rows", "a span with too few rows was not judged"]
    version = replace(version, remarks=version.profile.remarks)
    assert in_force_of([*remarks, *others], version) == [*remarks, others[1]]
    told = power_of(version, reference_rows(parquet(past), SCHEMA), WITHIN)
    assert {each.change for each in told.lines if each.segment} == {"loss"}
    assert set(remarks) <= set(told.remarks)


def test_its_loss_and_a_persons_thresholds_are_watched_and_not_explained_by_other_rows() -> None:
    rule = PolicyRule("dear", "mean_score", Comparison.ABOVE, 0.1, segment="thin")
    past = rows_of(70, 5, seed=1)
    monitor = Monitor(known(past, Policy(mode=Mode.IID, segments=(THIN,), rules=(rule,))))
    live = rows_of(100, 30, seed=2)
    is_bad = (live.features["small"] > 1.5) & (live.times >= 118 * DAY_US)
    live.losses = np.where(is_bad, 1.0, live.losses)
    monitor.take(a_block(live))
    monitor.learn(truths_of(live))
    monitor.judge(*range(101, 132))
    told = {each.rule: each for each in monitor.alerts if each.segment == "thin"}
    assert set(told) == {Rule.POLICY, Rule.PERFORMANCE}
    diagnosis = told[Rule.PERFORMANCE].diagnosis
    assert diagnosis is not None
    assert not diagnosis.features


def test_what_is_said_to_be_seen_in_a_segment_is_seen_by_its_own_detector() -> None:
    past = rows_of(70, 4, seed=1)
    version = known(past, Policy(mode=Mode.IID, segments=(OF_B,)))
    told = power_of(version, reference_rows(parquet(past), SCHEMA), WITHIN)
    [line] = [
        each
        for each in told.lines
        if (each.segment, each.feature, each.change) == ("b", "small", "shift")
    ]
    [whole] = [
        each
        for each in told.lines
        if (each.segment, each.feature, each.change) == ("", "small", "shift")
    ]
    # Its own 800 rows say less than all 2,400.
    assert line.smallest > 1.1 * whole.smallest
    assert np.mean([_is_seen(version, line.smallest, run) for run in range(RUNS)]) >= 0.85
    assert np.mean([_is_seen(version, line.smallest / 3, run) for run in range(RUNS)]) <= 0.2


def _is_seen(version: KnownVersion, shift: float, run: int) -> bool:
    profile = version.profile
    assert profile is not None
    detector: Detector = profile.detectors["b"][0].detector
    detector.restore(profile.detectors["b"][0].state)
    live = rows_of(100, seed=1_000 + run, rows=4 * WITHIN)
    live = live.only(live.features["kind"] == "b").only(slice(WITHIN))
    live.features["small"] = live.features["small"] + np.float32(shift)
    taken = taken_rows(SUBJECT, profile, SCHEMA, [(0, a_block(live))]).rows
    panes = np.arange(WITHIN) // ROWS_OF_A_PANE
    sums = profile.counter.count(replace(taken, groups=panes, group_count=int(panes[-1]) + 1))
    told = detector.feed([Window(at, at + 1, each) for at, each in enumerate(sums)])
    return any(one.is_breach and one.feature == "small" for found in told for one in found)


def silent(days: int, mode: Mode, *, all_rows: bool = False, at_once: bool = True) -> Monitor:
    """After 25 days of 40 rows of the segment, or all, stop for so many days; by all marks that
    one poll brings, or one after the other."""
    past = rows_of(70, 20, seed=1)
    monitor = Monitor(known(past, Policy(mode=mode, segments=(OF_B,))))
    live = rows_of(100, 40, seed=2)
    is_gone = (live.times >= 125 * DAY_US) & (live.times < (125 + days) * DAY_US)
    if not all_rows:
        is_gone &= live.features["kind"] == "b"
    monitor.take(a_block(live.only(~is_gone)))
    for marks in [range(101, 140)] if at_once else [[each] for each in range(101, 140)]:
        monitor.judge(*marks)
    return monitor


def arrivals(monitor: Monitor) -> list[str]:
    return [each.segment for each in monitor.alerts if each.rule is Rule.ARRIVAL_RATE]


@pytest.mark.parametrize("mode", [Mode.IID, Mode.TIME_ORDERED])
def test_a_segment_that_falls_silent_is_told_whatever_marks_come_at_once(mode: Mode) -> None:
    monitor = silent(15, mode)
    assert arrivals(monitor) == ["b"]
    assert monitor.alerts == silent(15, mode, at_once=False).alerts


@pytest.mark.parametrize("mode", [Mode.IID, Mode.TIME_ORDERED])
def test_where_all_rows_stop_no_segment_is_named(mode: Mode) -> None:
    assert arrivals(silent(15, mode, all_rows=True)) == [""]


@pytest.mark.parametrize("mode", [Mode.IID, Mode.TIME_ORDERED])
def test_a_segment_whose_rows_come_as_ever_is_not_missed(mode: Mode) -> None:
    assert silent(0, mode).alerts == []
