"""A model of values and one of three classes, from their rows to the alerts' words, in memory."""

import re
from dataclasses import replace

import numpy as np
import pytest

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.app.judging import judge_model
from homeostat_monitor.app.memory.transaction import MemoryTransaction
from homeostat_monitor.app.taking import TakenRows, take_losses, take_predictions
from homeostat_monitor.domain.alerts.alert import Alert, State, Subject
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.diagnosis import StepKind
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.windows.bins import CategoryColumn, NumberColumn
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows
from homeostat_monitor.health import metrics_of
from homeostat_monitor.ports import BlockOfLosses, KnownVersion, StateKey

ONE = Subject("m", 1)
DAY_US, ROWS_A_DAY = 86_400_000_000, 720
TEXTS = ["a", "b", "c", "new"]
TASKS = [Task.REGRESSION, Task.MULTICLASS]


class World:
    """Some days of rows, what was said of them, and what was true."""

    def __init__(
        self,
        task: Task,
        first_day: int,
        days: int,
        *,
        concept: float = 0.0,
        shift: float = 0.0,
        breaks: bool = False,
    ) -> None:
        rng, rows = np.random.default_rng(first_day), days * ROWS_A_DAY
        self.times = first_day * DAY_US + np.arange(rows) * (DAY_US // ROWS_A_DAY)
        self.known_at = self.times + rng.integers(1, DAY_US // 4, rows)
        x, z = rng.normal(shift, 1, rows), rng.gamma(2.0, size=rows)
        codes = rng.integers(0, 3, rows).astype(np.int32)
        linear = 2 * x - 0.5 * z + (codes == 0)
        if task is Task.REGRESSION:
            self.scores = self.decisions = linear
            self.truths = linear + concept * z + rng.normal(0, 0.5, rows)
            self.losses = (self.scores - self.truths) ** 2
        else:
            said = np.exp(np.stack([linear, 0.5 * z - 1, np.zeros(rows)], axis=1))
            said /= said.sum(axis=1, keepdims=True)
            self.scores, self.decisions = said.max(axis=1), said.argmax(axis=1).astype(float)
            said[:, 0] *= np.exp(concept * z)
            drawn = np.log(said) + rng.gumbel(size=said.shape)
            self.truths = drawn.argmax(axis=1).astype(float)
            self.losses = (self.decisions != self.truths).astype(float)
        nulls = rng.random(rows) < (0.4 if breaks else 0.01)
        codes[rng.random(rows) < (0.3 if breaks else 0.0)] = 3
        self.columns = (
            NumberColumn(x.astype(np.float32), nulls),
            NumberColumn(z.astype(np.float32)),
            CategoryColumn(codes, TEXTS),
        )

    def part(self, rows: slice) -> tuple[TakenRows, BlockOfLosses]:
        """One block, and its truths."""
        count = len(self.times[rows])
        block_id = self.times[rows].tobytes()[:8] * 2
        x, z, codes = self.columns
        columns = (
            NumberColumn(x.values[rows], x.nulls[rows]),
            NumberColumn(z.values[rows]),
            CategoryColumn(codes.codes[rows], TEXTS),
        )
        none = np.zeros(count, dtype=np.intp)
        predicted = Rows(none, 1, columns, self.scores[rows])
        partitions = np.zeros(count, dtype=np.int32)
        taken = TakenRows(ONE, None, [block_id], none, partitions, self.times[rows], predicted)
        said = np.stack([self.scores[rows], self.decisions[rows], self.truths[rows]])
        ids = np.array([block_id + row.to_bytes(4, "little") for row in range(count)], dtype="S20")
        losses = BlockOfLosses(
            ONE,
            b"t" + block_id,
            self.known_at[rows],
            self.times[rows],
            self.losses[rows],
            ids,
            said,
        )
        return taken, losses


def known(task: Task) -> KnownVersion:
    past = World(task, 100, 15)
    honest = np.arange(len(past.times)) >= 0.5 * len(past.times)
    rows = Truths(
        *(
            each[honest]
            for each in (
                past.known_at,
                past.times,
                past.losses,
                past.scores,
                past.decisions,
                past.truths,
            )
        )
    )
    x, z, codes = past.columns
    texts = CategoryColumn(codes.codes, TEXTS[:3])
    reference = ReferenceRows(
        past.times,
        {"x": x, "z": z, "cat": texts},
        past.scores,
        honest,
        Holdout(rows.losses, rows.known_at_us, rows),
        truths=past.truths,
        decisions=past.decisions,
    )
    return KnownVersion(ONE, task, profile_of(reference))


async def told(version: KnownVersion, *worlds: World) -> tuple[list[Alert], MemoryTransaction]:
    """All that is said of these days, six hours at a time."""
    tx, alerts = MemoryTransaction(), list[Alert]()
    await tx.add_models([ONE.model_name])
    for world in worlds:
        for begin in range(0, len(world.times), ROWS_A_DAY // 4):
            taken, losses = world.part(slice(begin, begin + ROWS_A_DAY // 4))
            await take_predictions([replace(taken, profile=version.profile)], tx=tx)
            await take_losses([losses], tx=tx)
            for topic in (PREDICTIONS, JOINED):
                tx.reach(topic.name, [int(taken.event_times_us[-1])])
            judged = await judge_model(ONE.model_name, {ONE: version}, tx=tx)
            alerts += judged.alerts
    return alerts, tx


@pytest.mark.parametrize("task", TASKS)
async def test_days_as_before_are_silent_and_have_figures(task: Task) -> None:
    version = known(task)
    alerts, tx = await told(version, World(task, 130, 4))
    assert alerts == []
    states = {key: state for key, (state, _) in tx.states(ONE).items()}
    metrics = {each.name: each for each in metrics_of(states, version)}
    wanted = {"mae", "rmse", "r2"} if task is Task.REGRESSION else {"accuracy", "log_loss"}
    assert wanted <= set(metrics)
    for each in metrics.values():
        assert each.low <= each.value <= each.high
        assert abs(each.value - each.reference) < 0.15
    assert StateKey("", "estimate") in states


@pytest.mark.parametrize("task", TASKS)
async def test_every_layer_tells_in_words(task: Task) -> None:
    alerts, _ = await told(
        known(task),
        World(task, 130, 2),
        World(task, 132, 3, concept=1.5),
        World(task, 135, 1, shift=1.5),
        World(task, 136, 1, breaks=True),
    )
    opened = {each.rule: each for each in alerts if each.state is State.OPENED}
    assert set(opened) >= {
        Rule.PERFORMANCE,
        Rule.CONCEPT,
        Rule.COVARIATE,
        Rule.PREDICTION,
        Rule.MISSING_VALUES,
        Rule.UNSEEN_VALUES,
    }
    for rule in (Rule.PERFORMANCE, Rule.CONCEPT):
        assert opened[rule].cause is Cause.CONCEPT
        kinds = {each.kind for each in opened[rule].diagnosis.steps}
        assert kinds & {StepKind.RETRAIN, StepKind.RECALIBRATE}
        assert StepKind.FIX_UPSTREAM not in kinds
    assert opened[Rule.COVARIATE].feature == "x"
    for rule in (Rule.MISSING_VALUES, Rule.UNSEEN_VALUES):
        assert opened[rule].cause is Cause.DATA_BREAK
        assert opened[rule].diagnosis.steps[0].kind is StepKind.FIX_UPSTREAM
    for each in alerts:
        texts = [each.summary, *each.remedies, *(one.text for one in each.diagnosis.evidence)]
        assert not [text for text in texts if re.search(r"\bnan\b|\binf\b|\d\.\d{6}|_", text)]


async def test_scores_that_are_no_numbers_are_counted() -> None:
    world = World(Task.REGRESSION, 130, 1)
    world.scores = np.where(np.arange(ROWS_A_DAY) % 2 == 0, np.nan, world.scores)
    world.losses = np.zeros(ROWS_A_DAY)
    _, tx = await told(known(Task.REGRESSION), world)
    assert tx.tallies[ONE]["scores_not_finite"] == ROWS_A_DAY // 2
