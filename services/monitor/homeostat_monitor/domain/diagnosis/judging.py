"""From a case to its diagnosis: evidence for each class of causes, weighed."""

from collections.abc import Sequence

from homeostat_monitor.domain.causes import Cause, cause_of_findings, cause_of_loss
from homeostat_monitor.domain.diagnosis import Case, Diagnosis, FeatureShare, Step, StepKind
from homeostat_monitor.domain.judges import Finding, Rule

_LOSS_RULES = frozenset({Rule.PERFORMANCE, Rule.CONCEPT})


def diagnose(case: Case) -> Diagnosis:
    """Why the alert may be, since when, whose doing it is, and what would help. Pure."""
    breaches = sorted(
        (each for each in case.findings if each.is_breach and each.feature),
        key=lambda each: (-each.excess, each.feature),
    )
    cause = _cause(case, breaches)
    start = case.windows[-1].start_us if case.windows else case.at_us
    since = case.loss.since_us if case.loss and case.rule in _LOSS_RULES else None
    since = start if since is None else since
    return Diagnosis(
        cause=cause,
        confidence=0.5,
        since_us=since,
        since_from_us=min(since, start),
        since_to_us=case.at_us,
        features=_shares(breaches),
        evidence=(),
        steps=(Step(StepKind.INVESTIGATE, "Look at the named features.", "they moved most"),),
    )


def _cause(case: Case, breaches: Sequence[Finding]) -> Cause:
    if case.rule not in _LOSS_RULES:
        return cause_of_findings(case.rule, breaches)
    seen = {cause_of_findings(each.rule, [each]) for each in breaches}
    return cause_of_loss(seen, has_evidence=bool(case.windows))


def _shares(breaches: Sequence[Finding]) -> list[FeatureShare]:
    largest: dict[str, Finding] = {}
    for each in breaches:
        largest.setdefault(each.feature, each)
    total = sum(each.excess for each in largest.values())
    return [FeatureShare(name, each.excess / total, each) for name, each in largest.items()]
