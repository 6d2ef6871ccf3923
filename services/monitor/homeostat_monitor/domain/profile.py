"""A version as the monitor sees it: layout of its sums, window length, judges, hold-out losses."""

from dataclasses import dataclass

from homeostat_monitor.domain.errors import UnusableReference
from homeostat_monitor.domain.judges import Judge
from homeostat_monitor.domain.judges.covariate import covariate_judge
from homeostat_monitor.domain.judges.missing import missing_values_judge
from homeostat_monitor.domain.judges.prediction import prediction_judge
from homeostat_monitor.domain.judges.unseen import unseen_values_judge
from homeostat_monitor.domain.reference import Holdout, ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.sums import Layout
from homeostat_monitor.domain.windows import window_length_us


@dataclass(frozen=True, slots=True)
class VersionProfile:
    """Everything that is fixed by a version's reference. The same reference gives the same."""

    layout: Layout
    length_us: int
    judges: tuple[Judge, ...]
    holdout: Holdout
    remarks: tuple[str, ...]


def profile_of(reference: ReferenceRows, *, length_us: int | None = None) -> VersionProfile:
    """Calibrates all judges. ``length_us`` fixes the window; UnusableReference without rows."""
    if not reference.rows:
        raise UnusableReference("the reference profile has no rows")
    counts = ReferenceCounts(reference)
    judges: tuple[Judge, ...] = (
        missing_values_judge(counts),
        unseen_values_judge(counts),
        covariate_judge(counts),
        prediction_judge(counts),
    )
    return VersionProfile(
        layout=counts.layout,
        length_us=length_us or window_length_us(reference.event_times_us),
        judges=judges,
        holdout=reference.holdout,
        remarks=tuple(remark for judge in judges for remark in judge.remarks),
    )
