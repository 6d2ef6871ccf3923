"""In order of time a window is open for a day; broken data are not learnt from all the same."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.app.judging import judge_model
from homeostat_monitor.app.memory.transaction import MemoryTransaction
from homeostat_monitor.app.replaying import in_memory
from homeostat_monitor.app.taking import TakenRows, take_losses, take_predictions
from homeostat_monitor.domain.alerts.alert import Alert, State, Subject
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.alerts.losses import settled_at_us
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.domain.windows.bins import NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows
from homeostat_monitor.messages.alerts import message_of
from homeostat_monitor.ports import BlockOfLosses, KnownVersion
from homeostat_retrainer.domain.memory import Memory, Wanted
from homeostat_retrainer.domain.policy import Policy as RunPolicy
from homeostat_retrainer.messages import alert_seen

ONE = Subject("m", 1)
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
ROWS_AN_HOUR = 30
LEARNT, PLAYED, TURNS_AT_HOUR = 21, 3, 24 + 3
NO_TRIALS = RunPolicy(volume_share=None)
BROKEN, CHANGED = "the thermometer sends Celsius", "the concept changed"


class World:
    """Two thermometers that go together, and what depends on them."""

    def __init__(self, what: str = "") -> None:
        rng, rows = np.random.default_rng(3), (LEARNT + PLAYED) * 24 * ROWS_AN_HOUR
        self.times = 1_000 * DAY_US + np.arange(rows) * (HOUR_US // ROWS_AN_HOUR)
        self.known_at = self.times + HOUR_US // 2
        hours = self.times / HOUR_US
        air = (
            70
            + 8 * np.sin(hours / 24 * 2 * np.pi)
            + np.repeat(rng.normal(0, 2, rows // ROWS_AN_HOUR), ROWS_AN_HOUR)
        )
        leaf = air + rng.normal(0, 1, rows)
        sent, noise = air + rng.normal(0, 1, rows), rng.normal(0, 1, rows)
        is_later = np.arange(rows) >= (LEARNT * 24 + TURNS_AT_HOUR) * ROWS_AN_HOUR
        self.truths = 0.5 * air + noise + np.where(is_later & (what == CHANGED), 8.0, 0.0)
        if what == BROKEN:
            sent = np.where(is_later, (sent - 32) / 1.8, sent)
        self.scores = 0.5 * sent
        self.losses = (self.scores - self.truths) ** 2
        self.columns = tuple(NumberColumn(each.astype(np.float32)) for each in (sent, leaf))

    def part(self, rows: slice) -> tuple[TakenRows, BlockOfLosses]:
        times, scores = self.times[rows], self.scores[rows]
        block_id, none = times.tobytes()[:8] * 2, np.zeros(len(times), dtype=np.intp)
        columns = tuple(NumberColumn(each.values[rows]) for each in self.columns)
        predicted = Rows(none, 1, columns, scores)
        partitions = np.zeros(len(times), dtype=np.int32)
        ids = [block_id + row.to_bytes(4, "little") for row in range(len(times))]
        losses = BlockOfLosses(
            ONE,
            b"t" + block_id,
            self.known_at[rows],
            times,
            self.losses[rows],
            np.array(ids, dtype="S20"),
            np.stack([scores, scores, self.truths[rows]]),
        )
        return TakenRows(ONE, None, [block_id], none, partitions, times, predicted), losses


@cache
def known() -> KnownVersion:
    world, rows = World(), slice(0, LEARNT * 24 * ROWS_AN_HOUR)
    times, known_at, losses, scores, truths = (
        each[rows]
        for each in (world.times, world.known_at, world.losses, world.scores, world.truths)
    )
    names = ("air", "leaf")
    columns = {
        name: NumberColumn(each.values[rows])
        for name, each in zip(names, world.columns, strict=True)
    }
    holdout = Holdout(losses, known_at, Truths(known_at, times, losses, scores, scores, truths))
    reference = ReferenceRows(
        times,
        columns,
        scores,
        np.ones(len(times), dtype=bool),
        holdout,
        truths=truths,
        decisions=scores,
    )
    policy = Policy("m", mode=Mode.TIME_ORDERED)
    made = profile_of(reference, length_us=DAY_US, policy=policy)
    return KnownVersion(ONE, Task.REGRESSION, made, policy=policy)


@cache
def told(what: str, hours_a_poll: int = 1) -> list[tuple[int, Alert]]:
    """Everything that is said, with the hour's mark; so many marks are heard of at once."""
    world, tx, alerts = World(what), MemoryTransaction(), list[tuple[int, Alert]]()
    in_memory(tx.add_models(["m"]))
    first = LEARNT * 24 * ROWS_AN_HOUR
    for begin in range(first, len(world.times), hours_a_poll * ROWS_AN_HOUR):
        marks = list[int]()
        for hour in range(hours_a_poll):
            at = begin + hour * ROWS_AN_HOUR
            taken, losses = world.part(slice(at, at + ROWS_AN_HOUR))
            in_memory(take_predictions([replace(taken, profile=known().profile)], tx=tx))
            in_memory(take_losses([losses], tx=tx))
            marks.append(int(taken.event_times_us[0]) + HOUR_US)
        for topic in (PREDICTIONS, JOINED):
            tx.reach(topic.name, marks)
        judged = in_memory(judge_model("m", {ONE: known()}, tx=tx))
        alerts += [(each.moment.watermark_us, each) for each in judged.alerts]
    return alerts


