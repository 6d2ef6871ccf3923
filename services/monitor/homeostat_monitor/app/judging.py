"""Judging what is due of a model: closed windows, and truths that the watermark has passed.

Everything is judged at its own mark, so that what is found does not depend on how many marks one
poll brought.
"""

from collections.abc import Mapping
from dataclasses import replace

from homeostat_monitor.app.book import Book
from homeostat_monitor.app.diagnosing import Past
from homeostat_monitor.app.judging_losses import judge_losses
from homeostat_monitor.app.judging_windows import judge_windows
from homeostat_monitor.app.keeping import InHand, Keeper
from homeostat_monitor.app.passing import Judged, Pass
from homeostat_monitor.app.unwanted import end_unwanted
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import MonitorError
from homeostat_monitor.domain.windows.looks import DAY_US, next_look
from homeostat_monitor.ports import KnownVersion, ModelStanding, Standing, Transaction

__all__ = ["Judged", "VersionNotKnown", "judge_model"]

# Marks judged in one transaction: bounds its length when much is due.
_MOST_MARKS = 200


class VersionNotKnown(MonitorError):
    """A version is watched whose reference was not asked for yet."""


async def judge_model(
    model_name: str,
    known: Mapping[Subject, KnownVersion],
    *,
    tx: Transaction,
    in_hand: InHand | None = None,
) -> Judged:
    """Everything due of one model; VersionNotKnown if a watched version is not in ``known``.

    After the commit the caller puts the answer's keepers in hand.
    """
    model = await tx.lock_model(model_name)
    window_marks, loss_marks = await tx.due_marks(model, most=_MOST_MARKS)
    judged = Judged(is_full=len(window_marks) == _MOST_MARKS or len(loss_marks) == _MOST_MARKS)
    if not window_marks and not loss_marks:
        return judged
    looks: list[int] = []
    has_profile = False
    for standing in await tx.watched(model_name):
        version = known.get(standing.subject)
        if version is None:
            raise VersionNotKnown(f"{model_name} version {standing.subject.version}")
        now = await _pass(standing, version, judged, tx, in_hand)
        now.judged_until_us = model.windows_until_us
        end_unwanted(now, window_marks, loss_marks)
        await now.book.save(tx)
        if version.profile is not None and window_marks:
            await judge_windows(now, version.profile, window_marks)
            await now.book.save(tx)
        if loss_marks:
            if now.past is not None:
                now.past.standing = now.standing
            await judge_losses(now, loss_marks, model.losses_until_us)
            await now.book.save(tx)
        await now.keeper.save()
        judged.keepers.append(now.keeper)
        if now.standing is not standing:
            await tx.save_standing(now.standing)
        judged.alerts.extend(now.book.told)
        reached = window_marks[-1] if window_marks else model.windows_until_us
        looks += _next_look(now.standing, version, reached)
        has_profile |= version.profile is not None
    model = replace(
        model,
        windows_until_us=window_marks[-1] if window_marks else model.windows_until_us,
        losses_until_us=loss_marks[-1] if loss_marks else model.losses_until_us,
    )
    await tx.save_model(model)
    await tx.settle_due(model, min(looks, default=None), _next_day(model) if has_profile else None)
    await tx.tell(judged.alerts)
    return judged


def _next_look(standing: Standing, version: KnownVersion, reached_us: int | None) -> list[int]:
    since = standing.judge_from_us
    if version.profile is None or since is None or reached_us is None:
        return []
    look = next_look(since, reached_us, version.profile.length_us)
    return [] if look is None else [look]


def _next_day(model: ModelStanding) -> int | None:
    """Truths that do not come are looked for at each day's first mark, once there were any."""
    until = model.losses_until_us
    return None if until is None else (until // DAY_US + 1) * DAY_US - 1


async def _pass(
    standing: Standing,
    version: KnownVersion,
    judged: Judged,
    tx: Transaction,
    in_hand: InHand | None,
) -> Pass:
    past = None if version.profile is None else Past(standing, version.profile, tx)
    book = Book(await tx.open_alerts(standing.subject))
    keeper = await Keeper.open(standing.subject, tx, in_hand)
    return Pass(standing, version, book, keeper, past, tx, judged)
