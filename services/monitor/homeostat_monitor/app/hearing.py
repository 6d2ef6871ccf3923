"""Hearing registry and retrainer: who serves now, and which tries found nothing better."""

from dataclasses import dataclass, replace

from homeostat_monitor.domain.alerts import (
    Alert,
    Moment,
    Resolution,
    Subject,
    accepted_levels,
    after_run_without_candidate,
    superseded,
)
from homeostat_monitor.domain.causes import Cause
from homeostat_monitor.domain.errors import CorruptState
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.losses import LossWatch
from homeostat_monitor.ports import ModelStanding, Standing, Transaction

_RUN_REMEMBER_US = 400 * 86_400_000_000
# An accepted level may be exceeded by a quarter before it is news.
_ACCEPTED_MARGIN = 1.25


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
    await tx.promote(news.subject.model_name, champion, news.revision)
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
        if alert.cause is not Cause.DATA_BREAK and alert.opened_at <= news.cut_us
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
    is_loss = alert.rule is Rule.PERFORMANCE
    until = model.losses_until_us if is_loss else model.windows_until_us
    return Moment(until or 0, occurred_us)


async def _rebase(alert: Alert, tx: Transaction) -> None:
    standing = await tx.standing(alert.subject)
    if alert.rule is Rule.PERFORMANCE:
        if standing.loss_state is not None:
            await _rebase_watch(standing, standing.loss_state, tx)
        return
    levels = {
        f"{alert.rule}:{feature}": level * _ACCEPTED_MARGIN
        for feature, level in accepted_levels(alert).items()
    }
    await tx.save_standing(replace(standing, accepted={**standing.accepted, **levels}))


async def _rebase_watch(standing: Standing, loss_state: str, tx: Transaction) -> None:
    try:
        watch = LossWatch.from_json(loss_state)
    except CorruptState as error:
        # The next losses rebuild it from the hold-out.
        await tx.remark(standing.subject, [f"an accepted loss was not kept: {error}"])
        return
    watch.rebase()
    await tx.save_standing(replace(standing, loss_state=watch.to_json()))
