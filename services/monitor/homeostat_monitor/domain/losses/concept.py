"""Does the truth still follow from the scores as it did in the hold-out?

Truth less score is watched in both directions, over all scores and per band of scores: a model
that is right as often as before may still say 0.3 where 0.5 became true. river's ADWIN looks at
the residuals of all bands, each freed of its band's hold-out mean; tests anchored at the hold-out
(anchored.py) look at them and at every band, under one budget.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses import adwin, certain
from homeostat_monitor.domain.losses.anchored import Sample, sample_of
from homeostat_monitor.domain.losses.pace import Pace
from homeostat_monitor.domain.losses.residuals import Residuals, usable
from homeostat_monitor.domain.losses.truths import Look, Task, Truths
from homeostat_monitor.domain.losses.two_sided import TwoSided
from homeostat_monitor.domain.state import State, pack, unpack, unreadable

Floats = NDArray[np.float64]

_FORM = "concept-2"
# Without a hold-out so many live truths make the reference.
_LEARNED = 1000
# Findings are given after every so many truths, however they were delivered.
_LOOK_EVERY = 100
# One part of the budget for all scores, one for the bands, one for ADWIN.
_PARTS = 3.0
# The newest hold-out rows that seed ADWIN.
_MOST_SEEDED = 2000


class ConceptWatch:
    """The state of one version. ``feed`` is the only way in."""

    name = "concept"

    def __init__(self, task: Task, false_alarms_per_month: float) -> None:
        """See ``seeded``."""
        self._task = task
        self._budget = false_alarms_per_month
        self._pace = Pace()
        self._not_usable = 0
        self._learning: list[Truths] = []
        self._residuals: Residuals | None = None
        # Of all scores, then of every band.
        self._tests: list[TwoSided] = []
        self._adwin = adwin.fresh()

    @classmethod
    def seeded(
        cls, holdout: Truths | None, *, task: Task, false_alarms_per_month: float = 0.1
    ) -> Self:
        """A fresh watch that knows the hold-out; without one it learns from the first truths."""
        watch = cls(task, false_alarms_per_month)
        if holdout is not None:
            rows = holdout.only(usable(holdout, task))
            if len(rows):
                watch._learn(rows)
        return watch

    @classmethod
    def stored(cls, state: bytes, *, false_alarms_per_month: float = 0.1) -> Self:
        """As it was stored, for whatever task; CorruptState where it cannot be trusted."""
        with unreadable("the concept watch's task"):
            task = Task(unpack(_FORM, state).values["task"])
        watch = cls(task, false_alarms_per_month)
        watch.restore(state)
        return watch

    @property
    def is_learning(self) -> bool:
        """There is no reference yet."""
        return self._residuals is None

    @property
    def not_usable(self) -> int:
        """Truths that were left out: a score, decision or truth is not finite, or is none."""
        return self._not_usable

    def feed(self, truths: Truths) -> list[Look]:
        """Looks with Findings of Rule.CONCEPT: one of all scores and one per band each, breaches
        and others; at fixed counts, and when a shift is told. Other portions give the same."""
        mask = usable(truths, self._task)
        self._not_usable += int((~mask).sum())
        rows = truths.only(mask)
        begin = self._learn_live(rows)
        if self._residuals is None:
            return []
        return list(self._judge(rows.only(slice(begin, None)), self._residuals))

    def rebase(self) -> None:
        """The present level is the new normal, where a shift stands."""
        for at, test in enumerate(self._tests):
            level = test.level()
            if level is not None:
                self._tests[at] = TwoSided(level, self._rows_per_false_alarm())

    def _learn_live(self, rows: Truths) -> int:
        """How many of them went into the reference."""
        if self._residuals is not None:
            return 0
        missing = _LEARNED - sum(map(len, self._learning))
        taken = min(missing, len(rows))
        self._learning.append(rows.only(slice(taken)))
        if taken == missing:
            whole, self._learning = _joined(self._learning), []
            self._learn(whole)
        return taken

    def _learn(self, rows: Truths) -> None:
        residuals = Residuals.of(rows, self._task)
        scaled, band = residuals.scaled(rows), residuals.bands(rows)
        centred = residuals.centred(scaled, band)
        bands = len(residuals.means)
        # The scores may move into the band whose mean is known worst.
        whole = sample_of(centred)
        whole = Sample(max(whole.rows // bands, 1), whole.mean, whole.variance, whole.clumping)
        samples = [whole, *(_sample(scaled[band == each]) for each in range(bands))]
        self._residuals = residuals
        allowed = self._rows_per_false_alarm()
        self._tests = [TwoSided(each, allowed) for each in samples]
        for value in centred[-_MOST_SEEDED:].tolist():
            self._adwin.update(value)

    def _rows_per_false_alarm(self) -> float:
        return _PARTS * self._pace.rows_per_false_alarm(self._budget)

    def _judge(self, rows: Truths, residuals: Residuals) -> Iterator[Look]:
        scaled, band = residuals.scaled(rows), residuals.bands(rows)
        columns = (residuals.centred(scaled, band), scaled, band, rows.known_at_us)
        whole, *bands = self._tests
        for centred, value, place, at_us in zip(*(each.tolist() for each in columns), strict=True):
            self._pace.take(at_us)
            is_told = whole.update(centred, at_us)
            is_told |= bands[place].update(value, at_us)
            self._adwin.update(centred)
            if self._adwin.drift_detected and whole.standing is None:
                is_told |= self._adapted(whole)
            is_due = self._pace.fed % _LOOK_EVERY == 0
            if is_due:
                self._allow()
            if is_told or is_due:
                yield Look(at_us, self._pace.fed, self._findings(residuals))

    def _adapted(self, whole: TwoSided) -> bool:
        """ADWIN compares with what it kept, which need not be the hold-out: what it tells is told
        where it is surely away from the hold-out as well (certain.py)."""
        rows, mean, known = self._adwin.width, self._adwin.estimation, whole.reference
        shift, variance = mean - known.mean, known.variance * known.clumping
        spends = certain.log_level(self._rows_per_false_alarm(), sides=2)
        if certain.log_chance(abs(shift), variance, rows, known.rows) >= spends:
            return False
        whole.tell(1 if shift > 0 else -1, rows, mean)
        return True

    def _allow(self) -> None:
        allowed = self._rows_per_false_alarm()
        for each in self._tests:
            each.allow(allowed)

    def _findings(self, residuals: Residuals) -> tuple[Finding, ...]:
        names = ["", *_band_names(residuals.edges)]
        return tuple(
            _finding(test, name, residuals.unit)
            for test, name in zip(self._tests, names, strict=True)
        )

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py)."""
        dumps = [each.dump() for each in self._tests]
        residuals = self._residuals
        learning = _joined(self._learning)
        values = {
            "task": self._task.value,
            "pace": asdict(self._pace),
            "not_usable": self._not_usable,
            "scale": None if residuals is None else [residuals.mean, residuals.deviation],
            "tests": [values for values, _, _ in dumps],
            "adwin": dict(adwin.dump(self._adwin)),
        }
        arrays: dict[str, NDArray[np.float64] | NDArray[np.int64]] = {
            "edges": np.empty(0) if residuals is None else residuals.edges,
            "means": np.empty(0) if residuals is None else residuals.means,
            "known_at": learning.known_at_us,
            "events": learning.event_times_us,
            "learning": _floats(learning),
        }
        for at, (_, tests, timeline) in enumerate(dumps):
            arrays[f"tests_{at}"], arrays[f"timeline_{at}"] = tests, timeline
        return pack(_FORM, values, arrays)

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        with unreadable("the concept watch's state"):
            self._restore(stored)

    def _restore(self, stored: State) -> None:
        values, arrays = stored.values, stored.arrays
        if values["task"] != self._task.value:
            raise CorruptState(f"the concept watch was stored for a task of {values['task']}")
        again = type(self)(self._task, self._budget)
        again._pace = Pace(**values["pace"])
        again._not_usable = int(values["not_usable"])
        if values["scale"] is not None:
            mean, deviation = values["scale"]
            edges, means = arrays["edges"], arrays["means"]
            again._residuals = Residuals(self._task, mean, deviation, edges, means)
        again._tests = [
            TwoSided.loaded(each, arrays[f"tests_{at}"], arrays[f"timeline_{at}"])
            for at, each in enumerate(values["tests"])
        ]
        again._adwin = adwin.load(values["adwin"])
        if len(arrays["known_at"]):
            again._learning = [Truths(arrays["known_at"], arrays["events"], *arrays["learning"])]
        for name in vars(again):
            setattr(self, name, getattr(again, name))


