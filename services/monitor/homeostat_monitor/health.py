"""How a version does, from what its watches remember."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeostat_monitor.app.watches import (
    LOSSES,
    fresh_estimate,
    fresh_labels,
    fresh_rolling,
)
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.labels.watch import LabelWatch
from homeostat_monitor.domain.losses.watch import LossWatch
from homeostat_monitor.domain.performance.estimate import Estimate
from homeostat_monitor.domain.performance.rolling import Metric, Rolling
from homeostat_monitor.ports import KnownVersion, StateKey


@dataclass(frozen=True, slots=True)
class LossHealth:
    """Truths fed, their mean loss, and what it is compared with; 0 where it is not known."""

    losses: int
    mean: float
    reference: float


def losses_of(states: Mapping[StateKey, bytes], segment: str = "") -> LossHealth | None:
    """Of one segment; None before its first truth. CorruptState where it cannot be trusted."""
    state = states.get(StateKey(segment, LOSSES))
    if state is None:
        return None
    # A state says of itself what kind of loss it is of.
    watch = LossWatch.seeded(None, is_binary=True)
    watch.restore(state)
    return LossHealth(
        watch.live,
        0.0 if math.isnan(watch.mean) else watch.mean,
        0.0 if watch.is_learning else watch.reference,
    )


def metrics_of(states: Mapping[StateKey, bytes], known: KnownVersion) -> Sequence[Metric]:
    """Rolling metrics with their intervals beside the hold-out's; none before the first truth."""
    state = states.get(StateKey("", Rolling.name))
    if state is None:
        return ()
    rolling = fresh_rolling(known)
    try:
        rolling.restore(state)
    except CorruptState:
        # The next truths rebuild it, and say so.
        return ()
    return rolling.metrics()


def estimate_of(states: Mapping[StateKey, bytes], known: KnownVersion) -> Estimate | None:
    """The estimated loss as it stands; None where there is none, or its state is damaged."""
    state, profile = states.get(StateKey("", Estimate.name)), known.profile
    if state is None or profile is None:
        return None
    watch = fresh_estimate(known, profile)
    return watch if _restored(watch, state) else None


def labels_of(states: Mapping[StateKey, bytes], known: KnownVersion) -> LabelWatch | None:
    """Delay and coverage of truths as they stand; None where there is none."""
    state, profile = states.get(StateKey("", LabelWatch.name)), known.profile
    if state is None or profile is None:
        return None
    watch = fresh_labels(known, profile)
    return watch if _restored(watch, state) else None


def _restored(watch: Estimate | LabelWatch, state: bytes) -> bool:
    try:
        watch.restore(state)
    except CorruptState:
        # The next truths rebuild it, and say so.
        return False
    return True
