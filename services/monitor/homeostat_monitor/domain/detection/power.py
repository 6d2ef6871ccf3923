"""What the budget buys: the smallest change of each feature that would be seen in time."""

from collections.abc import Sequence
from dataclasses import dataclass

from homeostat_monitor.domain.reference import ReferenceCounts


@dataclass(frozen=True, slots=True)
class PowerLine:
    """What would be seen of one feature, with probability 0.9, within so many events.

    None: no change of the kind would be seen in that time, or the kind does not apply.
    """

    feature: str
    within_events: int
    # Smallest shift of the mean, in deviations of the reference; numbers and scores.
    shift: float | None
    # Smallest share of nulls, over the reference's own share.
    null_rate: float | None
    # Smallest share of texts that the reference never had.
    unseen_rate: float | None


def power_lines(
    counts: ReferenceCounts, level_per_look: float, within_events: int
) -> Sequence[PowerLine]:
    """One line per feature and one for the scores."""
    return [PowerLine(name, within_events, None, None, None) for name in counts.layout.names]