def _sample(values: Floats) -> Sample:
    # A band without rows knows nothing: any mean is as likely.
    return sample_of(values) if len(values) else Sample(1, 0.5, 0.25)


def _finding(test: TwoSided, band: str, unit: float) -> Finding:
    """``observed``: how far the mean residual is from the hold-out's, in its own unit; what chance
    explains is the threshold."""
    rows, mean = test.newest()
    shift = (mean - test.reference.mean) if rows else 0.0
    chance = test.chance(rows) * unit
    side = "truth_above_score" if shift >= 0 else "truth_below_score"
    since_us = None if test.standing is None else test.standing.since_us
    return Finding(
        Rule.CONCEPT,
        feature="",
        statistic=side + band,
        observed=abs(shift) * unit,
        reference=0.0,
        threshold=2.0 * chance,
        is_breach=test.standing is not None,
        since_us=since_us,
    )


def _band_names(edges: Floats) -> list[str]:
    ends = ["lowest", *(f"{each:.3g}" for each in edges), "highest"]
    if len(ends) == 2:
        return ["_of_all_scores"]
    return [f"_of_scores_{low}_to_{high}" for low, high in pairwise(ends)]


def _joined(parts: list[Truths]) -> Truths:
    if not parts:
        none, empty = np.empty(0, dtype=np.int64), np.empty(0)
        return Truths(none, none, empty, empty, empty, empty)
    known_at = np.concatenate([each.known_at_us for each in parts])
    events = np.concatenate([each.event_times_us for each in parts])
    return Truths(known_at, events, *np.concatenate([_floats(each) for each in parts], axis=1))


def _floats(rows: Truths) -> Floats:
    return np.stack([rows.losses, rows.scores, rows.decisions, rows.truths]).astype(np.float64)
