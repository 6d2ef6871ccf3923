"""What is known to fool drift detectors fools neither mode: rows that only look odd are silent as
long as they look as they did, and a true change of the same columns is told."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.signal import lfilter
from tests.support.memory_monitor import (
    SUBJECT,
    Monitor,
    Rows,
    a_block,
    a_version,
    rows_of,
    truths_of,
)

from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.judges import Rule

Make = Callable[[np.random.Generator, int], np.ndarray]
PAST_DAYS, LIVE_DAYS = 20, 4
ROWS = 600
each_mode = pytest.mark.parametrize("mode", Mode)


@dataclass(frozen=True, slots=True)
class Trap:
    """One column as it always is, and as it is once it has truly changed."""

    feature: str
    usual: Make
    changed: Make
    # By any of which the change may be told.
    rules: tuple[Rule, ...]


def words(values: np.ndarray) -> np.ndarray:
    return values.astype(str).astype(object)


def new_ids(share: float) -> Make:
    """So many of the values were never there before."""
    return lambda rng, rows: words(
        np.where(rng.random(rows) < share, rng.integers(0, 10**12, rows), rng.integers(0, 4, rows))
    )


def with_markers(share: float) -> Make:
    """Numbers among which the usual markers for "missing" are true values."""

    def made(rng: np.random.Generator, rows: int) -> np.ndarray:
        marker = rng.choice([-1.0, 0.0, 999.0], rows)
        return np.where(rng.random(rows) < share, marker, rng.normal(size=rows))

    return made


def word_markers(share: float) -> Make:
    return lambda rng, rows: words(
        np.where(
            rng.random(rows) < share,
            rng.choice(["null", "nan", "-1", "None", "homeostat.unseen"], rows),
            rng.choice(["a", "b"], rows),
        )
    )


def long_tail(shape: float) -> Make:
    """Most texts of it are rare: bins of them would be thin."""
    return lambda rng, rows: words(np.minimum(rng.zipf(shape, rows), 3000))


def hardly_any(share: float, centre: float = 0.0) -> Make:
    def made(rng: np.random.Generator, rows: int) -> np.ndarray:
        values = rng.normal(size=rows) + centre
        values[rng.random(rows) >= share] = np.nan
        return values

    return made


def hundred(most: int) -> Make:
    return lambda rng, rows: words(rng.integers(0, 100, rows) % most)


INPUTS = (Rule.COVARIATE, Rule.OUT_OF_RANGE, Rule.STUCK)
TRAPS = {
    "a category that always brings new values brings them at the good turing rate": Trap(
        "kind", new_ids(0.03), new_ids(0.3), (Rule.UNSEEN_VALUES,)
    ),
    "a sentinel that collides with real numbers is a number": Trap(
        "amount", with_markers(0.2), with_markers(0.7), INPUTS
    ),
    "a sentinel that collides with real texts is a text": Trap(
        "kind", word_markers(0.2), word_markers(0.7), INPUTS
    ),
    "thin bins are pooled": Trap("kind", long_tail(1.7), long_tail(4.0), INPUTS),
    "a constant has a bin of its own": Trap(
        "amount",
        lambda _, rows: np.full(rows, 3.0),
        lambda rng, rows: 3.0 + 1e-6 * rng.normal(size=rows),
        INPUTS,
    ),
    "an almost empty column does not alarm for ever": Trap(
        "amount", hardly_any(0.003), lambda _, rows: np.ones(rows), INPUTS
    ),
    "a column of about a hundred values does not alarm for ever": Trap(
        "kind", hundred(100), hundred(50), INPUTS
    ),
}


def rows_with(trap: Trap, make: Make, day: int, days: int, seed: int) -> Rows:
    rows = rows_of(day, days, seed=seed, rows=ROWS)
    values = make(np.random.default_rng(seed + 1000), rows.rows)
    return replace(rows, features=rows.features | {trap.feature: values})


@each_mode
@pytest.mark.parametrize("trap", TRAPS.values(), ids=[each.replace(" ", "_") for each in TRAPS])
def test_trap(trap: Trap, mode: Mode) -> None:
    known = a_version(rows_with(trap, trap.usual, 70, PAST_DAYS, seed=1), mode=mode)
    monitor = Monitor(known)
    monitor.take(a_block(rows_with(trap, trap.usual, 100, LIVE_DAYS, seed=2)))
    monitor.judge(100 + LIVE_DAYS)
    assert monitor.judged_windows >= LIVE_DAYS
    assert [(each.rule, each.feature) for each in monitor.alerts] == []
    monitor.take(a_block(rows_with(trap, trap.changed, 100 + LIVE_DAYS, 2, seed=3), number=2))
    monitor.judge(102 + LIVE_DAYS)
    found = {(each.rule, share.feature) for each in monitor.alerts for share in each.shares}
    assert {(rule, trap.feature) for rule in trap.rules} & found
    assert {feature for _, feature in found} == {trap.feature}


def wandering(day: int, days: int, seed: int) -> Rows:
    """One number remembers where it was for a day, as weather does."""
    rows = rows_of(day, days, seed=seed, rows=ROWS)
    steps = np.random.default_rng(seed).normal(size=rows.rows)
    level = lfilter([1.0], [1.0, -0.999], steps / 20)
    return replace(rows, features=rows.features | {"amount": level + rows.features["amount"]})


def told_of(past: Rows, now: Rows, mode: Mode | None) -> tuple[Mode, set[str]]:
    monitor = Monitor(a_version(past, mode=mode))
    monitor.take(a_block(now))
    monitor.judge(103)
    assert monitor.known.profile is not None
    found = {share.feature for each in monitor.alerts for share in each.shares}
    return monitor.known.profile.mode, found


def test_trap_a_stream_that_moves_by_itself_is_judged_in_its_order() -> None:
    """Any test for rows of one distribution tells of it all the time."""
    past, now = wandering(70, PAST_DAYS, seed=1), wandering(100, 3, seed=5)
    assert told_of(past, now, None) == (Mode.TIME_ORDERED, set())
    assert told_of(past, now, Mode.IID) == (Mode.IID, {"amount"})
    at_random = np.random.default_rng(2).permutation(past.rows)
    mixed = replace(past, features={name: each[at_random] for name, each in past.features.items()})
    assert told_of(mixed, rows_of(100, 3, seed=6), None)[0] is Mode.IID


def deliveries() -> tuple[Rows, Rows]:
    """Two partitions of the same days; in the last of them one thing is other than before."""
    rows = rows_of(100, 4, seed=2, rows=ROWS)
    rows.features["small"][3 * ROWS :] += 1.5
    odd = np.arange(rows.rows) % 2 == 1
    return rows.only(~odd), rows.only(odd)


def of_day(rows: Rows, day: int) -> Rows:
    return rows.only(slice(day * ROWS // 2, (day + 1) * ROWS // 2))


@each_mode
def test_trap_a_backlog_that_drains_partition_by_partition_is_what_live_traffic_was(
    mode: Mode,
) -> None:
    known = a_version(rows_of(70, PAST_DAYS, seed=1, rows=ROWS), mode=mode)
    live, backlog = Monitor(known), Monitor(known)
    for day in range(4):
        for partition, rows in enumerate(deliveries()):
            now = of_day(rows, day)
            live.take(a_block(now, number=10 * day + partition), partition=partition)
            live.learn(truths_of(now, number=10 * day + partition))
        live.judge(101 + day)
    # All days of one partition, the newest first, then all of the other; marks come in the end.
    for partition, rows in reversed(list(enumerate(deliveries()))):
        for day in reversed(range(4)):
            now = of_day(rows, day)
            backlog.take(a_block(now, number=10 * day + partition), partition=partition)
            backlog.learn(truths_of(now, number=10 * day + partition))
    backlog.judge(*range(101, 105))
    assert [each.feature for each in live.alerts if each.rule is Rule.COVARIATE] == ["small"]
    assert backlog.alerts == live.alerts
    states = {key: state for key, (state, _) in live.tx.states(SUBJECT).items()}
    assert len(states) >= 5
    assert {key: state for key, (state, _) in backlog.tx.states(SUBJECT).items()} == states
