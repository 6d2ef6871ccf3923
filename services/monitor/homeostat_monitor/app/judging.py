"""Judging what is due: closed windows, and losses that the watermark has passed, mark by mark.

Marks are taken one by one in their order, so that what is found does not depend on how many of
them one poll brought.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from homeostat_monitor.domain.alerts import (
    Alert,
    Moment,
    Subject,
    after_losses,
    after_window,
)
from homeostat_monitor.domain.causes import cause_of_loss
from homeostat_monitor.domain.errors import CorruptState, MonitorError
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses import Loss, LossChange, LossWatch
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.sums import Counts
from homeostat_monitor.domain.windows import Skipped, Window, due_windows, merge
from homeostat_monitor.ports import BlockOfLosses, KnownVersion, Standing, Transaction

# Marks judged in one transaction: bounds its length when much is due.
_MOST_MARKS = 200
_BEFORE_ALL = -(2**63)


class VersionNotKnown(MonitorError):
    """A version is watched whose reference was not asked for yet."""


@dataclass(slots=True)
class Judged:
    """What one pass did."""

    alerts: list[Alert] = field(default_factory=list)
    windows: int = 0
    losses: int = 0
    # There may be more due.
    is_full: bool = False


class _Book:
    """The open alerts of one version, and what changed about them."""

    def __init__(self, subject: Subject, alerts: Iterable[Alert]) -> None:
        self._subject = subject
        self._by_rule = {each.rule: each for each in alerts}
        self.told: list[Alert] = []
        self._changed: dict[str, Alert] = {}

    def get(self, rule: Rule) -> Alert | None:
        return self._by_rule.get(rule)

    def put(self, rule: Rule, after: Alert | None) -> None:
        before = self._by_rule.get(rule)
        if after is None or after is before:
            return
        self._by_rule[rule] = after
        self._changed[after.alert_id] = after
        is_same = before is not None and before.alert_id == after.alert_id
        if not is_same or before is None or before.revision != after.revision:
            self.told.append(after)

    async def save(self, tx: Transaction) -> None:
        await tx.save_alerts(list(self._changed.values()))
        self._changed.clear()


async def judge_model(
    model_name: str, known: Mapping[Subject, KnownVersion], *, tx: Transaction
) -> Judged:
    """Everything due of one model; VersionNotKnown if a watched version is not in ``known``."""
    model = await tx.lock_model(model_name)
    window_marks, loss_marks = await tx.due_marks(model, most=_MOST_MARKS)
    judged = Judged(is_full=len(window_marks) == _MOST_MARKS or len(loss_marks) == _MOST_MARKS)
    if not window_marks and not loss_marks:
        return judged
    for standing in await tx.watched(model_name):
        version = known.get(standing.subject)
        if version is None:
            raise VersionNotKnown(f"{model_name} version {standing.subject.version}")
        book = _Book(standing.subject, await tx.open_alerts(standing.subject))
        after = standing
        if version.profile is not None and window_marks:
            after = await _judge_windows(after, version.profile, window_marks, book, judged, tx)
            await book.save(tx)
        if loss_marks:
            since = model.losses_until_us
            after = await _judge_losses(after, version, loss_marks, since, book, judged, tx)
            await book.save(tx)
        if after is not standing:
            await tx.save_standing(after)
        judged.alerts.extend(book.told)
    await tx.save_model(
        replace(
            model,
            windows_until_us=window_marks[-1] if window_marks else model.windows_until_us,
            losses_until_us=loss_marks[-1] if loss_marks else model.losses_until_us,
        )
    )
    await tx.tell(judged.alerts)
    return judged


async def _judge_windows(
    standing: Standing,
    profile: VersionProfile,
    marks: Sequence[int],
    book: _Book,
    judged: Judged,
    tx: Transaction,
) -> Standing:
    length = profile.length_us
    closed_until = marks[-1] - marks[-1] % length
    if standing.closed_until_us == closed_until:
        return standing
    sums = await _sums(standing.subject, profile, closed_until, tx)
    for mark in marks:
        due = due_windows(
            sums,
            length_us=length,
            from_us=_BEFORE_ALL if standing.judge_from_us is None else standing.judge_from_us,
            until_us=mark - mark % length,
        )
        for each in due:
            standing = replace(standing, judge_from_us=each.end_us)
            if isinstance(each, Skipped):
                await tx.tally(standing.subject, {"skipped_rows": each.rows})
                await tx.remark(standing.subject, ["a span with too few rows was not judged"])
                continue
            _judge_window(standing, profile, each, mark, book)
            judged.windows += 1
            standing = replace(
                standing,
                windows_judged=standing.windows_judged + 1,
                first_judged_us=standing.first_judged_us or mark,
            )
    if standing.judge_from_us is not None:
        await tx.drop_sums(standing.subject, standing.judge_from_us)
    return replace(standing, closed_until_us=closed_until, window_us=length)


async def _sums(
    subject: Subject, profile: VersionProfile, before_us: int, tx: Transaction
) -> Mapping[int, Counts]:
    rows = await tx.sums_before(subject, before_us)
    usable = [(start, sums) for start, layout, sums in rows if layout == profile.layout.fingerprint]
    if len(usable) < len(rows):
        await tx.remark(subject, ["sums of another layout were left out"])
    return merge(usable)


def _judge_window(
    standing: Standing, profile: VersionProfile, window: Window, mark: int, book: _Book
) -> None:
    for judge in profile.judges:
        findings = [
            _with_accepted(each, standing.accepted) for each in judge.judge(profile.layout, window)
        ]
        after = after_window(
            book.get(judge.rule),
            findings,
            subject=standing.subject,
            window_start_us=window.start_us,
            moment=Moment(mark, mark),
        )
        book.put(judge.rule, after)


def _with_accepted(finding: Finding, accepted: Mapping[str, float]) -> Finding:
    """A level that was accepted as normal is no breach."""
    level = accepted.get(f"{finding.rule}:{finding.feature}")
    if level is None or level <= finding.threshold:
        return finding
    return replace(finding, threshold=level, is_breach=finding.observed > level)


async def _judge_losses(
    standing: Standing,
    version: KnownVersion,
    marks: Sequence[int],
    since_us: int | None,
    book: _Book,
    judged: Judged,
    tx: Transaction,
) -> Standing:
    blocks = [each.after(since_us) for each in await tx.losses_before(standing.subject, marks[-1])]
    known_at, losses = _in_order(blocks, marks[-1])
    if not losses:
        return standing
    watch = await _watch(standing, version, tx)
    begin = 0
    for mark, end in zip(marks, np.searchsorted(known_at, marks).tolist(), strict=True):
        changes = watch.feed(losses[begin:end])
        begin = end
        if changes:
            await _tell_changes(standing, changes, mark, book, tx)
    judged.losses += len(losses)
    await tx.drop_losses(standing.subject, marks[-1])
    return replace(standing, loss_state=watch.to_json())


def _in_order(
    blocks: Sequence[BlockOfLosses], before_us: int
) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[Loss]]:
    """Losses known before, by (known at, event time, loss, id)."""
    if not blocks:
        return np.empty(0, dtype=np.int64), []
    known_at = np.concatenate([each.known_at_us for each in blocks])
    events = np.concatenate([each.event_times_us for each in blocks])
    values = np.concatenate([each.losses for each in blocks])
    ids = np.concatenate([each.prediction_ids for each in blocks])
    order = np.lexsort((ids, values, events, known_at))
    order = order[known_at[order] < before_us]
    rows = zip(
        known_at[order].tolist(), events[order].tolist(), values[order].tolist(), strict=True
    )
    return known_at[order], [Loss(*row) for row in rows]


async def _watch(standing: Standing, version: KnownVersion, tx: Transaction) -> LossWatch:
    """The stored detector; one that cannot be trusted is rebuilt from the hold-out, and said so."""
    if standing.loss_state is not None:
        try:
            return LossWatch.from_json(standing.loss_state)
        except CorruptState as error:
            await tx.remark(standing.subject, [f"the loss detector was rebuilt: {error}"])
    holdout = version.profile.holdout if version.profile is not None else None
    watch = LossWatch.seeded(holdout, is_binary=version.is_classification)
    if watch.is_learning:
        await tx.remark(
            standing.subject, ["no hold-out losses: the detector learns from live losses"]
        )
    return watch


async def _tell_changes(
    standing: Standing, changes: Sequence[LossChange], mark: int, book: _Book, tx: Transaction
) -> None:
    causes = [each.cause for each in await tx.input_alerts_at(standing.subject, mark)]
    has_evidence = standing.first_judged_us is not None and standing.first_judged_us <= mark
    cause = cause_of_loss(causes, has_evidence=has_evidence)
    for change in changes:
        after = after_losses(
            book.get(Rule.PERFORMANCE),
            change,
            subject=standing.subject,
            cause=cause,
            moment=Moment(mark, mark),
        )
        book.put(Rule.PERFORMANCE, after)
