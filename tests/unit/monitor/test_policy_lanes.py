"""A person's thresholds on windows and on truths together: how marks come changes nothing."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from tests.support.memory_monitor import (
    DAY_US,
    SUBJECT,
    Monitor,
    a_block,
    a_version,
    rows_of,
    truths_of,
)

from homeostat_monitor.app.book import Book
from homeostat_monitor.domain.alerts.alert import Alert, Moment, after_window
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.policies.policy import Comparison, PolicyRule
from homeostat_monitor.ports import KnownVersion

DAYS = 5
RULES = (
    PolicyRule("scores", "mean_score", Comparison.ABOVE, 0.6, windows=1),
    PolicyRule("holes", "null_rate", Comparison.ABOVE, 0.2, critical=0.6, feature="amount"),
    PolicyRule("losses", "loss", Comparison.ABOVE, 0.35, critical=0.5),
    PolicyRule("brier", "brier", Comparison.ABOVE, 0.2, critical=0.3),
)


@pytest.fixture(scope="module")
def known() -> KnownVersion:
    found = a_version(rows_of(90, 3), mode=Mode.IID)
    # The defaults have tests of their own.
    policy = replace(found.policy, rules=RULES, disabled_rules=frozenset(Rule) - {Rule.POLICY})
    return replace(found, policy=policy)


def played(known: KnownVersion, polls: list[list[float]], seed: int) -> list[Alert]:
    """Days that are well, broken in one way, or in both; marks come in these portions."""
    rng, monitor = np.random.default_rng(seed), Monitor(known)
    for number in range(DAYS):
        day = rows_of(100 + number, seed=seed * 100 + number)
        for part in range(4):
            rows = slice(part * day.rows // 4, (part + 1) * day.rows // 4)
            if rng.random() < 0.3:
                day.features["amount"][rows] = np.nan
            if rng.random() < 0.3:
                day.scores[rows] = 0.8 + 0.2 * day.scores[rows]
            if rng.random() < 0.4:
                day.truths[rows] = 1 - day.truths[rows]
                day.losses[rows] = 1 - day.losses[rows]
        monitor.take(a_block(day, number + 1))
        monitor.learn(truths_of(day, number + 1))
    for marks in polls:
        monitor.judge(*marks)
    return monitor.alerts


@pytest.mark.parametrize("seed", range(3))
def test_a_backlog_tells_what_live_traffic_would_have_told(known: KnownVersion, seed: int) -> None:
    marks = [100 + each / 8 for each in range(1, DAYS * 8 + 8)]
    live = played(known, [[each] for each in marks], seed)
    assert {each.is_of_truths for each in live} == {False, True}
    rng = np.random.default_rng(1000 + seed)
    cuts = sorted(rng.choice(np.arange(1, len(marks)), 5, replace=False).tolist())
    portions = [part.tolist() for part in np.split(np.array(marks), cuts)]
    for polls in ([marks], portions):
        assert list(map(asdict, played(known, polls, seed))) == list(map(asdict, live))


def test_an_alert_of_both_kinds_from_before_goes_on_as_the_one_that_opened_it() -> None:
    holes = Finding(Rule.POLICY, "amount", "null_rate", 0.5, 0.0, 0.2, True, policy_rule="holes")
    losses = Finding(Rule.POLICY, "", "loss", 0.5, 0.2, 0.35, True, policy_rule="losses")
    at, subject = Moment(DAY_US, DAY_US), SUBJECT
    alert = after_window(None, [holes], subject=subject, window_start_us=0, moment=at)
    assert alert is not None
    book = Book([replace(alert, shares=(holes, losses))])
    found = book.get(Rule.POLICY)
    assert found is not None
    assert found.shares == (holes,)
    assert book.get(Rule.POLICY, of_truths=True) is None
    other = after_window(None, [losses], subject=subject, window_start_us=0, moment=at)
    assert other is not None
    assert other.alert_id != alert.alert_id
    book.put(other)
    assert len(book.open()) == 2
