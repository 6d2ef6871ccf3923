"""A version as the monitor sees it: layout of its sums, window length, judges, hold-out losses."""

from dataclasses import dataclass

from homeostat_monitor.domain.judges import Judge
from homeostat_monitor.domain.reference import Holdout
from homeostat_monitor.domain.sums import Layout


@dataclass(frozen=True, slots=True)
class VersionProfile:
    """Everything that is fixed by a version's reference. The same reference gives the same."""

    layout: Layout
    length_us: int
    judges: tuple[Judge, ...]
    holdout: Holdout
    remarks: tuple[str, ...]
