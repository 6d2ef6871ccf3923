"""What was measured of one variant, and medians of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median, quantiles

from homeostat.advise.equivalence import Equality
from homeostat.advise.forms import Variant

_MILLION = 1_000_000
_SECONDS_PER_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Timing:
    """Of runs with so many rows, medians over the rounds."""

    rows: int
    seconds_per_row: float
    cpu_seconds_per_row: float
    # Time of the present form over time of this one, round by round; median and lower quartile.
    # CPU time where the variant runs on one thread (then the two are the same on an idle machine,
    # and a busy one does not blur it), wall time where it runs on several.
    speed_up: float
    speed_up_low: float

    @property
    def rows_per_second(self) -> float:
        """On the threads that the variant has."""
        return 1.0 / self.seconds_per_row

    @property
    def cpu_seconds_per_million(self) -> float:
        """Of predictions."""
        return self.cpu_seconds_per_row * _MILLION

    def cost_per_million(self, cost_per_cpu_hour: float) -> float:
        """In the currency of ``cost_per_cpu_hour``."""
        return self.cpu_seconds_per_million / _SECONDS_PER_HOUR * cost_per_cpu_hour


@dataclass(slots=True)
class Outcome:
    """What came of one variant; filled in as it is measured."""

    variant: Variant
    # One sentence; empty where it was measured.
    failure: str = ""
    equality: Equality | None = None
    timings: Sequence[Timing] = field(default_factory=tuple)
    memory_bytes: int = 0
    load_seconds: float = 0.0
    artifact_bytes: int = 0

    def at(self, rows: int) -> Timing | None:
        """With so many rows at once; None where it was not measured."""
        return next((each for each in self.timings if each.rows == rows), None)


def timing_of(
    rows: int,
    mine: Sequence[Mapping[str, float]],
    present: Sequence[Mapping[str, float]],
    *,
    threads: int,
) -> Timing:
    """Medians; ratios are taken within a round, so that what slows a whole round cancels out."""
    clock = "cpu_seconds" if threads == 1 else "seconds"
    ratios = [theirs[clock] / each[clock] for each, theirs in zip(mine, present, strict=False)]
    return Timing(
        rows,
        median(each["seconds"] for each in mine),
        median(each["cpu_seconds"] for each in mine),
        median(ratios),
        quantiles(ratios, n=4)[0] if len(ratios) > 1 else ratios[0],
    )
