"""A version as the monitor sees it: what its sums mean, how its windows are judged, and by whom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from homeostat_monitor.domain.detection import Detector, Mode
from homeostat_monitor.domain.diagnosis.natural import Natural
from homeostat_monitor.domain.segments.expressions import Expression
from homeostat_monitor.domain.windows.bins import NumberBins
from homeostat_monitor.domain.windows.reference import Holdout
from homeostat_monitor.domain.windows.sums import Counter, Counts, Layout

# How a profile's remark on one segment begins.
OF_A_SEGMENT = "the segment "


class Pristine(NamedTuple):
    """A detector and its state before the first window."""

    detector: Detector
    state: bytes


@dataclass(frozen=True, slots=True)
class Norm:
    """What is normal of a segment: its own rows of the reference, those of each class of truth,
    and how far its windows go by nature (None: in i.i.d. mode)."""

    reference: Counts
    by_class: Counts | None
    natural: Natural | None


@dataclass(frozen=True, slots=True)
class VersionProfile:
    """Everything that is fixed by a version's reference and its model's policy.

    The same reference and policy give the same. The detectors are there once: who uses them puts
    the state of the moment into them first.
    """

    layout: Layout
    counter: Counter
    length_us: int
    mode: Mode
    mode_reason: str
    # The reference's sums, and those of each class of truth.
    reference: Counts
    reference_by_class: Counts | None
    # What a diagnosis compares a segment with, by its name; "" is all rows. A segment of which the
    # reference has too few rows has none.
    norms: Mapping[str, Norm]
    # Per segment its detectors; "" is all rows.
    detectors: Mapping[str, tuple[Pristine, ...]]
    # Of the named segments.
    expressions: Mapping[str, Expression]
    # How coarse old windows become (history.py).
    history_levels: int
    score_bins: NumberBins
    holdout: Holdout
    # Of the named segments that have enough rows in it.
    segment_holdouts: Mapping[str, Holdout]
    remarks: tuple[str, ...]
    budget_per_month: float
    policy_revision: int

    def norm(self, segment: str) -> Norm:
        """Of the segment; of all rows where the reference has too few of it."""
        return self.norms.get(segment, self.norms[""])

    @property
    def fewest_rows(self) -> int | None:
        """Of a window to be judged; None: as windows.py says."""
        return 1 if self.mode is Mode.IID else None
