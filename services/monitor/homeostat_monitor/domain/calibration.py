"""From a version's reference to everything that is fixed by it. To add a judge, add it here."""

from homeostat_monitor.domain.errors import UnusableReference
from homeostat_monitor.domain.judges import Judge
from homeostat_monitor.domain.judges.covariate import covariate_judge
from homeostat_monitor.domain.judges.missing import missing_values_judge
from homeostat_monitor.domain.judges.prediction import prediction_judge
from homeostat_monitor.domain.judges.unseen import unseen_values_judge
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.reference import ReferenceCounts, ReferenceRows
from homeostat_monitor.domain.windows import window_length_us


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
