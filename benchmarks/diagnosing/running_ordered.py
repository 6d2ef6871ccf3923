"""An episode in order of time through production code: profile, detectors, case, diagnosis."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.diagnosing.ordered import OrderedEpisode, Stream

from homeostat_monitor.domain.calibration import profile_of
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Case, Diagnosis, Infrastructure, LossEvidence
from homeostat_monitor.domain.diagnosis.judging import diagnose
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.losses.watch import LossSignal, LossWatch
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.reference import Holdout, ReferenceRows
from homeostat_monitor.domain.windows.sums import Rows
from homeostat_monitor.domain.windows.window import Window

_POLICY = Policy(mode=Mode.TIME_ORDERED)
# Windows that a diagnosis looks back on, and those whose alerts still stand.
_HISTORY, _OPEN = 40, 2


@dataclass(frozen=True, slots=True)
class JudgedInOrder:
    """An alert with its diagnosis; ``is_false``: it came before anything had happened."""

    episode: OrderedEpisode
    rule: Rule
    at_us: int
    diagnosis: Diagnosis
    is_false: bool = False


def profile_in_order(reference: Stream) -> VersionProfile:
    """The second half was held out."""
    rows = len(reference.scores)
    held = np.arange(rows) >= rows // 2
    times = reference.times_us
    rows_of = ReferenceRows(
        times,
        reference.features(),
        reference.scores,
        held,
        Holdout(reference.losses[held], times[held]),
        truths=reference.truths,
    )
    return profile_of(rows_of, policy=_POLICY)


def judged_in_order(
    episodes: Iterable[OrderedEpisode],
) -> Iterator[tuple[OrderedEpisode, JudgedInOrder | None, list[JudgedInOrder]]]:
    """Per episode the first alert after the change, and the false ones before it."""
    known: tuple[Stream, VersionProfile] | None = None
    for episode in episodes:
        if known is None or known[0] is not episode.reference:
            known = (episode.reference, profile_in_order(episode.reference))
        yield episode, *_judged(episode, known[1])


def _judged(
    episode: OrderedEpisode, profile: VersionProfile
) -> tuple[JudgedInOrder | None, list[JudgedInOrder]]:
    windows = _windows(profile, episode.stream)
    first = next(at for at, each in enumerate(windows) if each.end_us > episode.change_us)
    if episode.is_new_version:
        # It knows nothing of what was served before it.
        windows, first = windows[first:], 0
    found: list[list[Finding]] = [[] for _ in windows]
    for pristine in profile.detectors[""]:
        pristine.detector.restore(pristine.state)
        for into, each in zip(found, pristine.detector.feed(windows), strict=True):
            into.extend(each)
    alerts = [
        _of_window(episode, profile, windows, at, findings)
        for at, findings in enumerate(found)
        if any(each.is_breach for each in findings)
    ]
    after = [each for each in alerts if each.at_us > episode.change_us]
    false = [each for each in alerts if each.at_us <= episode.change_us]
    if episode.of_losses:
        return _of_losses(episode, profile, windows, found), false
    return (after[0] if after else None), false


def _windows(profile: VersionProfile, stream: Stream) -> list[Window]:
    length = profile.length_us
    starts, groups = np.unique(stream.times_us // length, return_inverse=True)
    columns = tuple(stream.features().values())
    rows = Rows(groups.astype(np.intp), len(starts), columns, stream.scores)
    sums = profile.counter.count(rows)
    return [
        Window(start, start + length, each)
        for start, each in zip((starts * length).tolist(), sums, strict=True)
    ]


def _case(
    episode: OrderedEpisode,
    profile: VersionProfile,
    rule: Rule,
    windows: Sequence[Window],
    findings: Sequence[Finding],
    loss: LossEvidence | None = None,
    at_us: int = 0,
) -> Case:
    serving = episode.change_us if episode.is_new_version else 0
    return Case(
        rule=rule,
        segment="",
        mode=profile.mode,
        layout=profile.layout,
        reference=profile.reference,
        findings=findings,
        windows=windows[-_HISTORY:],
        at_us=at_us or windows[-1].end_us,
        loss=loss,
        around=Infrastructure(serving_since_us=serving),
        reference_by_class=profile.reference_by_class,
        natural=profile.norm("").natural,
    )


def _of_window(
    episode: OrderedEpisode,
    profile: VersionProfile,
    windows: Sequence[Window],
    at: int,
    findings: Sequence[Finding],
) -> JudgedInOrder:
    rule = max((each for each in findings if each.is_breach), key=lambda each: each.excess).rule
    case = _case(episode, profile, rule, windows[: at + 1], findings)
    is_false = windows[at].end_us <= episode.change_us
    return JudgedInOrder(episode, rule, windows[at].end_us, diagnose(case), is_false)


def _of_losses(
    episode: OrderedEpisode,
    profile: VersionProfile,
    windows: Sequence[Window],
    found: Sequence[Sequence[Finding]],
) -> JudgedInOrder | None:
    stream = episode.stream
    watch = LossWatch.seeded(profile.holdout, is_binary=True)
    decisions = (stream.scores > 0.5).astype(np.float64)
    at = stream.times_us
    truths = Truths(at, at, stream.losses, stream.scores, decisions, stream.truths)
    rises = [each for each in watch.feed(truths) if each.signal is LossSignal.ROSE]
    after = [each for each in rises if each.at_us > episode.change_us]
    if not after:
        return None
    # What is said when the day's window has been judged; an alert that came before is told anew.
    rise = after[0]
    mark = next((each.end_us for each in windows if each.end_us >= rise.at_us), rise.at_us)
    closed = [number for number, each in enumerate(windows) if each.end_us <= mark]
    open_findings = [each for number in closed[-_OPEN:] for each in found[number] if each.is_breach]
    loss = LossEvidence(rise.since_us, rise.observed, rise.reference, rise.fed)
    until = windows[: closed[-1] + 1] if closed else []
    case = _case(episode, profile, Rule.PERFORMANCE, until, open_findings, loss, rise.at_us)
    return JudgedInOrder(episode, Rule.PERFORMANCE, rise.at_us, diagnose(case))
