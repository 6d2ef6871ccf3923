"""An alert's life: one id, valid steps, no repeats, no flapping."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeostat_monitor.app.book import Book
from homeostat_monitor.domain.alerts.alert import (
    Alert,
    Moment,
    Resolution,
    Severity,
    State,
    Subject,
    after_window,
    diagnosed,
)
from homeostat_monitor.domain.alerts.causes import UNEXPLAINED, Cause, cause_of_loss
from homeostat_monitor.domain.alerts.ends import after_run_without_candidate, superseded
from homeostat_monitor.domain.alerts.ids import alert_id
from homeostat_monitor.domain.alerts.losses import after_losses
from homeostat_monitor.domain.alerts.texts import findings_summary
from homeostat_monitor.domain.diagnosis import Diagnosis, FeatureShare
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.watch import LossChange, LossSignal
from homeostat_monitor.messages.alerts import message_of

SUBJECT = Subject("delays", 3)
DAY = 86_400_000_000


def a_finding(
    observed: float, feature: str = "x", rule: Rule = Rule.COVARIATE, outside: float = 0.0
) -> Finding:
    return Finding(rule, feature, "js_distance", observed, 0.05, 0.1, observed > 0.1, outside)


def after(alert: Alert | None, window: int, *findings: Finding) -> Alert | None:
    moment = Moment((window + 1) * DAY, (window + 1) * DAY)
    return after_window(
        alert, findings, subject=SUBJECT, window_start_us=window * DAY, moment=moment
    )


def opened(*findings: Finding) -> Alert:
    alert = after(None, 0, *(findings or (a_finding(0.3),)))
    assert alert is not None
    return alert


def a_change(signal: LossSignal, *, is_critical: bool = False, at_us: int = 5 * DAY) -> LossChange:
    return LossChange(signal, at_us, 700, at_us - DAY, 0.3, 0.2, is_critical)


def after_loss(
    alert: Alert | None, change: LossChange, cause: Cause = Cause.CONCEPT
) -> Alert | None:
    return after_losses(
        alert, change, subject=SUBJECT, cause=cause, moment=Moment(change.at_us, change.at_us)
    )


def test_a_breach_opens_an_alert_with_its_evidence() -> None:
    alert = opened(a_finding(0.2, "y"), a_finding(0.3, "x"), a_finding(0.01, "z"))
    assert alert.state is State.OPENED
    assert alert.feature == "x"
    assert [each.feature for each in alert.shares] == ["x", "y"]
    assert alert.revision == 1
    assert alert.since_us == 0
    assert alert.moment.watermark_us == DAY
    assert "x left its reference distribution" in alert.summary
    assert alert.remedies


def test_the_id_says_what_it_is_about_and_when_it_opened() -> None:
    alert = opened()
    assert alert.alert_id == alert_id(SUBJECT, Rule.COVARIATE, "x", 0)
    others = {
        alert_id(SUBJECT, Rule.COVARIATE, "x", DAY),
        alert_id(SUBJECT, Rule.COVARIATE, "y", 0),
        alert_id(SUBJECT, Rule.PREDICTION, "x", 0),
        alert_id(Subject("delays", 4), Rule.COVARIATE, "x", 0),
        # Parts do not run into one another.
        alert_id(Subject("delays3", 0), Rule.COVARIATE, "x", 0),
    }
    assert len(others | {alert.alert_id}) == 6


def test_while_it_lasts_nothing_new_is_told() -> None:
    alert = opened()
    later = after(alert, 1, a_finding(0.4))
    assert later is not None
    assert later.revision == 1


def test_two_calm_windows_end_it_and_one_does_not() -> None:
    alert = opened()
    alert = after(alert, 1, a_finding(0.05))
    assert alert is not None
    assert alert.is_open
    alert = after(alert, 2, a_finding(0.3))
    alert = after(alert, 3, a_finding(0.05))
    assert alert is not None
    assert alert.is_open
    alert = after(alert, 4, a_finding(0.05))
    assert alert is not None
    assert (alert.state, alert.resolution) == (State.RESOLVED, Resolution.RECOVERED)
    assert alert.revision == 2
    assert alert.remedies == ()


def test_a_window_that_says_nothing_of_the_feature_is_not_calm() -> None:
    alert = opened()
    for window in range(1, 6):
        alert = after(alert, window, a_finding(0.01, "another"))
    assert alert is not None
    assert alert.is_open


def test_broken_data_of_another_feature_is_news_once() -> None:
    def nulls(feature: str) -> Finding:
        return a_finding(0.2, feature, Rule.MISSING_VALUES)

    alert = opened(nulls("x"))
    alert = after(alert, 1, nulls("x"), nulls("y"))
    assert alert is not None
    assert (alert.state, alert.revision) == (State.ESCALATED, 2)
    alert = after(alert, 2, nulls("y"))
    assert alert is not None
    assert alert.revision == 2


def test_broken_data_on_most_rows_is_critical() -> None:
    assert opened(a_finding(0.9, rule=Rule.MISSING_VALUES)).severity is Severity.CRITICAL
    assert opened(a_finding(0.9)).severity is Severity.WARNING
    alert = after(
        opened(a_finding(0.2, rule=Rule.UNSEEN_VALUES)), 1, a_finding(0.8, rule=Rule.UNSEEN_VALUES)
    )
    assert alert is not None
    assert (alert.state, alert.severity) == (State.ESCALATED, Severity.CRITICAL)


def test_a_rise_opens_a_further_one_escalates_and_recovery_ends() -> None:
    alert = after_loss(None, a_change(LossSignal.ROSE))
    assert alert is not None
    assert (alert.state, alert.severity, alert.cause) == (
        State.OPENED,
        Severity.WARNING,
        Cause.CONCEPT,
    )
    alert = after_loss(alert, a_change(LossSignal.ROSE, at_us=6 * DAY))
    assert alert is not None
    assert (alert.state, alert.severity) == (State.ESCALATED, Severity.CRITICAL)
    again = after_loss(alert, a_change(LossSignal.PERSISTS, at_us=7 * DAY))
    assert again is alert
    alert = after_loss(alert, a_change(LossSignal.RECOVERED, at_us=8 * DAY))
    assert alert is not None
    assert (alert.resolution, alert.revision) == (Resolution.RECOVERED, 3)
    assert after_loss(None, a_change(LossSignal.RECOVERED)) is None


def test_a_steep_rise_is_critical_at_once() -> None:
    alert = after_loss(None, a_change(LossSignal.ROSE, is_critical=True))
    assert alert is not None
    assert alert.severity is Severity.CRITICAL


def test_another_version_in_service_ends_it() -> None:
    ended = superseded(opened(), by_version=4, moment=Moment(9, 10))
    assert ended.resolution is Resolution.SUPERSEDED
    assert "version 4" in ended.summary
    assert superseded(ended, by_version=5, moment=Moment(11, 12)) is ended


def test_tries_without_a_better_model_end_it_after_enough_of_them() -> None:
    alert = opened()
    for _ in range(2):
        alert = after_run_without_candidate(alert, enough=3, moment=Moment(1, 1))
        assert alert.is_open
    alert = after_run_without_candidate(alert, enough=3, moment=Moment(1, 1))
    assert alert.resolution is Resolution.ACCEPTED


@pytest.mark.parametrize(
    ("open_causes", "has_evidence", "cause"),
    [
        ([Cause.COVARIATE, Cause.DATA_BREAK], True, Cause.DATA_BREAK),
        ([Cause.COVARIATE], True, Cause.COVARIATE),
        ([], True, Cause.CONCEPT),
        ([], False, Cause.UNKNOWN),
        ([Cause.COVARIATE], False, Cause.COVARIATE),
    ],
)
def test_without_sums_a_risen_loss_has_the_cause_that_the_inputs_alerts_show(
    open_causes: list[Cause], has_evidence: bool, cause: Cause
) -> None:
    assert cause_of_loss(open_causes, has_evidence=has_evidence) is cause


def test_before_anybody_said_why_the_cause_is_unknown_and_a_trial_may_help() -> None:
    alert = opened()
    assert alert.cause is Cause.UNKNOWN
    assert alert.remedies == (UNEXPLAINED,)


STEPS = st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(["x", "y"])), max_size=60)


@given(STEPS, st.sampled_from([Rule.COVARIATE, Rule.MISSING_VALUES]))
def test_a_life_never_flaps(windows: list[tuple[bool, bool, str]], rule: Rule) -> None:
    alert: Alert | None = None
    told: list[Alert] = []
    breached: list[bool] = []
    for number, (is_breach, is_other, feature) in enumerate(windows):
        findings = [a_finding(0.3 if is_breach else 0.01, feature, rule)]
        other = "y" if feature == "x" else "x"
        findings.append(a_finding(0.2 if is_breach and is_other else 0.01, other, rule))
        before, alert = alert, after(alert, number, *findings)
        breached.append(is_breach)
        if alert is None or alert is before:
            continue
        is_new = before is None or before.alert_id != alert.alert_id
        if is_new or before is None or before.revision != alert.revision:
            told.append(alert)
            if alert.state is State.RESOLVED:
                # Only after two windows in a row without a breach.
                assert breached[-2:] == [False, False]
    for earlier, later in pairwise(told):
        if later.alert_id == earlier.alert_id:
            assert earlier.is_open
            assert later.revision == earlier.revision + 1
            assert later.state is not State.OPENED
        else:
            assert earlier.state is State.RESOLVED
            assert later.state is State.OPENED
            assert later.revision == 1
    assert len({(each.alert_id, each.revision) for each in told}) == len(told)
    # One alert is told at most: opened, one per further feature or severity, resolved.
    for each in {each.alert_id for each in told}:
        assert sum(other.alert_id == each for other in told) <= 4


@given(st.lists(st.sampled_from(list(LossSignal)), max_size=30))
def test_a_performance_alert_is_told_in_valid_steps(signals: list[LossSignal]) -> None:
    alert: Alert | None = None
    for number, signal in enumerate(signals):
        before = alert
        alert = after_loss(alert, a_change(signal, at_us=(number + 1) * DAY))
        if before is None or not before.is_open:
            opens = signal is LossSignal.ROSE
            assert (alert is not before) == opens
            if opens:
                assert alert is not None
                assert alert.revision == 1
        else:
            assert alert is not None
            assert alert.alert_id == before.alert_id
            assert alert.revision - before.revision in (0, 1)


def test_the_contract_carries_all_of_it() -> None:
    alert = opened(a_finding(0.3, "x"), a_finding(0.2, "y"))
    message = message_of(alert)
    assert message.alert_id == alert.alert_id
    assert [each.feature for each in message.features] == ["x", "y"]
    assert message.since_at.ToMicroseconds() == alert.since_us
    assert message.occurred_at.ToMicroseconds() == DAY
    assert message.remedies == list(alert.remedies)
    for resolution in Resolution:
        ended = replace(alert, state=State.RESOLVED, resolution=resolution)
        assert message_of(ended).resolution != 0


def test_an_alert_of_nulls_is_told_with_its_own_feature_first() -> None:
    own = a_finding(0.3, "x", Rule.MISSING_VALUES)
    shares = [FeatureShare("z", 1.0, a_finding(0.9, "z")), FeatureShare("x", 0.0, own)]
    why = Diagnosis(Cause.DATA_BREAK, 0.9, 0, 0, DAY, shares, (), ())
    assert [each.feature for each in message_of(diagnosed(opened(own), why)).features] == ["x", "z"]
    of_values = diagnosed(opened(a_finding(0.3, "x")), why)
    assert [each.feature for each in message_of(of_values).features] == ["z", "x"]


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("auc", "auc passed the policy's warning threshold: 0.8, threshold 0.7."),
        ("label_delay_seconds", "label delay passed the policy's warning threshold: 2 h, "),
        ("arrival_rate", "arrival rate passed the policy's warning threshold: 7200 per hour, "),
        ("null_rate", "null rate passed the policy's warning threshold: 80 %, threshold 70 %."),
    ],
)
def test_a_threshold_is_told_in_its_own_unit(metric: str, said: str) -> None:
    factor = 1.0 if metric in ("auc", "null_rate") else 9000.0
    finding = Finding(Rule.POLICY, "", metric, 0.8 * factor, 0.1, 0.7 * factor, True)
    assert said in findings_summary([replace(finding, policy_rule="mine")])


def test_an_alert_that_opens_again_at_the_same_time_has_an_id_of_its_own() -> None:
    book, moment = Book([]), Moment(DAY, DAY)
    for observed in (0.3, 0.01, 0.01, 0.3, 0.01, 0.01, 0.3):
        book.put(
            after_window(
                book.get(Rule.COVARIATE),
                [a_finding(observed)],
                subject=SUBJECT,
                window_start_us=0,
                moment=moment,
                taken=book.ids,
            )
        )
    told = [each.alert_id for each in book.told if each.state is State.OPENED]
    assert told[0] == alert_id(SUBJECT, Rule.COVARIATE, "x", 0)
    assert len(set(told)) == 3
    assert len({(each.alert_id, each.revision) for each in book.told}) == len(book.told) == 5
