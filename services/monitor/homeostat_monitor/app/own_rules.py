"""A person's own thresholds, at every closed window and with truths once in its length."""

from collections.abc import Iterable, Sequence

from homeostat_monitor.app.passing import Pass
from homeostat_monitor.app.watches import losses_of, rolling_of
from homeostat_monitor.domain.alerts.lanes import of_lane
from homeostat_monitor.domain.judges import Finding
from homeostat_monitor.domain.policies.figures import (
    of_findings,
    of_metrics,
    of_window,
    rows_needed,
)
from homeostat_monitor.domain.policies.rules import Measured, PolicyWatch
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.window import Window
from homeostat_monitor.ports import StateKey


async def at_window(
    now: Pass, profile: VersionProfile, segment: str, window: Window, findings: Iterable[Finding]
) -> list[Finding]:
    """How the segment's rules stand after a window; ``findings`` are the others' of it.

    Windows of fewer rows than a rule needs are taken together for it.
    """
    if not _has_rules(now, segment):
        return []
    watch = await _watch(now, segment)
    own = [
        (rule, measured)
        for rule, gathered in watch.gathered(window)
        if (measured := of_window(rule, profile.layout, profile.reference, gathered)) is not None
    ]
    return of_lane(watch.feed(of_findings(findings, window.rows), own), of_truths=False)


async def at_truths(
    now: Pass, segment: str, mark: int, findings: Sequence[Finding] = ()
) -> list[Finding]:
    """How the segment's rules stand at a mark of the truths; nothing within the same window's
    length, so that "windows in a row" means the same for every metric."""
    if not _has_rules(now, segment):
        return []
    watch, profile = await _watch(now, segment), now.version.profile
    if not watch.is_new_window(mark // profile.length_us if profile is not None else mark):
        return []
    losses = await losses_of(now.keeper, now.version, segment)
    measured = [Measured("loss", losses.mean, losses.reference, losses.live, segment=segment)]
    if not segment:
        rolling = await rolling_of(now.keeper, now.version)
        metrics = list(of_metrics(rolling.metrics()))
        rows = max((each.rows for each in metrics), default=0)
        measured += [*metrics, *of_findings(findings, rows)]
    return of_lane(watch.feed(measured), of_truths=True)


def _has_rules(now: Pass, segment: str) -> bool:
    return any(each.segment == segment for each in now.version.policy.rules)


async def _watch(now: Pass, segment: str) -> PolicyWatch:
    policy, profile = now.version.policy, now.version.profile

    def made() -> PolicyWatch:
        if profile is None:
            return PolicyWatch(policy, segment)
        layout, reference = profile.layout, profile.reference
        return PolicyWatch(policy, segment, lambda rule: rows_needed(rule, layout, reference))

    key = StateKey(segment, PolicyWatch.name)
    return await now.keeper.get(key, made, maker=profile or policy)
