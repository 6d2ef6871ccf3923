"""Performance without truth: what the scores alone lead to expect. It cannot see concept drift.

The loss that the hold-out had at scores like these (as confidence-based estimation does, but with
the loss itself per bin of scores, so that the confidence need not be calibrated and regression has
its place). If the truth no longer follows from the inputs as it did, the scores do not know it: the
estimate stays as it was and the back-test withdraws it once truths have come.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Self

import numpy as np

from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.pace import MONTH_US
from homeostat_monitor.domain.losses.score_losses import BLOCK, ScoreLosses, places_of
from homeostat_monitor.domain.losses.truths import Task, Truths
from homeostat_monitor.domain.performance.backtest import BackTest
from homeostat_monitor.domain.performance.intervals import Z
from homeostat_monitor.domain.state import State, pack, unpack, unreadable
from homeostat_monitor.domain.windows.bins import NumberBins
from homeostat_monitor.domain.windows.sums import Counts

_FORM = "estimate-1"
# Fewer hold-out rows say too little of the loss per bin; squared errors have long tails.
_FEWEST_ROWS = 200
_FEWEST_ROWS_REGRESSION = 1000
# Of a regression: bins with so many rows have to hold most of the hold-out.
_FEWEST_IN_BIN = 30
_MOST = 0.9
# A relative rise of the expected loss that is of consequence.
_MATERIAL = 0.1

CAVEAT = "an estimate from the scores alone: it cannot see a change of concept"


@dataclass(frozen=True, slots=True)
class Estimated:
    """The mean loss that scores lead to expect, and between what it will be with 95 %."""

    start_us: int
    end_us: int
    loss: float
    low: float
    high: float
    # The hold-out's.
    reference: float
    rows: int


class Estimate:
    """Fed with score histograms of closed windows, and with truths for its back-test."""

    name = "estimate"

    def __init__(self, losses: ScoreLosses | None, bins: NumberBins, level: float) -> None:
        """See ``seeded``; ``level``: the chance of a false alarm at one window."""
        self._losses = losses
        self._bins = bins
        self._level = level
        self._absent: str | None = None
        self._begun_us: int | None = None
        self._histogram = np.zeros(bins.width, dtype=np.int64)
        self._latest: Estimated | None = None
        self._findings: list[Finding] = []
        self._test = BackTest()
        # Of the truths since the last look: their scores and the sum of their losses.
        self._scored = np.zeros(bins.width, dtype=np.int64)
        self._lost = 0.0

    @classmethod
    def seeded(
        cls,
        holdout: Truths | None,
        bins: NumberBins,
        *,
        task: Task,
        length_us: int,
        false_alarms_per_month: float = 0.1,
    ) -> Self:
        """``bins``: the layout's bins of the scores; ``length_us``: of the windows."""
        level = min(false_alarms_per_month * length_us / MONTH_US, 0.5)
        rows = None if holdout is None else _usable(holdout)
        absent = _why_absent(rows, bins, task)
        losses = ScoreLosses.of(rows, bins) if rows is not None and absent is None else None
        estimate = cls(losses, bins, level)
        estimate._absent = absent
        return estimate

    @property
    def absent_because(self) -> str | None:
        """Why there is no estimate, in one sentence; None: there is one."""
        if self._losses is None:
            return self._absent
        if self._test.is_withdrawn:
            return (
                f"the estimate is withdrawn: {self._test.missed} of its {self._test.looks} "
                "intervals did not hold the loss that became true"
            )
        return None

    @property
    def latest(self) -> Estimated | None:
        """Of the newest windows together that held enough rows."""
        return self._latest if self.absent_because is None else None

    @property
    def back_tests(self) -> tuple[int, int]:
        """How many looks, and how many of them missed; 5 % are due."""
        return self._test.looks, self._test.missed

    def window(self, start_us: int, end_us: int, scores: Counts) -> Estimated | None:
        """What a closed window's score histogram leads to expect, together with those before
        while they hold too few rows; None until then, and where there is no estimate."""
        self._findings = []
        if self._losses is None:
            return None
        self._begun_us = start_us if self._begun_us is None else self._begun_us
        self._histogram = self._histogram + scores
        rows = int(self._histogram.sum())
        if rows < BLOCK:
            return None
        expected = self._losses.expect(self._histogram)
        half = Z * expected.deviation
        low, high = max(expected.loss - half, 0.0), expected.loss + half
        mean = self._losses.mean
        self._latest = Estimated(self._begun_us, end_us, expected.loss, low, high, mean, rows)
        self._begun_us, self._histogram = None, np.zeros_like(self._histogram)
        if self._test.is_withdrawn:
            return None
        self._findings = [self._finding(self._losses, self._latest, expected.unsure)]
        return self._latest

    def findings(self) -> Sequence[Finding]:
        """Of Rule.ESTIMATED_PERFORMANCE, if the last window completed an estimate."""
        return self._findings

    def _finding(self, losses: ScoreLosses, found: Estimated, unsure: float) -> Finding:
        """A rise beyond what chance, what the bins' means leave open, and the hold-out's own
        blocks explain. Two sums of independent parts: how unsure the bins are, and the mix."""
        away = NormalDist().inv_cdf(1.0 - self._level)
        chance = away * math.hypot(unsure, losses.mix_chance(found.rows))
        threshold = losses.mean + max(
            chance, losses.natural.at(self._level), _MATERIAL * abs(losses.mean)
        )
        return Finding(
            Rule.ESTIMATED_PERFORMANCE,
            "",
            "estimated_loss",
            found.loss,
            losses.mean,
            threshold,
            found.loss > threshold,
            since_us=found.start_us,
        )

    def feed(self, truths: Truths) -> Sequence[str]:
        """Back-tests with every so many truths, by their own scores, in the order in which they
        became known; a remark where the estimate is withdrawn or comes back."""
        if self._losses is None:
            return []
        rows = _usable(truths)
        places = places_of(rows.scores, self._bins)
        remarks, begin = [], 0
        while begin < len(rows):
            end = min(begin + BLOCK - int(self._scored.sum()), len(rows))
            part = places[begin:end]
            self._scored = self._scored + np.bincount(part, minlength=len(self._scored))
            # One after the other, so that portions give the same sum to the last bit.
            self._lost = float(np.add.accumulate([self._lost, *rows.losses[begin:end]])[-1])
            begin = end
            if int(self._scored.sum()) == BLOCK:
                remarks += self._look(self._losses)
        return remarks

    def _look(self, losses: ScoreLosses) -> list[str]:
        expected = losses.expect(self._scored)
        away = self._lost / BLOCK - expected.loss
        self._scored, self._lost = np.zeros_like(self._scored), 0.0
        deviations = away / expected.deviation if expected.deviation > 0 else float(away != 0) * 9
        if not self._test.look(deviations):
            return []
        if self._test.is_withdrawn:
            return [self.absent_because or ""]
        return ["the estimate is back: its intervals have held for long enough"]

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py); the loss per bin comes with the seed."""
        values = {
            "begun_us": self._begun_us,
            "latest": None if self._latest is None else asdict(self._latest),
            "test": asdict(self._test),
            "lost": self._lost,
        }
        arrays = {
            "histogram": self._histogram,
            "scored": self._scored,
            "edges": self._bins.edges.astype(np.float64),
        }
        return pack(_FORM, values, arrays)

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        with unreadable("the estimate's state"):
            self._restore(stored)

    def _restore(self, stored: State) -> None:
        values, arrays = stored.values, stored.arrays
        if not np.array_equal(arrays["edges"], self._bins.edges.astype(np.float64)):
            raise CorruptState("the estimate was stored for other bins of the scores")
        latest = None if values["latest"] is None else Estimated(**values["latest"])
        test, lost = BackTest(**values["test"]), float(values["lost"])
        self._begun_us, self._latest = values["begun_us"], latest
        self._test, self._lost, self._findings = test, lost, []
        self._histogram, self._scored = arrays["histogram"], arrays["scored"]


def _usable(rows: Truths) -> Truths:
    return rows.only(np.isfinite(rows.scores) & np.isfinite(rows.losses))


def _why_absent(rows: Truths | None, bins: NumberBins, task: Task) -> str | None:
    if rows is None or not len(rows):
        return "no estimate: no hold-out rows with scores and losses"
    fewest = _FEWEST_ROWS_REGRESSION if task is Task.REGRESSION else _FEWEST_ROWS
    if len(rows) < fewest:
        return f"no estimate: {len(rows)} hold-out rows, {fewest} are needed"
    if task is Task.REGRESSION:
        counts = np.bincount(places_of(rows.scores, bins), minlength=bins.width)
        if counts[counts >= _FEWEST_IN_BIN].sum() < _MOST * len(rows):
            return "no estimate: too few hold-out rows per range of predicted values"
    return None
