"""Why an alert may be: the classes of causes. What speaks for each is weighed in ``diagnosis``."""

from collections.abc import Iterable
from enum import StrEnum


class Cause(StrEnum):
    """The class of a cause. The names are stored."""

    UNKNOWN = "unknown"
    DATA_BREAK = "data_break"
    COVARIATE = "covariate"
    CONCEPT = "concept"
    LABEL_SHIFT = "label_shift"
    NEW_VERSION = "new_version"
    INFRASTRUCTURE = "infrastructure"


# Of a version without a reference nothing is known but that its losses rose.
UNEXPLAINED = "Retrain on the newest truth and compare on rows that neither model saw."


def cause_of_loss(open_causes: Iterable[Cause], *, has_evidence: bool) -> Cause:
    """Of a risen loss where there are no sums to weigh: what alerts on the inputs say that stand
    open; the concept where inputs were judged (``has_evidence``) and none does."""
    causes = set(open_causes)
    for cause in (Cause.DATA_BREAK, Cause.COVARIATE):
        if cause in causes:
            return cause
    return Cause.CONCEPT if has_evidence else Cause.UNKNOWN
