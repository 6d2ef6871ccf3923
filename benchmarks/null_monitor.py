"""How often the whole monitor alarms where nothing happens, against the budget that was signed.

Every detector that can open an alert is driven as the service drives it, but without a database:
panes or windows through the profile's detectors (all rows and named segments), truths with their
delays through the watches, alerts through their lives. Worlds are drawn; a stream's reference comes
from the same world. Prints false alarms per model and month with exact 95 % intervals (Garwood),
by kind of stream, by budget and by rule. `make bench-null-monitor`.
"""

import argparse
import json
import sys
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from homeostat_monitor.app import watches
from homeostat_monitor.domain.alerts.alert import (
    LONGEST_SPAN_ROWS,
    Alert,
    Calm,
    Moment,
    State,
    Subject,
    after_window,
)
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.alerts.losses import after_losses
from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.detection.budget import MONTH_US
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.policies.policy import Policy, Segment
from homeostat_monitor.domain.windows.bins import CategoryColumn, ColumnValues, NumberColumn
from homeostat_monitor.domain.windows.layout import SCORE
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows
from homeostat_monitor.domain.windows.window import FEWEST_ROWS, Window, due_windows
from homeostat_monitor.ports import KnownVersion

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Rng = np.random.Generator

HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
SUBJECT = Subject("null", 1)
# Marks that the watermark reaches, apart.
MARK_US = 6 * HOUR_US
TEXTS = ("a", "b", "c", "d")
SEGMENTS = (Segment("high", "x0 > 0.3"), Segment("kind b", "kind = 'b'"))


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows of a world, oldest first."""

    times_us: Ints
    features: dict[str, ColumnValues]
    scores: Floats
    decisions: Floats
    truths: Floats
    losses: Floats
    delays_us: Ints

    def only(self, rows: NDArray[np.intp]) -> "Drawn":
        """Those rows."""
        features: dict[str, ColumnValues] = {}
        for name, column in self.features.items():
            if isinstance(column, CategoryColumn):
                features[name] = CategoryColumn(column.codes[rows], column.dictionary)
            else:
                features[name] = NumberColumn(column.values[rows])
        rest = (self.scores, self.decisions, self.truths, self.losses, self.delays_us)
        return Drawn(self.times_us[rows], features, *(each[rows] for each in rest))

    def labelled(self) -> Truths:
        """First truths in the order in which they become known."""
        known = self.times_us + self.delays_us
        order = np.lexsort((self.losses, self.times_us, known))
        columns = (self.losses, self.scores, self.decisions, self.truths)
        return Truths(known[order], self.times_us[order], *(each[order] for each in columns))


@dataclass(frozen=True, slots=True)
class World:
    """How a kind of stream is drawn."""

    task: Task
    rows_per_day: int
    reference_days: int
    is_ordered: bool = False


WORLDS = {
    "binary": World(Task.BINARY, 1000, 8),
    "multiclass": World(Task.MULTICLASS, 1000, 8),
    "regression": World(Task.REGRESSION, 1000, 8),
    "binary, in order of time": World(Task.BINARY, 1600, 56, is_ordered=True),
    "regression, in order of time": World(Task.REGRESSION, 1600, 56, is_ordered=True),
}


def arrivals(rng: Rng, world: World, days: int) -> Ints:
    """Poisson, with a day's rhythm."""
    hours = np.arange(24 * days)
    rate = world.rows_per_day / 24 * (1 + 0.5 * np.sin(2 * np.pi * hours / 24))
    counts = rng.poisson(rate)
    at = np.repeat(hours, counts) * HOUR_US + rng.integers(0, HOUR_US, counts.sum())
    return np.sort(at)


