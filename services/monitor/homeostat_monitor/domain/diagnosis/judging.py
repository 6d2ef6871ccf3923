"""From a case to its diagnosis: evidence for each class of causes, weighed."""

from dataclasses import replace

from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Case, Diagnosis, Evidence
from homeostat_monitor.domain.diagnosis.likelihoods import Suspect
from homeostat_monitor.domain.diagnosis.mechanisms import Mechanism, mechanisms
from homeostat_monitor.domain.diagnosis.mixture import Mixture, mixture
from homeostat_monitor.domain.diagnosis.picture import Picture, picture_of
from homeostat_monitor.domain.diagnosis.steps import steps_of
from homeostat_monitor.domain.diagnosis.views import View, extended
from homeostat_monitor.domain.diagnosis.weighing import LOOKED_AT, evidence_of, posterior
from homeostat_monitor.domain.windows.layout import SCORE

# A column swap is looked for among so many other features, those that moved most first.
_MOST_PARTNERS = 12


def diagnose(case: Case) -> Diagnosis:
    """Why the alert may be, since when, whose doing it is, and what would help. Pure."""
    picture = picture_of(case)
    explained = {} if case.mode is Mode.TIME_ORDERED else _explained(picture)
    mixed = _mixture(case, picture)
    evidence = evidence_of(case, picture, explained, mixed)
    chances = posterior(evidence)
    cause = max(chances, key=lambda each: chances[each])
    return Diagnosis(
        cause=cause,
        confidence=chances[cause],
        since_us=picture.change.at_us,
        since_from_us=picture.change.from_us,
        since_to_us=picture.change.to_us,
        features=picture.shares,
        evidence=evidence,
        steps=steps_of(case, cause, picture, _looks(evidence), mixed),
    )


def _explained(picture: Picture) -> dict[str, list[Mechanism]]:
    """What could have made each of the first features look as it does."""
    by_distance = sorted(picture.suspects.values(), key=lambda each: -each.view.distance.excess)
    partners: dict[str, Suspect] = {each.name: each for each in by_distance[:_MOST_PARTNERS]}
    return {
        each.feature: mechanisms(picture.suspects[each.feature], partners)
        for each in picture.shares[:LOOKED_AT]
    }


def _mixture(case: Case, picture: Picture) -> Mixture | None:
    if case.reference_by_class is None or not picture.rows:
        return None
    views = [_alone(each.view, picture) for each in picture.suspects.values()]
    views += [] if picture.score is None else [_alone(picture.score, picture)]
    by_class = [extended(case.layout, each.name, case.reference_by_class) for each in views]
    if picture.score is not None:
        # Rows that the model was trained on have no honest score: that is no null.
        by_class[-1][..., -1] = 0
    return mixture(views, by_class)


def _alone(view: View, picture: Picture) -> View:
    """Features that depend on each other say the same twice; scores say what features do."""
    shared = sum(each.before**2 for each in picture.pairs if view.name in each.features)
    return replace(view, dispersion=view.dispersion * (1 + (shared or view.name == SCORE)))


def _looks(evidence: list[Evidence]) -> list[str]:
    """What speaks for broken data, as far as it is about features."""
    return [each.text for each in evidence if each.cause is Cause.DATA_BREAK and each.weight >= 1.0]
