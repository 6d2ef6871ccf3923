"""Looking behind an alert: what is read, what is not peeked at, and what is said of it."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from tests.unit.monitor.test_found import rows_of

from homeostat_monitor.app.deepening import (
    MOST_ROWS,
    LedgerAway,
    ReadRows,
    Samples,
    Span,
    diagnosis_of,
    look,
    read_samples,
    retold,
)
from homeostat_monitor.domain.alerts.alert import Alert, Moment, Severity, State, Subject
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.diagnosis import (
    ContextResidual,
    Diagnosis,
    SegmentShare,
    Step,
    StepKind,
)
from homeostat_monitor.domain.diagnosis.completing import (
    Looked,
    bare,
    carried_on,
    completed,
    unread,
)
from homeostat_monitor.domain.diagnosis.rows import PastRows
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.segments.expressions import parse
from homeostat_monitor.domain.windows.bins import NumberColumn

SUBJECT = Subject("delays", 1)
MARK_US, SINCE_US = 1_000, 600


def an_alert(rule: Rule = Rule.COVARIATE) -> Alert:
    return Alert(
        alert_id="a",
        subject=SUBJECT,
        rule=rule,
        feature="",
        state=State.OPENED,
        severity=Severity.WARNING,
        resolution=None,
        summary="",
        since_us=SINCE_US,
        moment=Moment(MARK_US, MARK_US),
        observed=0.4,
        reference=0.2,
        threshold=0.3,
        shares=(),
        cause=Cause.CONCEPT,
        revision=3,
        opened_at=MARK_US,
    )


@dataclass
class FakePast:
    """Rows with an event time each; the truth is known a while later."""

    event_times_us: np.ndarray
    delay_us: int = 0
    reached: int | None = MARK_US
    spans: list[Span] = field(default_factory=list)

    async def reached_us(self) -> int | None:
        return self.reached

    async def rows(self, span: Span) -> ReadRows:
        self.spans.append(span)
        known = self.event_times_us + self.delay_us
        keep = self.event_times_us < span.event_before_us
        if span.event_from_us is not None:
            keep &= self.event_times_us >= span.event_from_us
        if span.labelled_only:
            keep &= known <= span.known_at_most_us
        at = np.flatnonzero(keep)[-span.most_rows :]
        values = self.event_times_us[at].astype(float)
        rows = PastRows({"time": NumberColumn(values)}, values, values, values)
        return ReadRows(rows, self.event_times_us[at], known[at])


async def test_rows_are_of_before_the_mark_and_split_where_the_alert_began() -> None:
    past = FakePast(np.arange(2_000))
    samples = await read_samples(an_alert(), past=past)
    assert (samples.now.scores.min(), samples.now.scores.max()) == (SINCE_US, MARK_US - 1)
    assert (samples.before.scores.min(), samples.before.scores.max()) == (0, SINCE_US - 1)
    assert {each.known_at_most_us for each in past.spans} == {MARK_US}
    assert {each.subject for each in past.spans} == {SUBJECT}


async def test_what_truths_tell_is_split_by_when_they_became_known() -> None:
    past = FakePast(np.arange(2_000), delay_us=100)
    samples = await read_samples(an_alert(Rule.PERFORMANCE), past=past)
    assert (samples.now.scores.min(), samples.now.scores.max()) == (SINCE_US - 100, MARK_US - 100)
    assert samples.before.scores.max() == SINCE_US - 101
    assert all(each.labelled_only for each in past.spans)


async def test_where_all_that_is_new_fills_the_sample_older_rows_are_read_for_comparison() -> None:
    times = np.repeat(np.arange(0, 1_000), 200)
    samples = await read_samples(an_alert(Rule.PERFORMANCE), past=FakePast(times))
    assert len(samples.now) == MOST_ROWS
    assert len(samples.before)
    assert samples.before.scores.max() < SINCE_US


@pytest.mark.parametrize("reached", [None, MARK_US - 1])
async def test_a_ledger_that_is_behind_is_waited_for(reached: int | None) -> None:
    with pytest.raises(LedgerAway, match="judged at 1000"):
        await read_samples(an_alert(), past=FakePast(np.arange(10), reached=reached))


async def test_a_loss_that_rose_in_one_segment_is_said_with_its_share_of_the_rise() -> None:
    before, now = rows_of(50, 8_000), rows_of(51, 8_000)
    inside = parse('carrier == "EV"').mask(now.columns, len(now))
    now = replace(now, losses=np.where(inside, 1.0, now.losses))
    looked = look(Samples(now, before))
    diagnosis = completed(diagnosis_of(an_alert()), looked)
    assert diagnosis.is_complete
    assert diagnosis.segments[0].expression == 'carrier == "EV"'
    text = diagnosis.evidence[0].text
    assert 'carrier == "EV"' in text
    assert "of the rise" in text
    assert diagnosis.steps[-1].kind is StepKind.INVESTIGATE
    alert = retold(an_alert(), diagnosis)
    assert (alert.state, alert.revision, alert.moment) == (
        State.DIAGNOSED,
        4,
        Moment(MARK_US, MARK_US),
    )


async def test_within_a_segment_only_its_rows_are_looked_at() -> None:
    looked = look(Samples(rows_of(52), rows_of(53)), parse('carrier == "EV"'))
    assert 600 < looked.rows < 900
    assert not looked.segments
    diagnosis = completed(bare(Cause.CONCEPT, SINCE_US), looked)
    assert f"No segment stands out among {looked.rows} rows." in diagnosis.evidence[0].text


def a_residual(explained_before: float) -> Looked:
    residual = ContextResidual("context.wind", 0.2, explained_before, "It depends on wind.")
    return Looked([], [residual], 1_000)


def test_a_dependence_that_is_new_comes_first_and_an_old_one_last() -> None:
    advised = Step(StepKind.RETRAIN, "Retrain.", "")
    diagnosis = replace(bare(Cause.CONCEPT, SINCE_US), steps=[advised])
    for before, place in ((0.01, 0), (0.19, 1)):
        steps = completed(diagnosis, a_residual(before)).steps
        assert "Add the column wind" in steps[place].text
        assert advised in steps
    broken = replace(diagnosis, cause=Cause.DATA_BREAK)
    assert completed(broken, a_residual(0.0)).steps[0] == advised


def test_rows_that_could_not_be_read_leave_the_diagnosis_incomplete() -> None:
    diagnosis = unread(bare(Cause.CONCEPT, SINCE_US), "the ledger is away")
    assert not diagnosis.is_complete
    assert "The rows could not be read" in diagnosis.evidence[-1].text


def test_a_segment_without_a_loss_says_how_much_denser_it_is() -> None:
    share = SegmentShare("", "x >= 1", 0.5, 0.5, 0.1, 1.0, "row_share")
    diagnosis: Diagnosis = completed(bare(Cause.COVARIATE, 0), Looked([share], [], 10))
    assert diagnosis.evidence[0].text == "Where x >= 1: 50.0% of the rows, 10.0% before."


def test_what_rows_showed_holds_on_when_the_sums_are_judged_anew() -> None:
    share = SegmentShare("", "x >= 1", 0.5, 0.5, 0.1, 1.0, "loss")
    told = completed(bare(Cause.COVARIATE, 0), replace(a_residual(0.01), segments=[share]))
    fresh = replace(bare(Cause.CONCEPT, 5), steps=[Step(StepKind.RETRAIN, "Retrain.", "")])
    anew = carried_on(told, fresh)
    assert (anew.segments, anew.residuals) == (told.segments, told.residuals)
    assert anew.is_complete
    assert anew.since_us == 5
    assert {each.text for each in anew.evidence} == {each.text for each in told.evidence}
    assert [each.text for each in anew.steps] == [
        "Add the column wind to the model's inputs and retrain.",
        "Retrain.",
        "Look at the rows where x >= 1.",
    ]
    assert carried_on(anew, fresh) == anew
    assert carried_on(None, fresh) is fresh
    assert carried_on(bare(Cause.CONCEPT, 0), fresh) is fresh
