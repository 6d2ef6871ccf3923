"""A rise of the loss that has been told and not been answered."""

from dataclasses import dataclass

# A level that is accepted may show no deviation at all.
_LEAST_VARIANCE = 1e-6


@dataclass(slots=True)
class Rise:
    """Scaled losses since it was told."""

    since_us: int
    # Mean of the losses that told it.
    told: float
    rows: int = 0
    total: float = 0.0
    squares: float = 0.0
    has_persisted: bool = False

    def take(self, value: float) -> None:
        """One more scaled loss."""
        self.rows += 1
        self.total += value
        self.squares += value * value

    @property
    def mean(self) -> float:
        """Since it was told; at that moment, of what told it."""
        return self.total / self.rows if self.rows else self.told

    @property
    def variance(self) -> float:
        """Of one loss around that mean; never 0."""
        return max(self.squares / max(self.rows, 1) - self.mean * self.mean, _LEAST_VARIANCE)
