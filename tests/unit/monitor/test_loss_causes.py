"""Why a loss rose: what happens beside it is not what it comes of."""

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.monitor.test_diagnosis import CHANGED, PANE_US, a_case, a_loss, breach, by

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.diagnosis import StepKind
from homeostat_monitor.domain.diagnosis.judging import diagnose
from homeostat_monitor.domain.judges import Rule

A_FEW_NEW = by("site", lambda v, rng: np.where(np.arange(len(v)) >= len(v) - 3, "new", v))
MANY_NEW = by("site", lambda v, rng: np.where(rng.random(len(v)) < 0.3, "new", v))
TOLD = (breach(Rule.UNSEEN_VALUES, "site"),)


def test_a_feed_that_breaks_while_the_loss_is_high_did_not_raise_it() -> None:
    """Three rows of a thousand can't; a retraining must not wait for them."""
    loss = a_loss(since_us=CHANGED * PANE_US)
    found = diagnose(a_case(A_FEW_NEW, rule=Rule.PERFORMANCE, loss=loss, findings=TOLD))
    assert found.cause is not Cause.DATA_BREAK
    assert found.steps[0].kind is not StepKind.FIX_UPSTREAM


def test_a_feed_that_broke_with_the_loss_did_raise_it() -> None:
    loss = a_loss(since_us=CHANGED * PANE_US)
    found = diagnose(a_case(MANY_NEW, rule=Rule.PERFORMANCE, loss=loss, findings=TOLD))
    assert found.cause is Cause.DATA_BREAK


def test_the_alert_of_the_feed_itself_names_it_however_few_rows_it_was() -> None:
    found = diagnose(a_case(A_FEW_NEW, rule=Rule.UNSEEN_VALUES, findings=TOLD))
    assert found.cause is Cause.DATA_BREAK


def told_later(rule: Rule, share: float, since_pane: int) -> object:
    """A loss that rose with pane CHANGED; the windows at hand end there, the judges' word does
    not."""
    told = breach(rule, "heat", observed=share, since_us=since_pane * PANE_US)
    loss = a_loss(since_us=CHANGED * PANE_US)
    case = a_case(rule=Rule.PERFORMANCE, loss=loss, findings=(told,), panes=CHANGED)
    return diagnose(replace(case, at_us=(CHANGED + 10) * PANE_US)).cause


def test_a_break_that_no_kept_window_shows_yet_is_known_by_its_own_alert() -> None:
    assert told_later(Rule.OUT_OF_RANGE, 1.0, CHANGED) is Cause.DATA_BREAK
    assert told_later(Rule.MISSING_VALUES, 0.3, CHANGED) is Cause.DATA_BREAK


def test_neither_a_few_broken_rows_nor_a_later_break_raised_the_loss() -> None:
    assert told_later(Rule.MISSING_VALUES, 0.01, CHANGED) is not Cause.DATA_BREAK
    assert told_later(Rule.OUT_OF_RANGE, 1.0, CHANGED + 10_000) is not Cause.DATA_BREAK


@pytest.mark.parametrize("rule", [Rule.LABEL_DELAY, Rule.LABEL_COVERAGE])
def test_truths_that_do_not_come_are_no_changed_concept(rule: Rule) -> None:
    loss = a_loss(since_us=CHANGED * PANE_US, observed=1.0, reference=0.0, rows=0)
    found = diagnose(a_case(rule=rule, loss=loss))
    assert found.cause is Cause.INFRASTRUCTURE
    assert StepKind.RETRAIN not in [each.kind for each in found.steps]
