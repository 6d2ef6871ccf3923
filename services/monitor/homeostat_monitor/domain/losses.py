"""One version's delayed loss: has it risen, since when, and has it come back?

river's ADWIN sees every first truth's loss in the order (known at, event time, loss, id).
"""

import json
import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Self

import numpy as np

from homeostat_monitor.domain import adwin
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.reference import Holdout

# The newest hold-out losses that seed the detector: with more, an old past outweighs the present.
_MOST_SEEDED = 2000
# Without a hold-out so many live losses make the reference.
_LEARNED = 500
# The alert's fate is looked at after every so many losses, however they were delivered.
_LOOK_EVERY = 100
# So many losses at a level not above the reference end a rise. On a year of flights 1,000
# give one alert per bad week; 2,000 leave an alert open for months, and no further one is told.
_RECOVERY_LOSSES = 1000
# A rise is told when its mean is so many deviations of chance above the reference ...
_CERTAIN = 2.0
# ... or, in doubt, the mean of what follows, which is looked at several times.
_CERTAIN_AFTER_DOUBT = 2.5
_DOUBTED_LOSSES = 1000
# A rise that stands for so many losses is here to stay.
_PERSISTENCE_LOSSES = 4000
# Relative rise that is critical at once.
_CRITICAL_RISE = 0.5
# Regression losses have long tails; in deviations from the hold-out's mean.
_CLIP = (-1.0, 4.0)
# Of the stored state. To be raised with every change of what its fields mean.
_FORM = 2
# Marks of time along the detector's window: enough to say when it begins within 0.1 %.
_MOST_MARKS = 1024


@dataclass(frozen=True, slots=True)
class Loss:
    """One first truth."""

    known_at_us: int
    event_time_us: int
    value: float


class LossSignal(StrEnum):
    """What the losses say of an alert's life."""

    ROSE = "rose"
    PERSISTS = "persists"
    RECOVERED = "recovered"


@dataclass(frozen=True, slots=True)
class LossChange:
    """A signal with its figures, in the loss's own unit."""

    signal: LossSignal
    # Known-at time of the loss that told, and how many losses were fed with it: many may share
    # one time.
    at_us: int
    fed: int
    # When the detector's kept window begins.
    since_us: int
    observed: float
    reference: float
    is_critical: bool


@dataclass(slots=True)
class _Scale:
    """Maps a loss into 0..1, where ADWIN's bound holds, and back."""

    mean: float = 0.0
    deviation: float = 0.0

    def forward(self, loss: float) -> float:
        if self.deviation <= 0.0:
            return loss
        z = (loss - self.mean) / self.deviation
        low, high = _CLIP
        return (min(max(z, low), high) - low) / (high - low)

    def back(self, value: float) -> float:
        if self.deviation <= 0.0:
            return value
        low, high = _CLIP
        return self.mean + self.deviation * (low + value * (high - low))


@dataclass(slots=True)
class _Timeline:
    """When which loss was fed: a bounded list of (count, known at), thinned as it grows."""

    counts: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    stride: int = 1

    def mark(self, count: int, known_at_us: int) -> None:
        if count % self.stride:
            return
        self.counts.append(count)
        self.times.append(known_at_us)
        if len(self.counts) > _MOST_MARKS:
            self.stride *= 2
            kept = [i for i, each in enumerate(self.counts) if each % self.stride == 0]
            self.counts = [self.counts[i] for i in kept]
            self.times = [self.times[i] for i in kept]

    def at(self, count: int) -> int:
        """Known-at time of that loss, or of the last marked one before it."""
        place = max(bisect_right(self.counts, count) - 1, 0)
        return self.times[place] if self.times else 0


@dataclass(slots=True)
class _Tally:
    """Counts that go with the detector. Without a hold-out, ``learning`` holds the first losses."""

    is_binary: bool
    reference: float = math.nan
    reference_rows: int = 0
    learning: list[float] = field(default_factory=list)
    # Losses ever fed, seeds included, and losses fed live.
    fed: int = 0
    live: int = 0
    live_total: float = 0.0
    not_finite: int = 0
    # Since the detector began anew.
    window: int = 0
    window_total: float = 0.0
    # Set while a rise is in doubt: when it began, losses and their (scaled) sum since then.
    doubted_since_us: int | None = None
    doubted: int = 0
    doubted_total: float = 0.0
    # Set while a rise has not been answered: losses and their (scaled) sum since then.
    is_risen: bool = False
    risen: int = 0
    risen_total: float = 0.0
    has_persisted: bool = False


