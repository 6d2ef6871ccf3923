"""Cases for the diagnosis: what is known at the moment an alert is told."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from homeostat_monitor.domain.alerts.alert import Alert, diagnosed
from homeostat_monitor.domain.detection.quality import TIMES_FEWER
from homeostat_monitor.domain.diagnosis import Case, Diagnosis, Infrastructure, LossEvidence
from homeostat_monitor.domain.diagnosis.judging import diagnose
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.history import coarse, kept
from homeostat_monitor.domain.windows.window import Window
from homeostat_monitor.ports import Standing, Transaction


@dataclass(slots=True)
class Past:
    """Judged windows of one version, read only when something is to be told."""

    standing: Standing
    profile: VersionProfile
    tx: Transaction
    # Judged in this transaction, by segment.
    fresh: dict[str, list[Window]] = field(default_factory=dict)
    _stored: dict[str, list[Window]] = field(default_factory=dict)

    async def until(self, segment: str, window: Window) -> list[Window]:
        """Up to and with this one, as they are kept at its end."""
        profile = self.profile
        windows = [each for each in await self._all(segment) if each.end_us <= window.end_us]
        return kept(
            windows,
            at_us=window.end_us,
            length_us=profile.length_us,
            levels=profile.history_levels,
        )

    async def before(self, segment: str, at_us: int) -> list[Window]:
        """Whole coarse blocks that ended by then, whatever was judged since."""
        profile = self.profile
        return coarse(
            await self._all(segment),
            before_us=at_us,
            length_us=profile.length_us,
            levels=profile.history_levels,
        )

    async def _all(self, segment: str) -> list[Window]:
        if segment not in self._stored:
            subject, layout = self.standing.subject, self.profile.layout.fingerprint
            self._stored[segment] = await self.tx.history(subject, segment, layout)
        return [*self._stored[segment], *self.fresh.get(segment, ())]


def case_of_window(
    past: Past, alert: Alert, findings: Sequence[Finding], windows: Sequence[Window]
) -> Case:
    """``windows`` end with the one that is told of."""
    profile, norm = past.profile, past.profile.norm(alert.segment)
    return Case(
        rule=alert.rule,
        segment=alert.segment,
        mode=profile.mode,
        layout=profile.layout,
        reference=norm.reference,
        findings=findings,
        windows=windows,
        at_us=windows[-1].end_us if windows else alert.moment.watermark_us,
        around=_around(past.standing, findings),
        reference_by_class=norm.by_class,
        natural=norm.natural,
    )


async def with_reasons(
    past: Past, alert: Alert, findings: Sequence[Finding], window: Window
) -> Alert:
    """An alert on the inputs that is about to be told."""
    case = case_of_window(past, alert, findings, await past.until(alert.segment, window))
    diagnosis = diagnose(case)
    if not window.rows:
        # A silence begins where the last row was: no window shows it.
        diagnosis = replace(
            diagnosis,
            since_us=window.start_us,
            since_from_us=window.start_us,
            since_to_us=window.end_us,
        )
    return diagnosed(alert, diagnosis)


async def diagnosis_of_loss(
    past: Past,
    *,
    rule: Rule,
    segment: str,
    at_us: int,
    mark_us: int,
    evidence: LossEvidence,
    witnesses: Sequence[Alert],
) -> Diagnosis:
    """Why the truths say what they say. ``witnesses``: alerts on the inputs that stand open."""
    standing, profile, norm = past.standing, past.profile, past.profile.norm(segment)
    findings = [found for each in witnesses for found in each.seen_at(mark_us)]
    is_seen = standing.first_judged_us is not None and standing.first_judged_us <= mark_us
    # Windows of a segment without a norm say nothing: it may differ from all rows by nature.
    is_seen = is_seen and segment in ("", *profile.norms)
    case = Case(
        rule=rule,
        segment=segment,
        mode=profile.mode,
        layout=profile.layout,
        reference=norm.reference,
        findings=findings,
        windows=await past.before(segment, mark_us) if is_seen else (),
        at_us=at_us,
        loss=evidence,
        around=_around(standing, findings),
        reference_by_class=norm.by_class,
        natural=norm.natural,
    )
    return diagnose(case)


def _around(standing: Standing, findings: Sequence[Finding]) -> Infrastructure:
    rate = next((each for each in findings if each.rule is Rule.ARRIVAL_RATE), None)
    return Infrastructure(
        serving_since_us=standing.serving_since_us,
        arrival_ratio=None if rate is None else _ratio(rate),
    )


def _ratio(rate: Finding) -> float | None:
    """Rows that came over rows that were expected; a finding says how many times fewer or more."""
    if rate.observed <= 0 or rate.reference <= 0:
        return None
    times = rate.observed / rate.reference
    return 1 / times if rate.statistic == TIMES_FEWER else times
