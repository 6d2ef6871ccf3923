"""Judging first truths in the order in which they became known, at the marks that passed them."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.app.diagnosing import diagnosis_of_loss
from homeostat_monitor.app.own_rules import at_truths
from homeostat_monitor.app.passing import Pass
from homeostat_monitor.app.unwanted import end_withdrawn
from homeostat_monitor.app.watches import (
    LOSSES,
    concept_of,
    estimate_of,
    labels_of,
    losses_of,
    rolling_of,
)
from homeostat_monitor.domain.alerts.alert import (
    Alert,
    Moment,
    after_window,
    diagnosed,
)
from homeostat_monitor.domain.alerts.causes import Cause, cause_of_loss
from homeostat_monitor.domain.alerts.losses import after_losses, after_new_cause, settled_at_us
from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.diagnosis import Diagnosis, LossEvidence
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.ties import fair_order
from homeostat_monitor.domain.losses.truths import Truths
from homeostat_monitor.domain.losses.watch import LossChange, LossWatch
from homeostat_monitor.domain.performance.rolling import Rolling
from homeostat_monitor.domain.windows.looks import DAY_US
from homeostat_monitor.ports import BLOCK_ID_BYTES, ID_BYTES, BlockOfLosses, StateKey

Ids = NDArray[np.bytes_]
# Metrics of how truths come, not of what they say.
_OF_LABELS = frozenset({"label_delay_seconds", "label_coverage"})


async def judge_losses(now: Pass, marks: Sequence[int], since_us: int | None) -> None:
    """Every truth that the marks have passed."""
    blocks = await now.tx.losses_before(now.standing.subject, marks[-1])
    truths, ids = _in_order([each.after(since_us) for each in blocks], marks[-1])
    segments = await _segments(now, ids)
    if len(truths):
        await _begin(now)
    begin = 0
    before = since_us
    for mark, end in zip(marks, np.searchsorted(truths.known_at_us, marks).tolist(), strict=True):
        if end > begin:
            part = slice(begin, end)
            await _feed_all(now, _part(truths, part), mark)
            for name, mask in segments.items():
                chosen = _part(truths, np.flatnonzero(mask[part]) + begin)
                await _feed_losses(now, name, chosen, mark)
                await _tell_findings(now, await at_truths(now, name, mark), mark, mark, name)
        elif before is not None and mark // DAY_US > before // DAY_US:
            await _miss_truths(now, mark)
        begin, before = end, mark
    now.judged.losses += len(truths)
    await now.tx.drop_losses(now.standing.subject, marks[-1])


async def _begin(now: Pass) -> None:
    is_new = not now.keeper.has(StateKey("", LOSSES))
    watch = await losses_of(now.keeper, now.version, "")
    if is_new and watch.is_learning:
        text = "no hold-out losses: the detector learns from live losses"
        await now.tx.remark(now.standing.subject, [text])


async def _feed_all(now: Pass, truths: Truths, mark: int) -> None:
    """One mark's truths, through every watch of all rows."""
    rolling = await rolling_of(now.keeper, now.version)
    rolling.feed(truths)
    await _feed_losses(now, "", truths, mark)
    concept = await concept_of(now.keeper, now.version)
    for look in concept.feed(truths):
        await _tell_findings(now, list(look.findings), look.at_us, mark)
    profile = now.version.profile
    if profile is None:
        await _tell_findings(now, await at_truths(now, "", mark), mark, mark)
        return
    estimate = await estimate_of(now.keeper, now.version, profile)
    await now.tx.remark(now.standing.subject, list(estimate.feed(truths)))
    if estimate.absent_because is not None:
        end_withdrawn(now, mark)
    labels = await labels_of(now.keeper, now.version, profile)
    labels.feed(truths)
    found = list(labels.judge(mark))
    await _tell_findings(now, [*found, *await at_truths(now, "", mark, found)], mark, mark)


async def _miss_truths(now: Pass, mark: int) -> None:
    """A new day's first mark that brought none: then above all some may be missing."""
    if now.version.profile is not None:
        labels = await labels_of(now.keeper, now.version, now.version.profile)
        await _tell_findings(now, list(labels.judge(mark)), mark, mark)


