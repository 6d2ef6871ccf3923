"""Looking into open alerts in the background, one at a time."""

import asyncio
from collections.abc import Callable
from functools import partial

import asyncpg

from homeostat_kit import logs, memory
from homeostat_kit.kafka.bus import first_of
from homeostat_monitor.app.deepening import (
    LedgerAway,
    Past,
    diagnosis_of,
    look,
    read_samples,
    retold,
)
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.diagnosis.completing import Looked, completed, unread
from homeostat_monitor.domain.segments.expressions import Expression, parse
from homeostat_monitor.faults import is_of_one_model
from homeostat_monitor.store.deepening import DeepeningStore, Due

# A person has the alert by then; its rows can wait a moment.
_IDLE_SECONDS = 1.0
# Beyond what reading and looking takes, before another instance may try.
_CLAIM_SECONDS = 120.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 15.0

_AWAY = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_log = logs.get_logger("homeostat_monitor.deepening")


class DeepeningLoop:
    """Any number of instances may run one."""

    def __init__(
        self,
        store: DeepeningStore,
        past: Past,
        *,
        give_up_seconds: float,
        told: Callable[[], None],
    ) -> None:
        """``told`` is called when an alert is in the outbox."""
        self._store = store
        self._past = past
        self._give_up_seconds = give_up_seconds
        self._told = told

    async def run(self, stop: asyncio.Event) -> None:
        """Looks until ``stop``."""
        while not stop.is_set():
            try:
                due = await self._store.claim(seconds=_CLAIM_SECONDS)
                if due is not None:
                    await self._deepen(due)
                    continue
            except _AWAY as error:
                _log.warning("deepening_waits", error=repr(error))
            await first_of(stop, timeout=_IDLE_SECONDS)

    async def _deepen(self, due: Due) -> None:
        alert = due.alert
        if not alert.is_open:
            await self._store.finish(alert)
            return
        try:
            samples = await read_samples(alert, past=self._past)
        except LedgerAway as error:
            await self._wait(due, error)
            return
        try:
            looked = await asyncio.to_thread(look, samples, _within(due))
        except Exception as error:
            # The alert is told already; rows of another kind than expected end nothing else.
            if not is_of_one_model(error):
                raise
            _log.exception("rows_not_judged", alert_id=alert.alert_id)
            self._note(await self._store.finish(alert, partial(_unread, repr(error))), due)
            return
        finally:
            del samples
            await asyncio.to_thread(memory.give_back)
        self._note(await self._store.finish(alert, partial(_completed, looked)), due)

    async def _wait(self, due: Due, error: LedgerAway) -> None:
        if due.age_seconds < self._give_up_seconds:
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** min(due.tries, 10), _LONGEST_PAUSE_SECONDS)
            await self._store.postpone(due.alert.alert_id, pause)
            return
        _log.warning("deepening_given_up", alert_id=due.alert.alert_id, error=str(error))
        self._note(await self._store.finish(due.alert, partial(_unread, str(error))), due)

    def _note(self, told: Alert | None, due: Due) -> None:
        if told is None:
            return
        diagnosis = diagnosis_of(told)
        _log.info(
            "alert_diagnosed",
            alert_id=told.alert_id,
            model_name=told.subject.model_name,
            tries=due.tries,
            seconds=due.age_seconds,
            segments=[each.expression for each in diagnosis.segments],
            residuals=[each.context for each in diagnosis.residuals],
        )
        self._told()


def _within(due: Due) -> Expression | None:
    """The alert's own segment, as the policy names it now."""
    for each in due.policy.segments:
        if each.name == due.alert.segment:
            return parse(each.expression)
    return None


def _completed(looked: Looked, alert: Alert) -> Alert:
    return retold(alert, completed(diagnosis_of(alert), looked))


def _unread(why: str, alert: Alert) -> Alert:
    return retold(alert, unread(diagnosis_of(alert), why))
