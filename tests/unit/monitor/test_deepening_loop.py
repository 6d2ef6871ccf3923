"""The loop around looking into alerts: it waits, gives up, and survives rows that are none."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from tests.unit.monitor.test_deepening import FakePast, an_alert

from homeostat_monitor.app.deepening import ReadRows, Span
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.diagnosis.rows import PastRows
from homeostat_monitor.domain.policies.policy import DEFAULT
from homeostat_monitor.domain.windows.bins import NumberColumn
from homeostat_monitor.loops import deepening as deepening_loop
from homeostat_monitor.loops.deepening import DeepeningLoop
from homeostat_monitor.store.deepening import Due


@dataclass
class FakeStore:
    """One alert that is due until it is finished; ends the loop then or when it is postponed."""

    stop: asyncio.Event
    age_seconds: float
    pauses: list[float] = field(default_factory=list)
    told: Alert | None = None
    is_done: bool = False

    async def claim(self, *, seconds: float) -> Due | None:
        return None if self.is_done else Due(an_alert(), DEFAULT, 1, self.age_seconds)

    async def postpone(self, alert_id: str, seconds: float) -> None:
        self.pauses.append(seconds)
        self.stop.set()

    async def finish(self, alert: Alert, retold: Callable[[Alert], Alert]) -> Alert:
        self.is_done = True
        self.stop.set()
        self.told = retold(alert)
        return self.told


async def run(past: Any, *, age_seconds: float = 0.0) -> FakeStore:
    stop = asyncio.Event()
    store: Any = FakeStore(stop, age_seconds)
    loop = DeepeningLoop(store, past, give_up_seconds=10.0, told=lambda: None)
    async with asyncio.timeout(10):
        await loop.run(stop)
    return store  # type: ignore[no-any-return]


async def test_rows_that_were_looked_at_complete_the_diagnosis() -> None:
    store = await run(FakePast(np.arange(2_000)))
    assert store.told is not None
    assert store.told.diagnosis is not None
    assert store.told.diagnosis.is_complete


@pytest.mark.parametrize(("age_seconds", "is_given_up"), [(9.0, False), (11.0, True)])
async def test_a_ledger_that_is_behind_is_asked_again_and_given_up_in_the_end(
    age_seconds: float, is_given_up: bool
) -> None:
    store = await run(FakePast(np.arange(10), reached=1), age_seconds=age_seconds)
    assert store.is_done is is_given_up
    assert bool(store.pauses) is not is_given_up
    if is_given_up:
        assert store.told is not None
        assert store.told.diagnosis is not None
        assert "could not be read" in store.told.diagnosis.evidence[-1].text


class TornPast(FakePast):
    """Columns that are shorter than their rows."""

    async def rows(self, span: Span) -> ReadRows:
        read = await super().rows(span)
        columns = {"x": NumberColumn(np.arange(3.0))}
        rows = PastRows(columns, read.rows.scores, read.rows.truths, read.rows.losses)
        return ReadRows(rows, read.event_times_us, read.known_at_us)


async def test_a_bug_in_looking_ends_nothing_but_the_looking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def look(*_: Any) -> None:
        raise AttributeError

    monkeypatch.setattr(deepening_loop, "look", look)
    store = await run(FakePast(np.arange(2_000)))
    assert store.told is not None
    assert store.told.diagnosis is not None
    assert not store.told.diagnosis.is_complete


async def test_rows_that_cannot_be_judged_end_nothing_but_the_looking() -> None:
    store = await run(TornPast(np.arange(2_000)))
    assert store.told is not None
    assert store.told.diagnosis is not None
    assert not store.told.diagnosis.is_complete
