"""The budget of false alarms: one ledger, of which every detector has its level."""

import math

import numpy as np
import pytest

from homeostat_monitor.app import watches
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.detection.budget import LEDGER, MONTH_US, Budget, Part, level_per_look
from homeostat_monitor.domain.losses import certain
from homeostat_monitor.domain.losses.anchored import sample_of
from homeostat_monitor.domain.losses.pace import Pace
from homeostat_monitor.domain.losses.tests import LossTests
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import Policy, Segment
from homeostat_monitor.ports import KnownVersion

DAY_US = 86_400_000_000


def test_the_shares_are_the_whole_budget() -> None:
    assert set(LEDGER) == set(Part)
    assert math.isclose(sum(each.share for each in LEDGER.values()), 1.0)


@pytest.mark.parametrize("segments", [0, 1, 7])
def test_all_rows_and_all_segments_together_spend_what_was_signed(segments: int) -> None:
    spent = sum(
        line.of_all_rows + segments * (line.of_each_segment or 0.0)
        for line in Budget(3.0, segments).lines()
    )
    assert spent == pytest.approx(3.0)


def test_the_looks_of_a_month_spend_no_more_than_their_part() -> None:
    for length_us in (1_000_000, 3_600_000_000, DAY_US):
        assert level_per_look(0.7, length_us) * MONTH_US / length_us <= 0.7 + 1e-9
    assert level_per_look(1000.0, DAY_US) == 0.5


def test_a_policys_budget_reaches_the_watches_of_truths() -> None:
    """What a million losses of nothing may add up to, before and after a policy."""
    found = []
    for budget, segments in ((1.0, ()), (5.0, ()), (5.0, (Segment("s", "x > 0"),))):
        policy = Policy(false_alarms_per_month=budget, segments=segments, revision=1)
        known = KnownVersion(Subject("m", 1), Task.BINARY, None, (), policy)
        found.append((watches.fresh_losses(known, ""), watches.fresh_concept(known)))
    (losses, concept), (richer, _), (shared, same) = found
    assert richer._tests._budget == pytest.approx(5 * losses._tests._budget)
    assert shared._tests._budget == pytest.approx(richer._tests._budget / 2)
    assert same._budget == pytest.approx(5 * concept._budget)


def test_more_truths_make_every_one_of_them_count_for_less() -> None:
    rng = np.random.default_rng(0)
    tests = LossTests(1.0, 1.0)
    tests.refer_to(sample_of((rng.random(1000) < 0.2).astype(float)))
    assert tests.anchored is not None
    before, level = tests.anchored.dump().copy(), tests.log_level
    for at in range(2000):
        tests.count(at * 1_000_000)
    assert tests.log_level <= level
    tests.count(2000 * 1_000_000)
    # Two thousand in the shortest time that says something, a day: 60,000 in a month, so the least.
    assert tests.anchored.dump()[6] == before[6]


def test_what_a_month_brings_is_what_the_newest_month_brought() -> None:
    pace = Pace()
    for day in range(30):
        pace.take(day * DAY_US)
    few = pace.rows_per_false_alarm(1.0)
    for hour in range(30 * 24 * 60 * 8):
        pace.take(30 * DAY_US + hour * 7_500_000)
    many = pace.rows_per_false_alarm(1.0)
    assert few == 100_000
    assert many == pytest.approx(345_600, rel=0.01)


def test_what_adwin_finds_is_told_where_chance_is_within_the_budget() -> None:
    """Bernstein's bound against what sums of drawn values do."""
    rng = np.random.default_rng(1)
    means = (rng.random((20_000, 400)) < 0.1).mean(axis=1)
    for away in (0.02, 0.03, 0.04):
        bound = certain.log_chance(away, 0.09, 400, 1e12)
        assert (means - 0.1 >= away).mean() <= math.exp(bound)
    assert certain.log_chance(-0.1, 0.09, 400, 1000) == 0.0
    assert certain.log_level(4e6) < certain.log_level(1e5)
    assert certain.log_level(4e6, sides=2) == pytest.approx(certain.log_level(8e6))


@pytest.mark.parametrize("seed", range(3))
def test_losses_that_hang_together_for_long_are_known_as_such(seed: int) -> None:
    rng = np.random.default_rng(seed)
    levels = np.repeat(0.25 + 0.08 * rng.normal(size=20), 1000)
    values = (rng.random(20_000) < levels).astype(float)
    assert sample_of(values).clumping > 5
    assert sample_of((rng.random(20_000) < 0.2).astype(float)).clumping == 1.0
