"""Judging closed windows, segment by segment, at the marks that closed them."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace

from homeostat_monitor.app.diagnosing import Past, with_reasons
from homeostat_monitor.app.own_rules import at_window
from homeostat_monitor.app.passing import Pass, accepted_key
from homeostat_monitor.app.watches import estimate_of, labels_of
from homeostat_monitor.domain.alerts.alert import LONGEST_SPAN_ROWS, Calm, Moment, after_window
from homeostat_monitor.domain.detection import Detector, Mode
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.profile import Pristine, VersionProfile
from homeostat_monitor.domain.windows.history import kept
from homeostat_monitor.domain.windows.looks import Look, Patient, Quiet, parts
from homeostat_monitor.domain.windows.sums import SCORE, Counts
from homeostat_monitor.domain.windows.window import (
    FEWEST_ROWS,
    Skipped,
    Window,
    due_windows,
    merge,
)
from homeostat_monitor.ports import StateKey, StoredSum

_BEFORE_ALL = -(2**63)
# More rows than this out of range are no tail.
_MOST_TAIL = 0.05
# More copies than this many times the threshold are not due to values that are missing; nor is so
# large a share of copies, since each row sent twice makes it a half, wherever the threshold lies.
_MOST_ALIKE = 2.0
_NEARLY_ALL_TWICE = 0.45
# Every so many windows old ones are joined.
_JOIN_EVERY = 64


async def judge_windows(now: Pass, profile: VersionProfile, marks: Sequence[int]) -> None:
    """Everything that the marks have closed."""
    length = profile.length_us
    closed_until = marks[-1] - marks[-1] % length
    before = now.standing.closed_until_us
    if before is not None and before >= closed_until:
        return
    sums = await _sums(now, profile, closed_until)
    first = now.standing.judge_from_us
    came = await _judge_segment(now, profile, "", merge(sums.pop("", [])), marks, ())
    came = came if first is None else [first, *came]
    for segment in profile.expressions:
        windows = merge(sums.pop(segment, []))
        await _judge_segment(now, profile, segment, windows, marks, came)
    for segment in sums:
        # The policy has no such segment any more.
        await now.tx.drop_sums(now.standing.subject, segment, closed_until)
    now.standing = replace(now.standing, closed_until_us=closed_until, window_us=length)


async def _sums(
    now: Pass, profile: VersionProfile, until_us: int
) -> dict[str, list[tuple[int, Counts]]]:
    stored: list[StoredSum] = await now.tx.sums_until(now.standing.subject, until_us)
    by_segment: dict[str, list[tuple[int, Counts]]] = {}
    for each in stored:
        if each.layout == profile.layout.fingerprint:
            by_segment.setdefault(each.segment, []).append((each.start_us, each.sums))
    if any(each.layout != profile.layout.fingerprint for each in stored):
        await now.tx.remark(now.standing.subject, ["sums of another layout were left out"])
    return by_segment


async def _judge_segment(
    now: Pass,
    profile: VersionProfile,
    segment: str,
    sums: Mapping[int, Counts],
    marks: Sequence[int],
    came: Sequence[int],
) -> list[int]:
    """``came``: of a named segment, ends of the spans in which any rows came, ascending. Those of
    this one are returned."""
    judge_from = now.standing.judge_from_us
    due = list(
        due_windows(
            sums,
            length_us=profile.length_us,
            from_us=_BEFORE_ALL if segment or judge_from is None else judge_from,
            until_us=marks[-1] - marks[-1] % profile.length_us,
            fewest_rows=1 if profile.mode is Mode.IID else FEWEST_ROWS,
        )
    )
    windows = [each for each in due if isinstance(each, Window)]
    since = judge_from if not segment else await _fed_until(now, profile, segment)
    quiet = Quiet(profile.length_us, sorted(sums), since, now.judged_until_us)
    for part, looks in parts(windows, marks, quiet):
        await _judge_part(now, profile, segment, part, marks)
        for look in looks:
            # Where nothing came at all, a segment that has no rows either is no news.
            last = bisect_right(came, look.at_us)
            if last or not segment:
                await _look(now, profile, segment, look, came[last - 1] if segment else look.at_us)
    if due:
        await _note(now, profile, segment, due, windows)
    return [each.end_us for each in due]


async def _judge_part(
    now: Pass,
    profile: VersionProfile,
    segment: str,
    windows: Sequence[Window],
    marks: Sequence[int],
) -> None:
    past = _past(now)
    found = await _fed(now, profile, segment, windows)
    for window, findings in zip(windows, found, strict=True):
        mark = marks[bisect_left(marks, window.end_us)]
        past.fresh.setdefault(segment, []).append(window)
        own = await at_window(now, profile, segment, window, findings)
        await _tell(now, profile, segment, window, now.said([*findings, *own]), mark)
        if not segment:
            now.standing = replace(
                now.standing,
                windows_judged=now.standing.windows_judged + 1,
                first_judged_us=now.standing.first_judged_us or mark,
            )


async def _look(
    now: Pass, profile: VersionProfile, segment: str, look: Look, until_us: int
) -> None:
    """Nothing came since the last window: is that as it should be until then?"""
    for detector in profile.detectors[segment]:
        part = await _detector(now, segment, detector)
        finding = part.overdue(until_us) if isinstance(part, Patient) else None
        if finding is not None:
            nothing = Window(look.since_us, look.at_us, profile.layout.empty())
            await _tell(now, profile, segment, nothing, now.said([finding]), look.mark_us)


async def _fed_until(now: Pass, profile: VersionProfile, segment: str) -> int | None:
    """The end of the segment's last window; None before its first."""
    for each in profile.detectors[segment]:
        part = await _detector(now, segment, each)
        if isinstance(part, Patient):
            return part.until_us
    return None


