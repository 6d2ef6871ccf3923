"""What an alert means: since when, how much of it is whose, why probably, and what would help.

Pure: a case goes in, a diagnosis comes out; the same case gives the same diagnosis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis.natural import Natural
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.windows.sums import Counts, Layout
from homeostat_monitor.domain.windows.window import Window


@dataclass(frozen=True, slots=True)
class LossEvidence:
    """What the delayed losses say at this moment."""

    # Best guess of when the rise began; None: there is no rise, or it is not of a loss.
    since_us: int | None
    observed: float
    reference: float
    # Losses fed since then.
    rows: int
    # Mean of truth less score, now and in the hold-out (binary and regression).
    bias: float | None = None
    reference_bias: float | None = None
    # Share of each class among the truths, now and in the hold-out (classification).
    priors: Sequence[float] = ()
    reference_priors: Sequence[float] = ()
    # What ``observed`` and ``reference`` are of: a statistic's name.
    name: str = "loss"


@dataclass(frozen=True, slots=True)
class Infrastructure:
    """What else happened around the time."""

    # When the version that is judged took over; None: longer ago than is remembered.
    serving_since_us: int | None = None
    # Rows that came after their window was closed, over all rows of the last windows.
    late_share: float = 0.0
    # Predictions per window over what the calendar leads to expect.
    arrival_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """Everything there is to judge a cause by."""

    rule: Rule
    segment: str
    mode: Mode
    layout: Layout
    # Sums of the reference, as Layout lays them out; of the scores: of honest rows.
    reference: Counts
    # What was measured in the window that opened the alert, of all rules; breaches and others.
    findings: Sequence[Finding]
    # Closed windows, oldest first, the last is the one that opened the alert.
    windows: Sequence[Window]
    # When it opened: the end of the last window, or a loss's known-at time.
    at_us: int
    loss: LossEvidence | None = None
    around: Infrastructure = Infrastructure()
    # Class-conditional sums of the reference, [classes, width]; empty where truths are unknown.
    reference_by_class: Counts | None = None
    # How far windows go by nature, in the reference; None: as far as the windows tell.
    natural: Natural | None = None


class StepKind(StrEnum):
    """What could be done. The names are stored."""

    FIX_UPSTREAM = "fix_upstream"
    RETRAIN = "retrain"
    ROLL_BACK = "roll_back"
    RECALIBRATE = "recalibrate"
    DO_NOTHING = "do_nothing"
    INVESTIGATE = "investigate"


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something that speaks for a cause (weight above 0, in log-odds) or against it."""

    cause: Cause
    weight: float
    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """What could be done, and why it stands where it stands."""

    kind: StepKind
    text: str
    reason: str


@dataclass(frozen=True, slots=True)
class FeatureShare:
    """A feature's part in what happened; the shares of a diagnosis add up to 1."""

    feature: str
    share: float
    finding: Finding


@dataclass(frozen=True, slots=True)
class SegmentShare:
    """A segment's part: ``weight`` is distance times traffic times impact."""

    name: str
    expression: str
    row_share: float
    observed: float
    reference: float
    weight: float
    statistic: str


@dataclass(frozen=True, slots=True)
class ContextResidual:
    """How much of the residuals' variance a column explains that the model does not use."""

    context: str
    explained: float
    explained_before: float
    text: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why an alert may be, and what would help."""

    cause: Cause
    # 0 to 1, against the other classes.
    confidence: float
    # Best guess and 90 % interval of when it began.
    since_us: int
    since_from_us: int
    since_to_us: int
    features: Sequence[FeatureShare]
    evidence: Sequence[Evidence]
    steps: Sequence[Step]
    segments: Sequence[SegmentShare] = ()
    residuals: Sequence[ContextResidual] = ()
    # The rows themselves were looked at.
    is_complete: bool = False