def runs(alerts: list[tuple[int, Alert]]) -> list[Wanted]:
    """What the retrainer makes of it, mark by mark."""
    memory, wanted = Memory(), list[Wanted]()
    memory.version_changed("m", 1, 1, (1, LEARNT * 24 * ROWS_AN_HOUR), NO_TRIALS)
    for hour in range(PLAYED * 24):
        mark = (1_000 + LEARNT) * DAY_US + (hour + 1) * HOUR_US
        memory.truths_joined("m", mark - 1, ROWS_AN_HOUR)
        wanted += memory.mark(mark, NO_TRIALS)
        for at, alert in alerts:
            seen = alert_seen(message_of(alert), None)
            if at == mark and seen is not None:
                wanted += memory.alert(seen, NO_TRIALS)
    return wanted


def of_the_loss(alerts: list[tuple[int, Alert]]) -> list[Alert]:
    return [each for _, each in alerts if each.rule is Rule.PERFORMANCE]


def test_a_break_that_the_open_window_hid_leads_to_no_run() -> None:
    alerts = told(BROKEN)
    opened, *later = of_the_loss(alerts)
    assert opened.state is State.OPENED
    assert opened.cause is not Cause.DATA_BREAK
    assert opened.settled_at_us > opened.moment.watermark_us
    assert later[0].cause is Cause.DATA_BREAK
    assert later[0].moment.watermark_us <= opened.settled_at_us
    assert runs(alerts) == []


def test_a_changed_concept_leads_to_a_run_once_the_inputs_are_known_to_be_whole() -> None:
    alerts = told(CHANGED)
    opened = of_the_loss(alerts)[0]
    assert opened.cause is Cause.CONCEPT
    found = runs(alerts)
    assert found
    assert found[0].alert_id == opened.alert_id  # type: ignore[union-attr]
    assert found[0].watermark_us > opened.settled_at_us  # type: ignore[union-attr]


def test_how_many_marks_one_poll_brings_changes_nothing() -> None:
    assert told(BROKEN, 12) == told(BROKEN)


@pytest.mark.parametrize(
    ("since", "mark", "settled"),
    [
        (1.0, 1.2, 2.0),
        (1.5, 1.6, 2.0),
        # Less than half of the first window broke: the next one tells.
        (1.6, 1.7, 3.0),
        (1.6, 3.0, 0.0),
        (0.2, 5.5, 0.0),
    ],
)
def test_when_windows_tell(since: float, mark: float, settled: float) -> None:
    found = settled_at_us(int(since * DAY_US), int(mark * DAY_US), DAY_US)
    assert found == int(settled * DAY_US)