def wandering(rng: Rng, times_us: Ints, columns: int) -> Floats:
    """Of AR(1) levels per hour (half-life of two days) and a week's rhythm; unit variance or so."""
    hours = int(times_us[-1] // HOUR_US) + 1
    keep = 0.5 ** (1 / 48)
    level = np.empty((hours, columns))
    level[0] = rng.normal(size=columns)
    steps = rng.normal(size=(hours, columns)) * np.sqrt(1 - keep**2)
    for hour in range(1, hours):
        level[hour] = keep * level[hour - 1] + steps[hour]
    week = np.sin(2 * np.pi * np.arange(hours)[:, None] / 168 + np.arange(columns))
    return 0.5 * level[times_us // HOUR_US] + 0.5 * week[times_us // HOUR_US]


def drawn(rng: Rng, world: World, days: int) -> Drawn:
    """A stretch of a world in which nothing changes."""
    times = arrivals(rng, world, days)
    rows = len(times)
    numbers = rng.normal(size=(rows, 4))
    if world.is_ordered:
        numbers = 0.7 * numbers + wandering(rng, times, 4)
    kind = rng.choice(len(TEXTS), rows, p=[0.4, 0.3, 0.2, 0.1]).astype(np.int32)
    features: dict[str, ColumnValues] = {
        f"x{each}": NumberColumn(numbers[:, each]) for each in range(4)
    }
    features["kind"] = CategoryColumn(kind, TEXTS)
    said = SAID[world.task](rng, numbers, kind)
    delays = (HOUR_US * (2 + 6 * rng.gamma(2.0, size=rows))).astype(np.int64)
    return Drawn(times, features, *said, delays)


def _binary(rng: Rng, x: Floats, kind: NDArray[np.int32]) -> tuple[Floats, ...]:
    p = 1 / (1 + np.exp(-(x @ [1.0, -0.7, 0.4, 0.0] + 0.5 * (kind == 1) - 1)))
    truths = (rng.random(len(p)) < p).astype(np.float64)
    decisions = (p >= 0.5).astype(np.float64)
    return p, decisions, truths, (decisions != truths).astype(np.float64)


def _multiclass(rng: Rng, x: Floats, kind: NDArray[np.int32]) -> tuple[Floats, ...]:
    z = np.stack([x[:, 0], 0.8 * x[:, 1], 0.5 * x[:, 2] + 0.5 * (kind == 1)], axis=1) * 1.5
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    truths = (rng.random((len(p), 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(0, 2)
    decisions = p.argmax(axis=1)
    losses = (decisions != truths).astype(np.float64)
    return p.max(axis=1), decisions.astype(np.float64), truths.astype(np.float64), losses


def _regression(rng: Rng, x: Floats, kind: NDArray[np.int32]) -> tuple[Floats, ...]:
    value = x @ [2.0, -1.0, 0.5, 0.0] + (kind == 1)
    truths = value + np.where(kind == 2, 2.0, 1.0) * rng.standard_t(6, len(value))
    return value, value, truths, np.square(truths - value)


SAID: dict[Task, Callable[[Rng, Floats, NDArray[np.int32]], tuple[Floats, ...]]] = {
    Task.BINARY: _binary,
    Task.MULTICLASS: _multiclass,
    Task.REGRESSION: _regression,
}


def reference_of(rows: Drawn) -> ReferenceRows:
    """The newest quarter is the hold-out."""
    is_holdout = np.arange(len(rows.times_us)) >= 3 * len(rows.times_us) // 4
    held = rows.only(np.flatnonzero(is_holdout)).labelled()
    return ReferenceRows(
        event_times_us=rows.times_us,
        features=rows.features,
        scores=rows.scores,
        is_holdout=is_holdout,
        holdout=Holdout(held.losses, held.known_at_us, held),
        truths=rows.truths,
        decisions=rows.decisions,
    )


@dataclass
class Monitor:
    """What the service's use cases do with one version, from its windows and truths to alerts."""

    known: KnownVersion
    opened: list[Alert] = field(default_factory=list)
    alerts: dict[tuple[Rule, str], Alert] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known, profile = self.known, self.profile
        for pristine in (each for those in profile.detectors.values() for each in those):
            pristine.detector.restore(pristine.state)
        self.losses = {name: watches.fresh_losses(known, name) for name in profile.detectors}
        self.concept = watches.fresh_concept(known)
        self.labels = watches.fresh_labels(known, profile)
        self.estimate = watches.fresh_estimate(known, profile)

    @property
    def profile(self) -> Any:
        """Of the version."""
        return self.known.profile

    def windows(self, segment: str, windows: Sequence[Window]) -> None:
        """Closed ones, oldest first."""
        found: list[list[Finding]] = [[] for _ in windows]
        for detector, _ in self.profile.detectors[segment]:
            for into, findings in zip(found, detector.feed(windows), strict=True):
                into.extend(findings)
        if not segment:
            self.labels.predicted({each.start_us: each.rows for each in windows})
        is_iid = self.profile.mode is Mode.IID
        calm = Calm(rows=LONGEST_SPAN_ROWS) if is_iid else Calm()
        for window, findings in zip(windows, found, strict=True):
            if not segment:
                scores = self.profile.layout.histogram(SCORE, window.sums)
                self.estimate.window(window.start_us, window.end_us, scores)
                findings.extend(self.estimate.findings())
            self._tell(findings, window.start_us, window.end_us, segment, calm, window.rows)

    def truths(self, truths: Truths, masks: dict[str, NDArray[np.bool_]], mark_us: int) -> None:
        """Those that became known up to a mark."""
        for name, watch in self.losses.items():
            for change in watch.feed(truths.only(masks[name]) if name else truths):
                moment = Moment(mark_us, mark_us)
                self._put(
                    after_losses(
                        self.alerts.get((Rule.PERFORMANCE, name)),
                        change,
                        subject=SUBJECT,
                        cause=Cause.UNKNOWN,
                        moment=moment,
                        segment=name,
                    )
                )
        for look in self.concept.feed(truths):
            self._tell(look.findings, look.at_us, mark_us, "", Calm(), 0)
        self.estimate.feed(truths)
        self.labels.feed(truths)
        self._tell(self.labels.judge(mark_us), mark_us, mark_us, "", Calm(), 0)

    def _tell(
        self,
        findings: Sequence[Finding],
        start_us: int,
        mark_us: int,
        segment: str,
        calm: Calm,
        rows: int,
    ) -> None:
        for rule in dict.fromkeys(each.rule for each in findings):
            self._put(
                after_window(
                    self.alerts.get((rule, segment)),
                    [each for each in findings if each.rule is rule],
                    subject=SUBJECT,
                    window_start_us=start_us,
                    moment=Moment(mark_us, mark_us),
                    rows=rows,
                    calm=calm,
                )
            )

    def _put(self, alert: Alert | None) -> None:
        if alert is None:
            return
        before = self.alerts.get((alert.rule, alert.segment))
        if alert.state is State.OPENED and (before is None or before.alert_id != alert.alert_id):
            self.opened.append(alert)
        self.alerts[alert.rule, alert.segment] = alert


def windows_of(profile: Any, rows: Drawn, mask: NDArray[np.bool_]) -> list[Window]:
    """All windows of a segment, as they become due."""
    times = rows.times_us[mask]
    starts, groups = np.unique(times // profile.length_us, return_inverse=True)
    part = rows.only(np.flatnonzero(mask))
    counted = profile.counter.count(
        Rows(groups.astype(np.intp), len(starts), tuple(part.features.values()), part.scores)
    )
    sums = dict(zip((starts * profile.length_us).tolist(), counted, strict=True))
    due = due_windows(
        sums,
        length_us=profile.length_us,
        from_us=int(rows.times_us[0]) // profile.length_us * profile.length_us,
        until_us=int(starts[-1]) * profile.length_us,
        fewest_rows=1 if profile.mode is Mode.IID else FEWEST_ROWS,
    )
    return [each for each in due if isinstance(each, Window)]


def marks(rows: Drawn) -> Iterator[int]:
    """The watermark's steps over a stretch."""
    yield from range(int(rows.times_us[0]), int(rows.times_us[-1]), MARK_US)


def alarms_of(world: World, reference: ReferenceRows, rows: Drawn, budget: float) -> list[Alert]:
    """Every alert that a model's monitor opened."""
    policy = Policy(false_alarms_per_month=budget, segments=SEGMENTS, revision=1)
    profile = profile_of(reference, policy=policy)
    if (profile.mode is Mode.IID) == world.is_ordered:
        raise ValueError(f"the mode is {profile.mode}: {profile.mode_reason}")
    monitor = Monitor(KnownVersion(SUBJECT, world.task, profile, (), policy))
    everything = np.ones(len(rows.times_us), dtype=bool)
    masks = {"": everything} | {
        name: each.mask(rows.features, len(rows.times_us))
        for name, each in profile.expressions.items()
    }
    windows = {name: windows_of(profile, rows, mask) for name, mask in masks.items()}
    truths = rows.labelled()
    known = rows.times_us + rows.delays_us
    order = np.lexsort((rows.losses, rows.times_us, known))
    of_truths = {name: mask[order] for name, mask in masks.items()}
    begin, taken = 0, dict.fromkeys(windows, 0)
    for mark in marks(rows):
        for name, those in windows.items():
            until = taken[name]
            while until < len(those) and those[until].end_us <= mark:
                until += 1
            if until > taken[name]:
                monitor.windows(name, those[taken[name] : until])
                taken[name] = until
        end = int(np.searchsorted(truths.known_at_us, mark))
        if end > begin:
            part = slice(begin, end)
            parts = {name: each[part] for name, each in of_truths.items()}
            monitor.truths(truths.only(part), parts, mark)
            begin = end
    return monitor.opened


def stream(world: World, seed: int, months: int) -> tuple[ReferenceRows, Drawn]:
    """Reference and what follows it."""
    rng = np.random.default_rng([seed, *map(ord, world.task), int(world.is_ordered)])
    whole = drawn(rng, world, world.reference_days + 30 * months)
    is_reference = whole.times_us < world.reference_days * DAY_US
    before = whole.only(np.flatnonzero(is_reference))
    return reference_of(before), whole.only(np.flatnonzero(~is_reference))


def interval(count: int, months: float) -> tuple[float, float]:
    """Exact 95 % interval of a rate per month."""
    low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    high = stats.chi2.ppf(0.975, 2 * count + 2) / 2
    return float(low) / months, float(high) / months


def line(kind: str, budget: float, months: int, alarms: Sequence[Alert]) -> dict[str, Any]:
    """Figures of one kind of stream under one budget."""
    low, high = interval(len(alarms), months)
    by_rule = Tally(f"{each.rule}{' of a segment' if each.segment else ''}" for each in alarms)
    return {
        "kind": kind,
        "signed_per_month": budget,
        "model_months": months,
        "alarms": len(alarms),
        "per_month": round(len(alarms) / months, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "is_within_budget": len(alarms) <= budget * months,
        # So few that chance does not explain it: the interval ends below the budget.
        "is_surely_within": high <= budget,
        "by_rule": dict(by_rule.most_common()),
    }


def main() -> None:
    """Runs all kinds and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=20, help="of each kind")
    parser.add_argument("--first", type=int, default=0, help="the first stream's seed")
    parser.add_argument("--months", type=int, default=2, help="that each stream lasts")
    parser.add_argument("--budgets", default="0.2,1,5")
    parser.add_argument("--kinds", default=";".join(WORLDS))
    parser.add_argument("--out", type=Path, help="also written there as JSON")
    given = parser.parse_args()
    budgets = [float(each) for each in given.budgets.split(",")]
    begun, lines = time.process_time(), []
    for kind in given.kinds.split(";"):
        world = WORLDS[kind]
        found: dict[float, list[Alert]] = {each: [] for each in budgets}
        for seed in range(given.first, given.first + given.streams):
            reference, rows = stream(world, seed, given.months)
            for budget, alarms in found.items():
                opened = alarms_of(world, reference, rows, budget)
                alarms += [replace(each, subject=Subject(str(seed), 1)) for each in opened]
        for budget, alarms in found.items():
            lines.append(line(kind, budget, given.streams * given.months, alarms))
            print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    figures = {
        "benchmark": "null_monitor",
        "month_days": MONTH_US // DAY_US,
        "cpu_seconds": round(time.process_time() - begun),
        "lines": lines,
    }
    text = json.dumps(figures, indent=1)
    if given.out:
        given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