async def _feed_losses(now: Pass, segment: str, truths: Truths, mark: int) -> None:
    """One mark's truths of a segment through its loss watch."""
    watch = await losses_of(now.keeper, now.version, segment)
    for change in watch.feed(truths):
        if now.version.policy.judges(Rule.PERFORMANCE):
            await _tell_change(now, segment, change, mark)
    await _look_at_cause(now, segment, watch, mark)


async def _tell_change(now: Pass, segment: str, change: LossChange, mark: int) -> None:
    evidence = LossEvidence(change.since_us, change.observed, change.reference, change.fed)
    witnesses = await _witnesses(now, segment, mark)
    cause, diagnosis = await _why(
        now, Rule.PERFORMANCE, segment, evidence, witnesses, change.at_us, mark
    )
    after = after_losses(
        now.book.get(Rule.PERFORMANCE, segment),
        change,
        subject=now.standing.subject,
        cause=cause,
        moment=Moment(mark, mark),
        segment=segment,
    )
    now.book.put(_settling(now, _with(now, after, diagnosis, witnesses), mark))


def _settling(now: Pass, after: Alert | None, mark: int) -> Alert | None:
    """In order of time the window in which the loss rose may be open for days: what it holds is
    not known yet."""
    profile = now.version.profile
    is_new = after is not None and after.revision == 1 and now.book.is_news(after)
    if after is None or not is_new or profile is None or profile.mode is Mode.IID:
        return after
    settled = settled_at_us(after.since_us, mark, profile.length_us)
    return replace(after, settled_at_us=settled)


async def _look_at_cause(now: Pass, segment: str, watch: LossWatch, mark: int) -> None:
    """The inputs' alerts come and go while the loss stays high: then the cause is another."""
    alert = now.book.get(Rule.PERFORMANCE, segment)
    risen = watch.risen
    if alert is None or not alert.is_open or risen is None:
        return
    witnesses = await _witnesses(now, segment, mark)
    names = [each.alert_id for each in witnesses]
    is_settled = 0 < alert.settled_at_us <= mark
    if tuple(names) == alert.witnesses and not is_settled:
        return
    if is_settled:
        alert = replace(alert, settled_at_us=0)
    evidence = LossEvidence(risen.since_us, risen.observed, watch.reference, risen.rows)
    cause, diagnosis = await _why(now, Rule.PERFORMANCE, segment, evidence, witnesses, mark, mark)
    now.book.put(after_new_cause(alert, cause, diagnosis, names, Moment(mark, mark)))


async def _tell_findings(
    now: Pass, findings: list[Finding], at_us: int, mark: int, segment: str = ""
) -> None:
    said = now.said(findings)
    for rule in dict.fromkeys(each.rule for each in said):
        after = after_window(
            now.book.get(rule, segment, of_truths=True),
            [each for each in said if each.rule is rule],
            subject=now.standing.subject,
            window_start_us=at_us,
            moment=Moment(mark, mark),
            taken=now.book.ids,
        )
        if after is not None and after.is_open and now.book.is_news(after):
            evidence = _evidence(after, said)
            witnesses = await _witnesses(now, segment, mark)
            _, diagnosis = await _why(now, rule, segment, evidence, witnesses, at_us, mark)
            after = _with(now, after, diagnosis, witnesses)
        now.book.put(after)


def _evidence(alert: Alert, findings: Sequence[Finding]) -> LossEvidence:
    """The figures that the alert is about. Late truths are no rise of a loss."""
    about = (each for each in findings if each.is_breach and each.rule is alert.rule)
    name = next((each.statistic for each in about if each.observed == alert.observed), "loss")
    since_us = None if name in _OF_LABELS else alert.since_us
    return LossEvidence(since_us, alert.observed, alert.reference, 0, name=name)


def _with(
    now: Pass, after: Alert | None, diagnosis: Diagnosis | None, witnesses: Sequence[Alert]
) -> Alert | None:
    if after is None or not after.is_open or not now.book.is_news(after):
        return after
    names = tuple(each.alert_id for each in witnesses)
    profile = now.version.profile
    if diagnosis is None or profile is None:
        return replace(after, witnesses=names)
    return diagnosed(replace(after, mode=profile.mode), diagnosis, names)


