"""A level that was accepted as normal is what the next truths are compared with."""

import asyncio

import pytest
from tests.support.memory_monitor import SUBJECT
from tests.support.truths import binary, multiclass, regression

from homeostat_monitor.app.hearing import RunNews, hear_run
from homeostat_monitor.app.memory.transaction import MemoryTransaction
from homeostat_monitor.domain.alerts.alert import Moment, after_window
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.losses.concept import ConceptWatch
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.ports import StateKey

KEY = StateKey("", ConceptWatch.name)


def moved(task: Task) -> Truths:
    if task is Task.REGRESSION:
        return regression(3000, seed=2, bias=6.0)
    make = binary if task is Task.BINARY else multiclass
    return make(3000, seed=2, real=lambda scores: scores / 2)


def usual(task: Task) -> Truths:
    make = {Task.BINARY: binary, Task.MULTICLASS: multiclass, Task.REGRESSION: regression}[task]
    return make(3000, seed=1)


@pytest.mark.parametrize("task", Task)
def test_an_accepted_change_of_concept_is_no_change_any_more_whatever_is_predicted(
    task: Task,
) -> None:
    watch = ConceptWatch.seeded(usual(task), task=task)
    looks = watch.feed(moved(task))
    found = [each for each in looks[-1].findings if each.is_breach]
    assert found
    alert = after_window(None, found, subject=SUBJECT, window_start_us=0, moment=Moment(10, 10))
    assert alert is not None

    async def accepted() -> bytes:
        tx = MemoryTransaction()
        await tx.add_models([SUBJECT.model_name])
        await tx.standings([SUBJECT])
        await tx.save_states(SUBJECT, {KEY: watch.to_bytes()})
        await tx.save_alerts([alert])
        news = RunNews("run", SUBJECT, cut_us=20, occurred_us=20)
        (ended,) = await hear_run(news, runs_until_accepted=1, tx=tx)
        assert not ended.is_open
        assert not tx.remarks.get(SUBJECT)
        state, _ = (await tx.read_state(SUBJECT, KEY)) or (b"", 0)
        return state

    again = ConceptWatch.seeded(usual(task), task=task)
    again.restore(asyncio.run(accepted()))
    (*_, last) = again.feed(moved(task))
    # Bands in which nothing stood when it was accepted are compared with what they were.
    assert not last.findings[0].is_breach


def test_what_is_no_state_is_no_watch() -> None:
    with pytest.raises(CorruptState):
        ConceptWatch.stored(b"")
