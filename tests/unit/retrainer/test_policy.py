"""When runs are due: cool-down, budget, follow-ups, volume; order of arrival changes nothing."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeostat_retrainer.domain.memory import HeldAlert, Memory, SkippedRun
from homeostat_retrainer.domain.policy import (
    AlertSeen,
    Due,
    ModelState,
    Policy,
    Skipped,
    Trigger,
)
from homeostat_retrainer.domain.runs import Run

DAY = 86_400_000_000
W = 1000


def a_state(**changes: object) -> ModelState:
    state = ModelState(champion_version=1, newest_version=1, reference_rows=W)
    for name, value in changes.items():
        setattr(state, name, value)
    return state


def an_alert(alert_id: str = "a", **changes: object) -> AlertSeen:
    given_ = {
        "alert_id": alert_id,
        "version": 1,
        "is_resolved": False,
        "watermark_us": DAY,
    }
    return AlertSeen(**{**given_, **changes})  # type: ignore[arg-type]


NO_VOLUME = Policy(volume_share=None)


def test_an_alert_asks_for_a_run_once() -> None:
    state = a_state()
    assert state.alert_changed(an_alert(), Policy()) == Due(Trigger.ALERT, "a")
    assert state.alert_changed(an_alert(), Policy()) is None


def test_an_alert_within_the_cool_down_is_skipped_and_says_why() -> None:
    state = a_state()
    state.alert_changed(an_alert("a"), Policy())
    state.truths += 99
    skipped = state.alert_changed(an_alert("b"), Policy())
    assert isinstance(skipped, Skipped)
    assert "99 new truths" in skipped.reason


def test_after_the_cool_down_an_alert_runs_again() -> None:
    state = a_state()
    state.alert_changed(an_alert("a"), Policy())
    state.truths += 100
    assert isinstance(state.alert_changed(an_alert("b"), Policy()), Due)


def test_an_alert_about_a_version_that_no_longer_serves_is_skipped() -> None:
    assert isinstance(a_state().alert_changed(an_alert(version=7), Policy()), Skipped)


def test_the_budget_counts_event_time() -> None:
    policy = Policy(cool_down_share=0, budget_runs=2, budget_period_us=DAY)
    state = a_state()
    asked = [
        state.alert_changed(an_alert(str(i), watermark_us=at), policy)
        for i, at in enumerate([DAY, DAY + 1, DAY + 2, 2 * DAY + 1])
    ]
    assert [type(each) for each in asked] == [Due, Due, Skipped, Due]
    assert "budget" in asked[2].reason  # type: ignore[union-attr]


def marks(state: ModelState, policy: Policy, counts: list[int]) -> list[Due | None]:
    return [state.truths_known(n, DAY * (i + 2), policy) for i, n in enumerate(counts)]


def test_follow_ups_come_while_the_alert_is_open() -> None:
    state = a_state()
    state.alert_changed(an_alert(), NO_VOLUME)
    due = marks(state, NO_VOLUME, [60] * 12)
    numbers = [each.follow_up_number for each in due if each]
    assert numbers == [1, 2, 3]
    assert all(each.trigger is Trigger.FOLLOW_UP for each in due if each)


@pytest.mark.parametrize("end", ["resolved", "promoted"])
def test_follow_ups_end_with_the_trouble(end: str) -> None:
    state = a_state()
    state.alert_changed(an_alert(), NO_VOLUME)
    marks(state, NO_VOLUME, [100])
    if end == "resolved":
        state.alert_changed(an_alert(is_resolved=True), NO_VOLUME)
    else:
        state.champion_changed(2, None)
    assert not any(marks(state, NO_VOLUME, [100] * 8))


def test_follow_ups_that_a_cool_down_held_up_are_one() -> None:
    policy = Policy(volume_share=None, cool_down_share=0.6)
    state = a_state()
    state.alert_changed(an_alert(), policy)
    due = [each for each in marks(state, policy, [100] * 20) if each]
    assert len(due) == 1


def test_a_trial_follows_much_truth_though_nothing_alarms() -> None:
    due = marks(a_state(), Policy(), [100] * 10)
    assert [place for place, each in enumerate(due) if each] == [3, 7]


def a_break(alert_id: str = "b", **changes: object) -> AlertSeen:
    given_ = {"is_of_performance": False, "is_data_break": True, "confidence": 0.9}
    return an_alert(alert_id, **{**given_, **changes})


@pytest.mark.parametrize("is_of_performance", [True, False])
def test_while_data_are_broken_a_trial_waits_a_quarter_of_w_at_most(
    is_of_performance: bool,
) -> None:
    state = a_state()
    broken = a_break(is_of_performance=is_of_performance)
    assert state.alert_changed(broken, Policy()) is None
    due = marks(state, Policy(), [100] * 12)
    # Without the break: at the fourth.
    assert [place for place, each in enumerate(due) if each] == [5, 11]
    assert due[5] == Due(Trigger.TRUTH_VOLUME)


def test_once_data_are_whole_again_the_trial_that_waited_is_due() -> None:
    state = a_state()
    state.alert_changed(a_break(), Policy())
    assert not any(marks(state, Policy(), [100] * 4))
    state.alert_changed(a_break(is_resolved=True), Policy())
    assert marks(state, Policy(), [100]) == [Due(Trigger.TRUTH_VOLUME)]


@pytest.mark.parametrize("change", [{"confidence": 0.79}, {"is_data_break": False}, {"version": 2}])
def test_what_is_not_surely_a_break_of_what_serves_holds_no_trial_up(
    change: dict[str, object],
) -> None:
    state = a_state()
    state.alert_changed(a_break(), Policy())
    state.alert_changed(a_break(**change), Policy())
    due = marks(state, Policy(), [100] * 5)
    assert [place for place, each in enumerate(due) if each] == [3]


def test_with_the_version_its_data_breaks_are_over() -> None:
    state = a_state()
    state.alert_changed(a_break(), Policy())
    state.champion_changed(2, None)
    assert not state.data_breaks


def test_an_alert_that_turns_out_to_be_a_break_is_followed_up_no_more() -> None:
    state = a_state()
    assert isinstance(state.alert_changed(an_alert(), NO_VOLUME), Due)
    told = an_alert(is_diagnosis=True, is_data_break=True, confidence=0.9)
    assert state.alert_changed(told, NO_VOLUME) is None
    assert not any(marks(state, NO_VOLUME, [100] * 12))
    told = an_alert(is_diagnosis=True, is_data_break=False)
    assert state.alert_changed(told, NO_VOLUME) is None
    assert any(marks(state, NO_VOLUME, [100] * 2))


def test_a_schedule_counts_event_time_and_needs_new_truth() -> None:
    policy = Policy(volume_share=None, cool_down_share=0, schedule_us=2 * DAY)
    state = a_state(last_run_us=DAY)
    assert not any(marks(state, policy, [0, 0, 0]))
    due = [state.truths_known(1, (5 + i) * DAY, policy) for i in range(5)]
    assert [each is not None for each in due] == [False, True, False, False, True]


def test_w_is_kept_when_a_run_made_the_champion() -> None:
    state = a_state()
    state.champion_changed(2, None)
    assert state.reference_rows == W
    state.champion_changed(3, 5000)
    assert state.reference_rows == 5000


def test_nothing_is_due_before_a_version_serves() -> None:
    assert not any(marks(ModelState(reference_rows=W), Policy(), [1000] * 3))


def test_the_state_survives_json() -> None:
    memory = a_memory()
    memory.alert(held(an_alert()), Policy())
    memory.alert(held(an_alert("later", watermark_us=9 * DAY)), Policy())
    memory.alert(held(a_break()), Policy())
    memory.truths_joined("m", 3 * DAY, 5)
    assert memory.models["m"].data_breaks
    assert Memory.from_plain(memory.to_plain()) == memory


def a_memory() -> Memory:
    memory = Memory(models={"m": a_state()})
    memory.mark(DAY, Policy())
    return memory


def held(alert: AlertSeen) -> HeldAlert:
    return HeldAlert("m", alert)


def test_an_alert_waits_for_our_own_count_of_the_truth() -> None:
    memory = a_memory()
    assert not memory.alert(held(an_alert(watermark_us=2 * DAY)), Policy())
    memory.truths_joined("m", 2 * DAY - 1, 7)
    (run,) = memory.mark(2 * DAY, Policy())
    assert isinstance(run, Run)
    assert run.cut_known_at_us == 2 * DAY - 1
    assert memory.models["m"].truths == 7


def test_a_new_life_of_the_broker_counts_no_truth_twice() -> None:
    memory = a_memory()
    for epoch in ("one", "two"):
        memory.waiting.enter(epoch)
        memory.truths_joined("m", 2 * DAY - 1, 10)
        memory.mark(2 * DAY, Policy())
        memory.truths_joined("m", 3 * DAY - 1, 5)
    assert memory.models["m"].truths == 10
    memory.mark(3 * DAY, Policy())
    assert memory.models["m"].truths == 15


@given(st.lists(st.integers(0, 400), min_size=1, max_size=25), st.sets(st.integers(0, 24)))
@settings(max_examples=150, deadline=None)
def test_it_is_nothing_whether_alerts_or_marks_are_read_first(
    counts: list[int], alarms: set[int]
) -> None:
    """Each day a mark and perhaps an alert judged at it; both orders give the same runs."""
    told = []
    for alert_first in (True, False):
        memory, runs = a_memory(), []
        for day, count in enumerate(counts, start=2):
            memory.truths_joined("m", day * DAY - 1, count)
            alert = held(an_alert(str(day), watermark_us=day * DAY))
            if alert_first and day in alarms:
                runs += memory.alert(alert, Policy())
            runs += memory.mark(day * DAY, Policy())
            if not alert_first and day in alarms:
                runs += memory.alert(alert, Policy())
        told.append([(type(each), _id(each)) for each in runs])
    assert told[0] == told[1]


@given(st.lists(st.integers(0, 500), min_size=2, max_size=30), st.sets(st.integers(0, 29)))
@settings(max_examples=100, deadline=None)
def test_two_runs_are_never_nearer_than_the_cool_down(counts: list[int], alarms: set[int]) -> None:
    memory, at = a_memory(), []
    for day, count in enumerate(counts, start=2):
        memory.truths_joined("m", day * DAY - 1, count)
        wanted = memory.mark(day * DAY, Policy())
        if day in alarms:
            wanted += memory.alert(held(an_alert(str(day), watermark_us=day * DAY)), Policy())
        at += [memory.models["m"].truths for each in wanted if isinstance(each, Run)]
    assert all(b - a >= 0.1 * W for a, b in itertools.pairwise(at))


def _id(wanted: Run | SkippedRun) -> str:
    return wanted.run.run_id if isinstance(wanted, SkippedRun) else wanted.run_id


UNSETTLED = an_alert(settled_at_us=2 * DAY)
BROKEN = an_alert(is_data_break=True, confidence=0.9, watermark_us=2 * DAY)


def played(state: ModelState, *days: float, truths: int = 1) -> list[Due | None]:
    return [state.truths_known(truths, int(each * DAY), NO_VOLUME) for each in days]


def test_a_run_waits_until_the_inputs_of_the_rise_were_judged() -> None:
    state = a_state()
    assert state.alert_changed(UNSETTLED, NO_VOLUME) is None
    assert played(state, 1.2, 1.9, 2.0) == [None, None, None]
    # What the monitor told at that mark has come by the next.
    assert played(state, 2.1, 2.2) == [Due(Trigger.ALERT, "a"), None]
    assert state.alert_changed(UNSETTLED, NO_VOLUME) is None


def test_what_the_window_still_hid_was_a_data_break_and_nothing_runs() -> None:
    state = a_state()
    state.alert_changed(UNSETTLED, NO_VOLUME)
    played(state, 1.5, 2.0)
    state.alert_changed(BROKEN, NO_VOLUME)
    assert played(state, *range(3, 20), truths=W // 10) == [None] * 17


def test_a_settled_alert_that_turns_out_to_be_no_break_asks_at_once() -> None:
    state = a_state()
    state.alert_changed(UNSETTLED, NO_VOLUME)
    state.alert_changed(BROKEN, NO_VOLUME)
    later = an_alert(watermark_us=3 * DAY, settled_at_us=2 * DAY)
    assert state.alert_changed(later, NO_VOLUME) == Due(Trigger.ALERT, "a")
    assert played(state, 3.1, 3.2) == [None, None]


def test_no_follow_up_comes_before_the_run_that_waits() -> None:
    state = a_state()
    state.alert_changed(UNSETTLED, NO_VOLUME)
    assert played(state, 1.1, 1.2, 1.3, truths=W) == [None] * 3


def test_marks_without_truths_settle_nothing() -> None:
    """The monitor looks at the cause again when truths come."""
    state = a_state()
    state.alert_changed(UNSETTLED, NO_VOLUME)
    assert played(state, 2.0, 3.0, truths=0) == [None, None]
    assert played(state, 3.1, 3.2) == [None, Due(Trigger.ALERT, "a")]


def test_an_alert_that_ends_while_its_run_waits_asks_for_none() -> None:
    state = a_state()
    state.alert_changed(UNSETTLED, NO_VOLUME)
    state.alert_changed(an_alert(is_resolved=True, watermark_us=DAY + 1), NO_VOLUME)
    assert played(state, 2.0, 2.1, 2.2) == [None] * 3


def test_nobody_waits_for_ever_whatever_an_event_says() -> None:
    state = a_state()
    state.alert_changed(an_alert(settled_at_us=10**15), NO_VOLUME)
    assert Due(Trigger.ALERT, "a") in played(state, *range(2, 18))


def test_what_waits_survives_a_restart() -> None:
    state = a_state()
    state.alert_changed(UNSETTLED, NO_VOLUME)
    played(state, 2.0)
    again = ModelState.from_plain(state.to_plain())
    assert played(again, 2.1) == [Due(Trigger.ALERT, "a")]