async def _witnesses(now: Pass, segment: str, mark: int) -> list[Alert]:
    alerts = await now.tx.input_alerts_at(now.standing.subject, mark)
    return [each for each in alerts if each.segment in ("", segment)]


async def _why(
    now: Pass,
    rule: Rule,
    segment: str,
    evidence: LossEvidence,
    witnesses: Sequence[Alert],
    at_us: int,
    mark: int,
) -> tuple[Cause, Diagnosis | None]:
    if now.past is None:
        first = now.standing.first_judged_us
        has_evidence = first is not None and first <= mark
        return cause_of_loss([each.cause for each in witnesses], has_evidence=has_evidence), None
    rolling: Rolling = await rolling_of(now.keeper, now.version)
    bias = next((each for each in rolling.metrics() if each.name == "bias"), None)
    if bias is not None:
        evidence = replace(evidence, bias=bias.value, reference_bias=bias.reference)
    diagnosis = await diagnosis_of_loss(
        now.past,
        rule=rule,
        segment=segment,
        at_us=at_us,
        mark_us=mark,
        evidence=evidence,
        witnesses=witnesses,
    )
    return diagnosis.cause, diagnosis


def _in_order(blocks: Sequence[BlockOfLosses], before_us: int) -> tuple[Truths, Ids]:
    """Truths known before, by (known at, event time), those of one moment mixed fairly."""
    blocks = [each for each in blocks if len(each.losses)]
    if not blocks:
        none = np.empty(0, dtype=np.int64)
        empty = np.empty(0)
        return Truths(none, none, empty, empty, empty, empty), np.empty(0, f"S{ID_BYTES}")
    known_at = np.concatenate([each.known_at_us for each in blocks])
    events = np.concatenate([each.event_times_us for each in blocks])
    losses = np.concatenate([each.losses for each in blocks])
    ids = np.concatenate([each.prediction_ids for each in blocks])
    said = np.concatenate([_said(each) for each in blocks], axis=1)
    order = fair_order(known_at, events, (losses, *said), ids)
    order = order[known_at[order] < before_us]
    scores, decisions, truths = said[:, order]
    ordered = Truths(known_at[order], events[order], losses[order], scores, decisions, truths)
    return ordered, ids[order]


def _said(block: BlockOfLosses) -> NDArray[np.float64]:
    return np.full((3, len(block.losses)), np.nan) if block.said is None else block.said


def _part(truths: Truths, rows: "slice | NDArray[np.intp]") -> Truths:
    return Truths(
        truths.known_at_us[rows],
        truths.event_times_us[rows],
        truths.losses[rows],
        truths.scores[rows],
        truths.decisions[rows],
        truths.truths[rows],
    )


async def _segments(now: Pass, ids: Ids) -> dict[str, NDArray[np.bool_]]:
    """Which of the truths belong to which of the policy's segments."""
    profile = now.version.profile
    if profile is None or not profile.expressions:
        return {}
    raw = np.frombuffer(ids.tobytes(), dtype=np.uint8).reshape(-1, ID_BYTES)
    blocks = raw[:, :BLOCK_ID_BYTES].copy().view(f"V{BLOCK_ID_BYTES}").ravel()
    rows = raw[:, BLOCK_ID_BYTES:].copy().view("<u4").ravel()
    names, place = np.unique(blocks, return_inverse=True)
    known = await now.tx.block_segments([each.tobytes() for each in names])
    masks = {name: np.zeros(len(ids), dtype=bool) for name in profile.expressions}
    for number, name in enumerate(names):
        found = known.get(name.tobytes())
        if found is None:
            continue
        of_block = np.flatnonzero(place == number)
        # A truth may name a row that the block never had.
        of_block = of_block[rows[of_block] < found.masks.shape[1]]
        for segment, mask in zip(found.names, found.masks, strict=True):
            if segment in masks:
                masks[segment][of_block] = mask[rows[of_block]]
    return masks
