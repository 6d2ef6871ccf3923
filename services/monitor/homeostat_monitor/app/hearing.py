"""Hearing registry and retrainer: who serves now, and which tries found nothing better."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from homeostat_monitor.app.passing import accepted_key
from homeostat_monitor.app.watches import LOSSES
from homeostat_monitor.domain.alerts.alert import (
    LONGEST_SPAN_ROWS,
    LOSS_RULES,
    Alert,
    Moment,
    Resolution,
    Subject,
)
from homeostat_monitor.domain.alerts.causes import Cause
from homeostat_monitor.domain.alerts.ends import after_run_without_candidate, superseded
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.losses.concept import ConceptWatch
from homeostat_monitor.domain.losses.watch import LossWatch
from homeostat_monitor.ports import ModelStanding, StateKey, Transaction

_RUN_REMEMBER_US = 400 * 86_400_000_000
# An accepted level may be exceeded by a quarter before it is news.
_ACCEPTED_MARGIN = 1.25
# What i.i.d. mode measures in: the logarithm of how unlikely it is.
_SURPRISE = "surprise"
# What a person set as a threshold stays one; truths that come late are no model's doing, and their
# watch would tell them again at once.
_NEVER_NORMAL = frozenset({Rule.POLICY, Rule.LABEL_DELAY, Rule.LABEL_COVERAGE})


@dataclass(frozen=True, slots=True)
class VersionNews:
    """What became of a version, as the registry tells."""

    subject: Subject
    revision: int
    # Set where another version may serve now.
    champion_version: int | None
    occurred_us: int


async def hear_version(news: VersionNews, *, tx: Transaction) -> list[Alert]:
    """A new champion is watched afresh; alerts of other versions end. Old news changes nothing."""
    model = await tx.lock_model(news.subject.model_name)
    if news.revision <= model.revision:
        return []
    champion = news.champion_version
    if champion is None or champion == model.champion_version:
        await tx.raise_revision(news.subject.model_name, news.revision)
        return []
    await tx.promote(news.subject.model_name, champion, news.revision, news.occurred_us)
    ended = [
        superseded(alert, by_version=champion, moment=_moment(alert, model, news.occurred_us))
        for alert in await tx.open_alerts_of_others(news.subject.model_name, champion)
    ]
    await tx.save_alerts(ended)
    await tx.tell(ended)
    return ended


@dataclass(frozen=True, slots=True)
class RunNews:
    """A retraining has ended without a model better than this version."""

    run_id: str
    subject: Subject
    # It knew no truth that became known later.
    cut_us: int
    occurred_us: int


async def hear_run(news: RunNews, *, runs_until_accepted: int, tx: Transaction) -> list[Alert]:
    """One more try for every open alert that it could have helped; after enough of them the level
    is the new normal. Broken data is never normal."""
    model = await tx.lock_model(news.subject.model_name)
    event = b"run:" + news.run_id.encode()
    if not await tx.hear([event], [news.occurred_us + _RUN_REMEMBER_US]):
        return []
    tried = [
        after_run_without_candidate(
            alert,
            enough=runs_until_accepted,
            moment=_moment(alert, model, news.occurred_us),
        )
        for alert in await tx.open_alerts(news.subject)
        if alert.cause is not Cause.DATA_BREAK
        and alert.rule not in _NEVER_NORMAL
        and alert.opened_at <= news.cut_us
    ]
    await tx.save_alerts(tried)
    accepted = [each for each in tried if each.resolution is Resolution.ACCEPTED]
    for each in accepted:
        await _rebase(each, tx)
    await tx.tell(accepted)
    return accepted


def _moment(alert: Alert, model: ModelStanding, occurred_us: int) -> Moment:
    """Each alert by the marks that it was judged at: who waits until outcomes have reached it must
    not wait for the predictions, which are ahead."""
    is_loss = alert.rule in LOSS_RULES
    until = model.losses_until_us if is_loss else model.windows_until_us
    return Moment(until or 0, occurred_us)


async def _rebase(alert: Alert, tx: Transaction) -> None:
    """The level that was accepted is what the next ones are compared with."""
    standing = await tx.standing(alert.subject)
    if alert.rule is Rule.PERFORMANCE:
        await _rebase_watch(alert, StateKey(alert.segment, LOSSES), _stored_losses, tx)
    if alert.rule is Rule.CONCEPT:
        key = StateKey(alert.segment, ConceptWatch.name)
        await _rebase_watch(alert, key, ConceptWatch.stored, tx)
    if alert.rule in LOSS_RULES:
        return
    levels = {accepted_key(each): _accepted_level(alert, each) for each in alert.shares}
    await tx.save_standing(replace(standing, accepted={**standing.accepted, **levels}))


def _accepted_level(alert: Alert, share: Finding) -> float:
    """How unlikely a lasting change is grows with the rows that show it, up to a whole span."""
    level = share.observed * _ACCEPTED_MARGIN
    if share.statistic.endswith(_SURPRISE) and alert.rows:
        return level * max(LONGEST_SPAN_ROWS / alert.rows, 1.0)
    return level


def _stored_losses(state: bytes) -> LossWatch:
    # Any watch can go on from a state; which one made it matters to fresh ones alone.
    watch = LossWatch.seeded(None, is_binary=True)
    watch.restore(state)
    return watch


async def _rebase_watch(
    alert: Alert,
    key: StateKey,
    restored: Callable[[bytes], LossWatch | ConceptWatch],
    tx: Transaction,
) -> None:
    stored = await tx.read_state(alert.subject, key)
    if stored is None:
        return
    try:
        watch = restored(stored[0])
    except CorruptState as error:
        # The next truths rebuild it from the hold-out.
        await tx.remark(alert.subject, [f"an accepted level was not kept: {error}"])
        return
    watch.rebase()
    await tx.save_states(alert.subject, {key: watch.to_bytes()})