async def _note(
    now: Pass,
    profile: VersionProfile,
    segment: str,
    due: Sequence[Window | Skipped],
    windows: Sequence[Window],
) -> None:
    """What was judged is kept for those who look back, and no longer waits."""
    subject, tx = now.standing.subject, now.tx
    for each in due:
        if isinstance(each, Skipped) and not segment:
            await tx.tally(subject, {"skipped_rows": each.rows})
            await tx.remark(subject, ["a span with too few rows was not judged"])
    await tx.drop_sums(subject, segment, due[-1].end_us)
    layout = profile.layout.fingerprint
    await tx.add_history(subject, layout, [(segment, each) for each in windows])
    if segment:
        return
    now.judged.windows += len(windows)
    now.standing = replace(now.standing, judge_from_us=due[-1].end_us)
    judged = now.standing.windows_judged
    if judged // _JOIN_EVERY > (judged - len(windows)) // _JOIN_EVERY:
        for name in profile.detectors:
            await _join(now, profile, name)


async def _join(now: Pass, profile: VersionProfile, segment: str) -> None:
    subject, layout = now.standing.subject, profile.layout.fingerprint
    old = await now.tx.history(subject, segment, layout)
    new = kept(
        old,
        at_us=now.standing.judge_from_us or 0,
        length_us=profile.length_us,
        levels=profile.history_levels,
    )
    if len(new) < len(old):
        await now.tx.replace_history(subject, segment, layout, new)


async def _fed(
    now: Pass, profile: VersionProfile, segment: str, windows: Sequence[Window]
) -> list[list[Finding]]:
    """Per window what all detectors of the segment found."""
    found: list[list[Finding]] = [[] for _ in windows]
    if not windows:
        return found
    for each in profile.detectors[segment]:
        part = await _detector(now, segment, each)
        for into, findings in zip(found, part.feed(windows), strict=True):
            into.extend(findings)
    if not segment:
        await _estimated(now, profile, windows, found)
    return found


async def _detector(now: Pass, segment: str, pristine: Pristine) -> Detector:
    detector, state = pristine
    key = StateKey(segment, detector.name)
    return await now.keeper.get(key, lambda: detector, maker=detector, pristine=state)


async def _estimated(
    now: Pass, profile: VersionProfile, windows: Sequence[Window], found: list[list[Finding]]
) -> None:
    """What needs scores and counts of windows besides truths."""
    labels = await labels_of(now.keeper, now.version, profile)
    labels.predicted({each.start_us: each.rows for each in windows})
    estimate = await estimate_of(now.keeper, now.version, profile)
    for window, into in zip(windows, found, strict=True):
        scores = profile.layout.histogram(SCORE, window.sums)
        estimate.window(window.start_us, window.end_us, scores)
        into.extend(estimate.findings())


async def _tell(
    now: Pass,
    profile: VersionProfile,
    segment: str,
    window: Window,
    findings: Sequence[Finding],
    mark: int,
) -> None:
    moved = _moved(now, segment, findings)
    has_holes = any(each.is_breach and each.rule is Rule.MISSING_VALUES for each in findings)
    findings = [each for each in findings if not _follows(each, moved, has_holes=has_holes)]
    for rule in dict.fromkeys(each.rule for each in findings):
        after = after_window(
            now.book.get(rule, segment),
            [each for each in findings if each.rule is rule],
            subject=now.standing.subject,
            window_start_us=window.start_us,
            moment=Moment(mark, mark),
            taken=now.book.ids,
            rows=window.rows,
            calm=Calm(rows=LONGEST_SPAN_ROWS) if profile.mode is Mode.IID else Calm(),
        )
        if after is not None and after.is_open and now.book.is_news(after):
            after = replace(after, mode=profile.mode, budget_per_month=profile.budget_per_month)
            after = await with_reasons(_past(now), after, findings, window)
        now.book.put(after)


def _moved(now: Pass, segment: str, findings: Sequence[Finding]) -> set[str]:
    """Features whose distribution is known to have moved."""
    moved = {each.feature for each in findings if each.is_breach and each.rule is Rule.COVARIATE}
    alert = now.book.get(Rule.COVARIATE, segment)
    if alert is not None and alert.is_open:
        moved.update(each.feature for each in alert.shares)
    accepted = now.standing.accepted
    moved.update(
        each.feature for each in findings if accepted_key(each, Rule.COVARIATE) in accepted
    )
    return moved


def _follows(finding: Finding, moved: set[str], *, has_holes: bool) -> bool:
    """What is no second alert: where a distribution moves its tail leaves the known range too, and
    rows that lack the same values are more alike."""
    if not finding.is_breach:
        return False
    if finding.rule is Rule.DUPLICATES:
        most = min(_MOST_ALIKE * finding.threshold, _NEARLY_ALL_TWICE)
        return has_holes and finding.observed < most
    is_tail = finding.rule is Rule.OUT_OF_RANGE and finding.observed < _MOST_TAIL
    return is_tail and finding.feature in moved


def _past(now: Pass) -> Past:
    if now.past is None:
        raise TypeError("windows are judged by a profile")
    return now.past
