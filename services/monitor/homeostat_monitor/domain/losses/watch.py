"""One version's delayed loss: has it risen, since when, and has it come back?

Two detectors see every first truth's loss in the order (known at, event time). river's ADWIN
compares what it keeps with what came before, at any size of window; a test anchored at the
hold-out (anchored.py) sees a rise above the hold-out whatever came before. Each has a half of the
watch's budget of false alarms.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.losses.anchored import Sample, sample_of
from homeostat_monitor.domain.losses.changes import LossChange, LossSignal, Risen
from homeostat_monitor.domain.losses.power import smallest_rise
from homeostat_monitor.domain.losses.recent import Recent
from homeostat_monitor.domain.losses.rise import Level, Rise
from homeostat_monitor.domain.losses.scale import Scale
from homeostat_monitor.domain.losses.tests import LossTests
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.state import State, pack, unpack, unreadable
from homeostat_monitor.domain.windows.reference import Holdout

__all__ = ["LossChange", "LossSignal", "LossWatch", "Risen"]

Floats = NDArray[np.float64]

# The newest hold-out losses that seed the detector: with more, an old past outweighs the present.
_MOST_SEEDED = 2000
# Without a hold-out so many live losses make the reference.
_LEARNED = 500
# The alert's fate is looked at after every so many losses, however they were delivered.
_LOOK_EVERY = 100
# So many losses at a level not above the reference end a rise. On a year of flights 1,000
# give one alert per bad week; 2,000 leave an alert open for months, and no further one is told.
_RECOVERY_LOSSES = 1000
# A rise that stands for so many losses is here to stay.
_PERSISTENCE_LOSSES = 4000
# Relative rise that is critical at once.
_CRITICAL_RISE = 0.5
# Losses between two false alarms of the anchored test, on average, at the least: one a month where
# 130,000 truths come in a day.
ROWS_PER_FALSE_ALARM = 4_000_000
# Of the stored state. To be changed with what its fields mean.
_FORM = "losses-5"


@dataclass(slots=True)
class _Tally:
    """Counts that go with the detectors."""

    is_binary: bool
    # Losses fed, the hold-out's not counted, and their sum.
    live: int = 0
    live_total: float = 0.0
    not_finite: int = 0


class LossWatch:
    """The state of one version. ``feed`` is the only way in."""

    name = "losses"

    def __init__(
        self, is_binary: bool, rows_per_false_alarm: float, false_alarms_per_month: float
    ) -> None:
        """See ``seeded``."""
        self._tests = LossTests(rows_per_false_alarm, false_alarms_per_month)
        self._tally = _Tally(is_binary)
        self._scale = Scale()
        self._recent = Recent()
        self._learning: list[float] = []
        self._level: Level | None = None
        self._rise: Rise | None = None

    @classmethod
    def seeded(
        cls,
        holdout: Holdout | None,
        *,
        is_binary: bool,
        rows_per_false_alarm: float = ROWS_PER_FALSE_ALARM,
        false_alarms_per_month: float = 1.0,
    ) -> Self:
        """A fresh watch that knows the hold-out; without one it learns from the first losses.

        ``is_binary``: losses are 0 or 1 and are taken as they are.
        ``rows_per_false_alarm``: losses between two false alarms of either detector, on average,
        at the least; more where so many come that a month would have more than
        ``false_alarms_per_month`` of both.
        """
        watch = cls(is_binary, rows_per_false_alarm, false_alarms_per_month)
        if holdout is None:
            return watch
        finite = np.isfinite(holdout.losses)
        losses, known_at = holdout.losses[finite], holdout.known_at_us[finite]
        if len(losses):
            values = watch._learn(losses)
            newest = slice(-_MOST_SEEDED, None)
            for value, at in zip(values[newest].tolist(), known_at[newest].tolist(), strict=True):
                watch._recent.take(value, at)
        return watch

    @property
    def is_learning(self) -> bool:
        """There is no reference yet."""
        return self._tests.anchored is None

    @property
    def reference(self) -> float:
        """Mean loss to compare with (of a regression: of clipped losses); NaN while learning."""
        return math.nan if self._level is None else self._scale.back(self._level.mean)

    @property
    def mean(self) -> float:
        """Mean of all live losses; NaN before the first."""
        return self._tally.live_total / self._tally.live if self._tally.live else math.nan

    @property
    def live(self) -> int:
        """Losses fed, the hold-out's not counted."""
        return self._tally.live

    @property
    def not_finite(self) -> int:
        """Losses that were refused."""
        return self._tally.not_finite

    @property
    def risen(self) -> Risen | None:
        """The rise that stands; None: there is none."""
        rise = self._rise
        if rise is None:
            return None
        return Risen(rise.since_us, self._scale.back(rise.mean), rise.rows)

    def smallest_rise(self, losses: Floats, rows: int) -> float | None:
        """Of the mean of losses like these, finite, that would be seen within so many with
        probability 0.9; None: no rise would, or there is no reference."""
        test = self._tests.anchored
        if test is None:
            return None
        values = self._scale.forward(losses)
        rise = smallest_rise(test, values, rows, is_binary=self._tally.is_binary)
        mean = float(values.mean())
        return None if rise is None else self._scale.back(mean + rise) - self._scale.back(mean)

    def feed(self, truths: Truths) -> list[LossChange]:
        """What they say, in their order. The same losses in other portions say the same."""
        known_at, losses = truths.known_at_us, truths.losses
        finite = np.isfinite(losses)
        if not finite.all():
            self._tally.not_finite += int((~finite).sum())
            known_at, losses = known_at[finite], losses[finite]
        return list(self._feed(known_at, losses))

    def rebase(self) -> None:
        """The present level is the new normal."""
        rise = self._rise
        if rise is not None and rise.rows:
            sample = self._tests.like_reference(rise.rows, rise.mean, rise.variance)
            self._refer_to(sample, rise.mean)
        self._rise = None
        self._tests.clear()

    def _feed(self, known_at: NDArray[np.int64], losses: Floats) -> Iterator[LossChange]:
        begin = 0
        if self.is_learning:
            begin = min(_LEARNED - len(self._learning), len(losses))
            self._count(losses[:begin].tolist())
            self._learning.extend(losses[:begin].tolist())
            if len(self._learning) == _LEARNED:
                for value in self._learn(np.array(self._learning)).tolist():
                    self._recent.take(value, int(known_at[begin - 1]))
                self._learning = []
        values = self._scale.forward(losses[begin:]).tolist()
        rows = zip(known_at[begin:].tolist(), losses[begin:].tolist(), values, strict=True)
        for at_us, loss, value in rows:
            self._count([loss])
            self._tests.count(at_us)
            yield from self._take(value, at_us)

    def _count(self, losses: list[float]) -> None:
        for loss in losses:
            self._tally.live += 1
            self._tally.live_total += loss

    def _take(self, value: float, at_us: int) -> Iterator[LossChange]:
        """One scaled loss."""
        has_changed = self._recent.take(value, at_us)
        level = self._level
        if (
            has_changed
            and level is not None
            and level.is_left(self._recent, self._rise, self._tests.log_level)
        ):
            yield self._rose(at_us, self._recent.rows, self._recent.mean)
        elif self._rise is not None:
            yield from self._go_on(self._rise, value, at_us)
        elif (test := self._tests.anchored) is not None and test.update(value):
            yield self._rose(at_us, test.rows, test.mean)

    def _go_on(self, rise: Rise, value: float, at_us: int) -> Iterator[LossChange]:
        """A loss while a rise stands."""
        rise.take(value)
        further = self._tests.further
        if further is not None and further.update(value):
            yield self._rose(at_us, further.rows, further.mean)
            return
        if rise.rows % _LOOK_EVERY == 0:
            yield from self._look(rise, at_us)
        if rise.rows == _LEARNED:
            self._tests.refer_further_to(rise.rows, rise.mean, rise.variance)

    def _rose(self, at_us: int, rows: int, mean: float) -> LossChange:
        """Told by the newest so many losses and their (scaled) mean."""
        since_us = self._recent.since(rows)
        self._rise = Rise(since_us, mean)
        self._tests.clear()
        return self._change(LossSignal.ROSE, at_us, since_us, mean)

    def _look(self, rise: Rise, at_us: int) -> Iterator[LossChange]:
        """Has the rise gone, or come to stay?"""
        width, recent = self._recent.rows, self._recent.mean
        level = self._level.highest if self._level is not None else math.inf
        if min(rise.rows, width) >= _RECOVERY_LOSSES and recent <= level:
            self._rise = self._tests.further = None
            yield self._change(LossSignal.RECOVERED, at_us, self._recent.since(width), recent)
        elif rise.has_persisted or rise.rows < _PERSISTENCE_LOSSES:
            return
        elif min(rise.mean, recent) > level:
            rise.has_persisted = True
            yield self._change(LossSignal.PERSISTS, at_us, rise.since_us, rise.mean)

    def _change(self, signal: LossSignal, at_us: int, since: int, observed: float) -> LossChange:
        value, reference = self._scale.back(observed), self.reference
        ratio = (value - reference) / reference if reference > 0 else math.inf
        critical = signal is not LossSignal.RECOVERED and ratio >= _CRITICAL_RISE
        return LossChange(signal, at_us, self._tally.live, since, value, reference, critical)

    def _learn(self, losses: Floats) -> Floats:
        """Makes them the reference; scaled."""
        if not self._tally.is_binary:
            self._scale = Scale.of(losses)
        values = self._scale.forward(losses)
        self._refer_to(sample_of(values), float(values.mean()))
        return values

    def _refer_to(self, sample: Sample, mean: float) -> None:
        self._tests.refer_to(sample)
        # Half a loss more is for the test's caution only.
        spread = mean * (1 - mean) if self._tally.is_binary else sample.variance
        self._level = Level(mean, sample.rows, spread * sample.clumping)

    def to_bytes(self) -> bytes:
        """The whole state (domain/state.py)."""
        recent, timeline = self._recent.dump()
        of_tests, tests = self._tests.dump()
        values = {
            "tally": asdict(self._tally),
            "level": None if self._level is None else asdict(self._level),
            "rise": None if self._rise is None else asdict(self._rise),
            "scale": asdict(self._scale),
            "recent": recent,
            **of_tests,
        }
        arrays = {
            "learning": np.array(self._learning, dtype=np.float64),
            "timeline": timeline,
            **tests,
        }
        return pack(_FORM, values, arrays)

    def restore(self, state: bytes) -> None:
        """Goes on from a stored state; CorruptState where it cannot be trusted."""
        stored = unpack(_FORM, state)
        with unreadable("the loss detector's state"):
            self._restore(stored)

    def _restore(self, stored: State) -> None:
        values, arrays = stored.values, stored.arrays
        tally, scale = _Tally(**values["tally"]), Scale(**values["scale"])
        rise = None if values["rise"] is None else Rise(**values["rise"])
        level = None if values["level"] is None else Level(**values["level"])
        recent = Recent.loaded(values["recent"], arrays["timeline"])
        self._tests.restore(values, arrays)
        self._tally, self._scale, self._recent = tally, scale, recent
        self._level, self._rise = level, rise
        self._learning = arrays["learning"].tolist()
