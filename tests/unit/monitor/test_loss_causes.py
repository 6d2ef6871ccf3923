"""Why a loss rose: what happens beside it is not what it comes of."""

import numpy as np
from tests.unit.monitor.test_diagnosis import CHANGED, PANE_US, a_case, a_loss, breach, by

from homeostat_monitor.domain.causes import Cause
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
