"""How a version does, from what its watches remember."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeostat_monitor.app.watches import LOSSES
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.losses import LossWatch
from homeostat_monitor.domain.performance import Metric, Rolling
from homeostat_monitor.domain.truths import Task
from homeostat_monitor.ports import StateKey


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


def metrics_of(states: Mapping[StateKey, bytes], task: Task) -> Sequence[Metric]:
    """Rolling metrics with their intervals; none before the first truth."""
    state = states.get(StateKey("", Rolling.name))
    if state is None:
        return ()
    rolling = Rolling.seeded(None, task=task)
    try:
        rolling.restore(state)
    except CorruptState:
        # The next truths rebuild it, and say so.
        return ()
    return rolling.metrics()
