"""How well a version does on its newest truths, with intervals, beside its hold-out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.losses.residuals import usable
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.performance.dependent import widened, widenings
from homeostat_monitor.domain.performance.figures import (
    SCORE_BINS,
    Sums,
    figures,
    score_counts,
    sums_of,
    terms_of,
)
from homeostat_monitor.domain.state import State, pack, unpack, unreadable

Floats = NDArray[np.float64]

_FORM = "rolling-1"
# Truths in the span "newest".
NEWEST = 1000
# A value beyond it would spoil every sum it is in; its fourth power is finite.
_LARGEST = 1e60


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure with its 95 % interval; NaN where it is not defined (an AUC of one class)."""

    # Binary: "accuracy", "loss", "log_loss", "bias", "auc", "brier", "precision", "recall", "f1";
    # of several classes the first four, of the decided class; of a regression "mae", "rmse",
    # "loss" (mean squared error), "bias", "r2". "bias": truth less score.
    name: str
    value: float
    low: float
    high: float
    # The hold-out's value; NaN without one.
    reference: float
    # Truths that it is computed of.
    rows: int
    # "newest" (the newest 1,000 truths) or "all" (since the version began).
    span: str = "newest"


class Rolling:
    """Metrics of the newest truths and of all since the version began. Bounded, and the same
    however truths were delivered."""

    name = "rolling"

    def __init__(self, task: Task) -> None:
        self._task = task
        self._reference: Mapping[str, float] = {}
        self._not_usable = 0
        # Scores, decisions and truths of the newest rows, oldest first, [3, rows].
        self._newest: Floats = np.empty((3, 0))
        # Near a regression's truths; of the first row where there is no hold-out.
        self._centre = math.nan
        self._terms: Floats = np.empty(0)
        self._scores: Floats = np.zeros((2, SCORE_BINS if task is Task.BINARY else 0))

    @classmethod
    def seeded(cls, holdout: Truths | None, *, task: Task) -> Self:
        """Fresh; the hold-out gives each metric's reference."""
        rolling = cls(task)
        rows = None if holdout is None else holdout.only(rolling._usable(holdout))
        if rows is not None and len(rows):
            rolling._centre = float(rows.truths.mean())
            found = figures(sums_of(rows, task, rolling._centre), task)
            rolling._reference = {name: value for name, value, _, _ in found}
        return rolling

    @property
    def not_usable(self) -> int:
        """Truths that were left out: a score, decision or truth is not finite, or is none."""
        return self._not_usable

    def feed(self, truths: Truths) -> None:
        """Takes truths in their order; portions do not matter."""
        mask = self._usable(truths)
        self._not_usable += int((~mask).sum())
        rows = truths.only(mask)
        if not len(rows):
            return
        if math.isnan(self._centre):
            self._centre = float(rows.truths[0])
        columns = np.stack([rows.scores, rows.decisions, rows.truths])
        self._newest = np.concatenate([self._newest, columns], axis=1)[:, -NEWEST:]
        terms = terms_of(rows, self._task, self._centre)
        before = self._terms if len(self._terms) else np.zeros(len(terms))
        # One after the other, so that portions give the same sums to the last bit.
        self._terms = np.add.accumulate(np.column_stack([before, terms]), axis=1)[:, -1].copy()
        if self._task is Task.BINARY:
            self._scores = self._scores + score_counts(rows, self._scores)

    def metrics(self) -> Sequence[Metric]:
        """All metrics of the task, of the newest truths and then of all; none before the first."""
        rows = self._newest.shape[1]
        if not rows:
            return []
        unknown, times = np.full(rows, np.nan), np.zeros(rows, dtype=np.int64)
        newest = Truths(times, times, unknown, *self._newest)
        spans = {
            "newest": sums_of(newest, self._task, self._centre),
            "all": Sums(self._terms, self._scores),
        }
        # Of all truths only sums are kept: they are taken to hang together as the newest do.
        wider, is_share = widenings(newest, self._task), self._task is not Task.REGRESSION
        found = [
            (span, int(sums.terms[0]), widened(each, wider.get(each[0], 1.0), is_share=is_share))
            for span, sums in spans.items()
            for each in figures(sums, self._task)
        ]
        return [
            Metric(name, value, low, high, self._known(name), rows, span)
            for span, rows, (name, value, low, high) in found
        ]

    def _known(self, name: str) -> float:
        return self._reference.get(name, math.nan)

    def _usable(self, rows: Truths) -> NDArray[np.bool_]:
        mask = usable(rows, self._task) & np.isfinite(rows.decisions)
        return mask & (np.abs(rows.truths) < _LARGEST) & (np.abs(rows.scores) < _LARGEST)

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py); the hold-out's values come with the seed."""
        centre = None if math.isnan(self._centre) else self._centre
        values = {"task": self._task.value, "not_usable": self._not_usable, "centre": centre}
        arrays = {"newest": self._newest, "terms": self._terms, "scores": self._scores}
        return pack(_FORM, values, arrays)

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        with unreadable("the rolling metrics' state"):
            self._restore(stored)

    def _restore(self, stored: State) -> None:
        values, arrays = stored.values, stored.arrays
        if values["task"] != self._task.value:
            raise CorruptState(f"rolling metrics were stored for a task of {values['task']}")
        newest, terms, scores = (arrays[name] for name in ("newest", "terms", "scores"))
        if newest.shape[0] != 3 or scores.shape != self._scores.shape:
            raise CorruptState("rolling metrics were stored in another shape")
        self._not_usable = int(values["not_usable"])
        self._centre = math.nan if values["centre"] is None else float(values["centre"])
        self._newest, self._terms, self._scores = newest, terms, scores
