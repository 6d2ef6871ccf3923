"""What the losses of a version say: that they rose, stay risen, or came back."""

from dataclasses import dataclass
from enum import StrEnum


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
    # Known-at time of the loss with which it began, as far as that can be told.
    since_us: int
    observed: float
    reference: float
    is_critical: bool


@dataclass(frozen=True, slots=True)
class Risen:
    """A rise that stands."""

    since_us: int
    # Mean loss since it was told; at that moment, what told it.
    observed: float
    # Losses since it was told.
    rows: int
