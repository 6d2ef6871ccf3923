"""Why an alert may be, by simple evidence that is named, and what would help."""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType

from homeostat_monitor.domain.judges import Finding, Rule


class Cause(StrEnum):
    """The class of a cause. The names are stored."""

    UNKNOWN = "unknown"
    DATA_BREAK = "data_break"
    COVARIATE = "covariate"
    CONCEPT = "concept"
    LABEL_SHIFT = "label_shift"
    NEW_VERSION = "new_version"
    INFRASTRUCTURE = "infrastructure"


# More rows than this outside of everything the reference knows: another unit, source or season.
_MOSTLY_OUTSIDE = 0.5

_REMEDIES: Mapping[Cause, tuple[str, ...]] = MappingProxyType(
    {
        Cause.DATA_BREAK: (
            "Check the source of the named features: units, joins, codes, delays.",
            "If the new values are here to stay, retrain on rows that have them.",
        ),
        Cause.COVARIATE: (
            "Retrain on a window that contains the new population.",
            "If the loss has not risen, watch it: a shifted input alone need not hurt.",
        ),
        Cause.CONCEPT: (
            "Retrain on the newest truth: inputs are as before, what follows from them changed.",
            "If no candidate is better, look for an input that explains the change.",
        ),
        Cause.UNKNOWN: ("Retrain on the newest truth and compare on rows that neither model saw.",),
    }
)


def remedies(cause: Cause) -> Sequence[str]:
    """What would help, best first."""
    return _REMEDIES[cause]


def cause_of_findings(rule: Rule, breaches: Iterable[Finding]) -> Cause:
    """Nulls, never-seen texts and mostly unknown numbers are broken data; else inputs moved."""
    if rule in (Rule.MISSING_VALUES, Rule.UNSEEN_VALUES):
        return Cause.DATA_BREAK
    if any(each.out_of_range >= _MOSTLY_OUTSIDE for each in breaches):
        return Cause.DATA_BREAK
    # Scores follow from the inputs: the version is fixed.
    return Cause.COVARIATE


def cause_of_loss(open_causes: Iterable[Cause], *, has_evidence: bool) -> Cause:
    """The loss rose: for a reason that the inputs show, or with the inputs as before. Without
    evidence (no window was judged yet) nothing is known of the inputs."""
    causes = set(open_causes)
    for cause in (Cause.DATA_BREAK, Cause.COVARIATE):
        if cause in causes:
            return cause
    return Cause.CONCEPT if has_evidence else Cause.UNKNOWN
