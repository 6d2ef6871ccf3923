"""What ends an alert that no judge would end, and what a person's thresholds tell."""

from dataclasses import replace
from typing import Any

import pytest

from homeostat_monitor.api.service import listed
from homeostat_monitor.app.book import Book
from homeostat_monitor.app.hearing import RunNews, hear_run
from homeostat_monitor.app.passing import Judged, Pass
from homeostat_monitor.app.policies import mutes_of
from homeostat_monitor.app.unwanted import end_unwanted, end_withdrawn
from homeostat_monitor.domain.alerts.alert import (
    LOSS_RULES,
    Alert,
    Moment,
    Resolution,
    Severity,
    State,
    Subject,
    after_window,
)
from homeostat_monitor.domain.errors import UnknownModel
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import Comparison, Policy, PolicyRule, Segment
from homeostat_monitor.ports import KnownVersion, ModelStanding, Standing

SUBJECT = Subject("m", 1)
AA = Segment("aa", 'carrier == "AA"')


def a_finding(rule: Rule = Rule.COVARIATE, feature: str = "x", **changes: Any) -> Finding:
    return replace(Finding(rule, feature, "null_rate", 0.3, 0.0, 0.1, True), **changes)


def judged(alert: Alert | None, window: int, *findings: Finding) -> Alert:
    at = Moment(10 * window + 10, 10 * window + 10)
    after = after_window(alert, findings, subject=SUBJECT, window_start_us=window, moment=at)
    assert after is not None
    return after


def passed(policy: Policy, *alerts: Alert) -> Pass:
    version = KnownVersion(SUBJECT, Task.BINARY, None, policy=policy)
    nothing: Any = None
    return Pass(Standing(SUBJECT), version, Book(alerts), nothing, None, nothing, Judged())


@pytest.mark.parametrize("rule", list(Rule))
def test_an_alert_of_a_rule_that_is_switched_off_ends_for_every_rule(rule: Rule) -> None:
    alert = judged(None, 0, a_finding(rule))
    now = passed(Policy(disabled_rules=frozenset({rule})), alert)
    end_unwanted(now, [100], [90])
    (told,) = now.book.told
    assert told.resolution is Resolution.ACCEPTED
    assert told.moment.watermark_us == (90 if rule in LOSS_RULES else 100)
    assert "policy" in told.summary
    end_unwanted(now, [100], [90])
    assert now.book.told == [told]


def test_an_alert_of_a_segment_or_threshold_that_is_no_more_ends() -> None:
    of_segment = judged(None, 0, a_finding(segment="aa"))
    of_rule = judged(None, 0, a_finding(Rule.POLICY, policy_rule="nulls"))
    rule = PolicyRule("nulls", "null_rate", Comparison.ABOVE, feature="x")
    now = passed(Policy(segments=(AA,), rules=(rule,)), of_segment, of_rule)
    end_unwanted(now, [100], [])
    assert now.book.told == []
    now = passed(Policy(), of_segment, of_rule)
    end_unwanted(now, [100], [])
    assert {each.alert_id for each in now.book.told} == {of_segment.alert_id, of_rule.alert_id}


def test_a_feature_that_is_ignored_holds_no_alert_open() -> None:
    alert = judged(None, 0, a_finding(), a_finding(feature="y"))
    now = passed(Policy(ignored_features=("y",)), alert)
    end_unwanted(now, [100], [])
    assert now.book.told == []
    (kept,) = now.book.open()
    for window in (1, 2):
        kept = judged(kept, window, a_finding(observed=0.0, is_breach=False))
    assert kept.resolution is Resolution.RECOVERED
    pair = judged(None, 0, a_finding(Rule.CORRELATION, other_feature="y"))
    now = passed(Policy(ignored_features=("y",)), pair)
    assert now.said([a_finding(Rule.CORRELATION, other_feature="y")]) == []
    end_unwanted(now, [100], [])
    assert len(now.book.told) == 1


def test_a_withdrawn_estimate_leaves_no_alert_behind() -> None:
    now = passed(Policy(), judged(None, 0, a_finding(Rule.ESTIMATED_PERFORMANCE, "")))
    end_withdrawn(now, 70)
    assert now.book.told[0].state is State.RESOLVED
    assert "withdrawn" in now.book.told[0].summary


