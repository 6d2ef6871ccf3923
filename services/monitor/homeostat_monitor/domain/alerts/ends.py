"""How alerts end that nothing measured ends: by another version, or by tries that found nothing."""

from dataclasses import replace

from homeostat_monitor.domain.alerts.alert import Alert, Moment, Resolution, resolved


def superseded(alert: Alert, *, by_version: int | None, moment: Moment) -> Alert:
    """Another version serves."""
    by = f"version {by_version}" if by_version is not None else "another version"
    return resolved(alert, Resolution.SUPERSEDED, f"{by} serves now", moment)


def after_run_without_candidate(alert: Alert, *, enough: int, moment: Moment) -> Alert:
    """A retraining found nothing better; after ``enough`` of them the level is the new normal."""
    count = alert.runs_without_candidate + 1
    alert = replace(alert, runs_without_candidate=count)
    if count < enough or not alert.is_open:
        return alert
    text = f"no better model was found in {count} tries; the present level is the new normal"
    return resolved(alert, Resolution.ACCEPTED, text, moment)