class LossWatch:
    """The state of one version. ``feed`` is the only way in."""

    def __init__(self, *, is_binary: bool) -> None:
        """``is_binary``: losses are 0 or 1 and are taken as they are."""
        self._tally = _Tally(is_binary)
        self._scale = _Scale()
        self._timeline = _Timeline()
        self._detector = adwin.fresh()

    @classmethod
    def seeded(cls, holdout: Holdout | None, *, is_binary: bool) -> Self:
        """A fresh watch that knows the hold-out; without one it learns from the first losses."""
        watch = cls(is_binary=is_binary)
        if holdout is None:
            return watch
        finite = np.isfinite(holdout.losses)
        losses, known_at = holdout.losses[finite], holdout.known_at_us[finite]
        if len(losses):
            watch._learn(losses.tolist())
            newest = slice(-_MOST_SEEDED, None)
            for value, at in zip(losses[newest].tolist(), known_at[newest].tolist(), strict=True):
                watch._update(watch._scale.forward(value), at)
        return watch

    @property
    def is_learning(self) -> bool:
        """There is no reference yet."""
        return math.isnan(self._tally.reference)

    @property
    def reference(self) -> float:
        """Mean loss to compare with; NaN while learning."""
        return self._scale.back(self._tally.reference)

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

    def feed(self, losses: Iterable[Loss]) -> list[LossChange]:
        """What they say, in their order. The same losses in other portions say the same."""
        return [change for loss in losses for change in self._feed(loss)]

    def rebase(self) -> None:
        """The present level is the new normal."""
        tally = self._tally
        if tally.is_risen and tally.risen:
            tally.reference = tally.risen_total / tally.risen
            tally.reference_rows = tally.risen
        tally.is_risen = tally.has_persisted = False
        tally.doubted_since_us = None

    def _feed(self, loss: Loss) -> Iterable[LossChange]:
        tally = self._tally
        if not math.isfinite(loss.value):
            tally.not_finite += 1
            return
        tally.live += 1
        tally.live_total += loss.value
        if self.is_learning:
            self._learn_live(loss)
            return
        value = self._scale.forward(loss.value)
        has_risen = self._update(value, loss.known_at_us)
        if has_risen:
            yield from self._rise_or_doubt(loss)
        else:
            yield from self._go_on(value, loss)

    def _go_on(self, value: float, loss: Loss) -> Iterable[LossChange]:
        tally = self._tally
        if tally.doubted_since_us is not None:
            tally.doubted += 1
            tally.doubted_total += value
            if tally.doubted % _LOOK_EVERY == 0:
                yield from self._look_again(loss)
        if tally.is_risen:
            tally.risen += 1
            tally.risen_total += value
            if tally.risen % _LOOK_EVERY == 0:
                yield from self._look(loss)

    def _update(self, value: float, known_at_us: int) -> bool:
        """Feeds one scaled loss; whether its level rose above both before and the reference."""
        tally, detector = self._tally, self._detector
        if detector.drift_detected:
            # river begins anew with the value after a detection.
            tally.window, tally.window_total = 0, 0.0
        self._timeline.mark(tally.fed, known_at_us)
        tally.fed += 1
        tally.window += 1
        tally.window_total += value
        detector.update(value)
        if not detector.drift_detected:
            return False
        dropped = tally.window - int(detector.width)
        before = (tally.window_total - detector.total) / dropped if dropped > 0 else 0.0
        return bool(detector.estimation > before and detector.estimation > tally.reference)

    def _rise_or_doubt(self, loss: Loss) -> Iterable[LossChange]:
        """ADWIN compares with what it kept: after a calm spell it sees a rise where the loss is
        back at the reference. And what it keeps reaches into the time before a change, so that a
        true rise may look small. Where the kept mean is no proof, the next losses are."""
        tally, detector = self._tally, self._detector
        since = self._timeline.at(tally.fed - int(detector.width))
        mean = float(detector.estimation)
        if self._is_above(mean, int(detector.width), _CERTAIN):
            yield self._rise(loss, since, mean)
        else:
            tally.doubted_since_us = since
            tally.doubted, tally.doubted_total = 0, 0.0

    def _look_again(self, loss: Loss) -> Iterable[LossChange]:
        tally = self._tally
        mean = tally.doubted_total / tally.doubted
        if self._is_above(mean, tally.doubted, _CERTAIN_AFTER_DOUBT):
            yield self._rise(loss, tally.doubted_since_us or 0, mean)
        elif tally.doubted >= _DOUBTED_LOSSES:
            tally.doubted_since_us = None

    def _is_above(self, mean: float, rows: int, deviations: float) -> bool:
        """Whether so many losses of this (scaled) mean exceed the reference by more than chance."""
        tally = self._tally
        level = tally.reference
        variance = level * (1 - level) if tally.is_binary else (1 / (_CLIP[1] - _CLIP[0])) ** 2
        chance = math.sqrt(variance * (1 / max(rows, 1) + 1 / max(tally.reference_rows, 1)))
        return mean - level > deviations * chance

    def _rise(self, loss: Loss, since_us: int, mean: float) -> LossChange:
        tally = self._tally
        tally.is_risen, tally.has_persisted = True, False
        tally.risen, tally.risen_total = 0, 0.0
        tally.doubted_since_us = None
        return self._change(LossSignal.ROSE, loss, since_us, mean)

    def _look(self, loss: Loss) -> Iterable[LossChange]:
        """Has the rise gone, or come to stay?"""
        tally = self._tally
        mean = tally.risen_total / tally.risen
        recent = float(self._detector.estimation)
        since = self._timeline.at(tally.fed - int(self._detector.width))
        enough = tally.risen >= _RECOVERY_LOSSES and self._detector.width >= _RECOVERY_LOSSES
        if enough and recent <= tally.reference:
            tally.is_risen = False
            yield self._change(LossSignal.RECOVERED, loss, since, recent)
        elif tally.has_persisted or tally.risen < _PERSISTENCE_LOSSES:
            return
        elif min(mean, recent) > tally.reference:
            tally.has_persisted = True
            yield self._change(LossSignal.PERSISTS, loss, since, mean)

    def _change(self, signal: LossSignal, loss: Loss, since: int, observed: float) -> LossChange:
        value, reference = self._scale.back(observed), self.reference
        rise = (value - reference) / reference if reference > 0 else math.inf
        critical = signal is not LossSignal.RECOVERED and rise >= _CRITICAL_RISE
        return LossChange(
            signal, loss.known_at_us, self._tally.live, since, value, reference, critical
        )

    def _learn_live(self, loss: Loss) -> None:
        learning = self._tally.learning
        learning.append(loss.value)
        if len(learning) < _LEARNED:
            return
        self._tally.learning = []
        self._learn(learning)
        for value in learning:
            self._update(self._scale.forward(value), loss.known_at_us)

    def _learn(self, losses: list[float]) -> None:
        if not self._tally.is_binary:
            mean, deviation = float(np.mean(losses)), float(np.std(losses))
            # A perfect hold-out has no deviation; any loss at all is then a full step.
            self._scale = _Scale(mean, deviation or max(abs(mean), 1e-9))
        self._tally.reference_rows = len(losses)
        self._tally.reference = float(np.mean([self._scale.forward(each) for each in losses]))

    def to_json(self) -> str:
        """The whole state as JSON text."""
        parts = {
            "form": _FORM,
            "tally": asdict(self._tally),
            "scale": asdict(self._scale),
            "timeline": asdict(self._timeline),
            "adwin": adwin.dump(self._detector),
        }
        return json.dumps(parts)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The watch that was stored; CorruptState where it cannot be trusted."""
        try:
            parts: dict[str, Any] = json.loads(text)
            if parts.get("form") != _FORM:
                raise CorruptState("the loss detector was stored in another form")
            tally = _Tally(**parts["tally"])
            watch = cls(is_binary=tally.is_binary)
            watch._tally = tally
            watch._scale = _Scale(**parts["scale"])
            watch._timeline = _Timeline(**parts["timeline"])
            watch._detector = adwin.load(parts["adwin"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CorruptState(f"the loss detector's state is unreadable: {error}") from error
        return watch