class OneModel:
    """As much of a transaction as hearing of a run takes."""

    def __init__(self, *alerts: Alert) -> None:
        self.alerts = list(alerts)

    async def lock_model(self, name: str) -> ModelStanding:
        return ModelStanding(name, 1, 1, 100, 90)

    async def hear(self, event_ids: list[bytes], forget_after_us: list[int]) -> list[bytes]:
        return event_ids

    async def open_alerts(self, subject: Subject) -> list[Alert]:
        return self.alerts

    async def save_alerts(self, alerts: list[Alert]) -> None:
        assert alerts == []

    async def tell(self, alerts: list[Alert]) -> None:
        assert alerts == []


@pytest.mark.parametrize("rule", [Rule.LABEL_DELAY, Rule.LABEL_COVERAGE, Rule.POLICY])
async def test_no_retraining_makes_normal_what_no_model_can_help(rule: Rule) -> None:
    tx: Any = OneModel(judged(None, 0, a_finding(rule, "")))
    news = RunNews("run", SUBJECT, cut_us=1_000, occurred_us=1_000)
    assert await hear_run(news, runs_until_accepted=1, tx=tx) == []


def of_policy(name: str, observed: float, **changes: Any) -> Finding:
    is_breach = observed > 0.1
    changes = {"policy_rule": name, "observed": observed, "is_breach": is_breach, **changes}
    return a_finding(Rule.POLICY, "", **changes)


def test_a_second_threshold_is_told_though_another_is_passed_already() -> None:
    alert = judged(None, 0, of_policy("first", 0.3), of_policy("second", 0.0))
    assert alert.summary.startswith("first: null rate passed the policy's warning threshold: 30 %")
    both = judged(alert, 1, of_policy("first", 0.3), of_policy("second", 0.2))
    assert both.state is State.ESCALATED
    assert both.summary.endswith("threshold 10 %. So does 1 more threshold.")
    worse = judged(both, 2, of_policy("first", 0.3), of_policy("second", 0.2, is_critical=True))
    assert worse.severity is Severity.CRITICAL
    assert worse.summary.startswith("second: null rate passed the policy's critical threshold")
    for window in (2, 3):
        both = judged(both, window, of_policy("first", 0.3), of_policy("second", 0.0))
        assert both.is_open
    for window in (4, 5):
        both = judged(both, window, of_policy("first", 0.0), of_policy("second", 0.0))
    assert both.summary == "Resolved: back within the policy's thresholds for 2 windows."


@pytest.mark.parametrize(
    ("finding", "told"),
    [
        (a_finding(Rule.MISSING_VALUES), "null rate 30 %, threshold 10 %"),
        (a_finding(statistic="surprise", observed=9.63), "once in 10^9.6 looks, told from 10^0.1"),
        (a_finding(statistic="surprise", observed=716.2), "once in over 10^15 looks"),
        (a_finding(observed=0.3123456789, statistic="js_distance"), "js distance 0.3123,"),
        (
            a_finding(Rule.LABEL_DELAY, "", statistic="median_delay_seconds", observed=9000.0),
            "median delay 2.5 h, threshold 0.1 s",
        ),
        (a_finding(Rule.UNSEEN_VALUES, observed=2e-4, statistic="unseen_rate"), "rate 0.02 %"),
    ],
)
def test_figures_are_told_in_the_unit_that_people_read(finding: Finding, told: str) -> None:
    assert told in judged(None, 0, finding).summary


def test_two_findings_of_one_thing_are_no_further_feature() -> None:
    scores = [a_finding(Rule.PREDICTION, "", statistic=each) for each in ("surprise", "null_rate")]
    assert "more" not in judged(None, 0, *scores).summary.removeprefix("The scores")


def test_a_list_of_alerts_is_no_longer_than_a_client_takes() -> None:
    alerts = [judged(None, window, a_finding()) for window in range(20)]
    whole = listed(alerts)
    assert len(whole.alerts) == 20
    some = listed(alerts, most_bytes=whole.ByteSize() // 2)
    assert 5 < len(some.alerts) < 15
    assert some.alerts[0] == whole.alerts[0]


async def test_mutes_of_a_model_that_is_not_known_are_no_empty_list() -> None:
    class Nobody:
        async def is_known(self, model_name: str) -> bool:
            return False

    tx: Any = Nobody()
    with pytest.raises(UnknownModel, match="homeostat models"):
        await mutes_of("delay", tx=tx)
