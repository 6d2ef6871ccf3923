"""Backtests as they are asked for: one at a time, beside the live traffic and never in its way."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_kit import logs, memory
from homeostat_kit.postgres import Pool
from homeostat_monitor.app.backtesting import (
    Backtest,
    BacktestResult,
    judges_alike,
    live_remarks,
)
from homeostat_monitor.app.portions import Portion
from homeostat_monitor.app.replaying import Marks
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import BadRequest, MonitorError, UnusableReference
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.past.beside import Beside
from homeostat_monitor.past.ledger import LedgerPast, PastSpan, portion_of
from homeostat_monitor.ports import KnownVersion
from homeostat_monitor.store.notices import read_policy
from homeostat_monitor.store.reader import Reader
from homeostat_monitor.versions import Versions

DEFAULT_DAYS = 90.0
_MOST_DAYS = 3_660.0
_DAY_US = 86_400_000_000

_log = logs.get_logger("homeostat_monitor.backtests")


class Busy(MonitorError):
    """A backtest runs already."""


class NoPast(MonitorError):
    """There is nothing to play, or nobody to ask for it."""


@dataclass(frozen=True, slots=True)
class Question:
    """Which policy, over how much of the past."""

    policy: Policy
    days: float = DEFAULT_DAYS
    # None: each span by the version that served it.
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """How far it has come."""

    rows: int
    of_rows: int
    alerts: int


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of it, and of which span of event time."""

    result: BacktestResult
    event_from_us: int
    event_before_us: int


class Backtests:
    """Of one process. Whoever stops asking ends theirs within a few thousand rows."""

    def __init__(
        self, pool: Pool, reader: Reader, versions: Versions, ledger: LedgerPast | None
    ) -> None:
        """``ledger``: None where the monitor was told of none."""
        self._pool = pool
        self._reader = reader
        self._versions = versions
        self._ledger = ledger
        self._running: str | None = None

    async def run(self, asked: Question) -> AsyncGenerator[Step | Ended]:
        """Steps, and the end. Busy, NoPast, BadRequest, UnusableReference, LedgerAway,
        RegistryAway. The policy was checked before."""
        if not 0.0 < asked.days <= _MOST_DAYS or not math.isfinite(asked.days):
            raise BadRequest(
                f"days: {asked.days} is not above 0 and at most {_MOST_DAYS:.0f}; "
                f"cure: leave it out for {DEFAULT_DAYS:.0f}"
            )
        if self._ledger is None:
            raise NoPast(
                "this monitor knows no ledger, which has the past; "
                "cure: set HOMEOSTAT_MONITOR_LEDGER_ADDRESS"
            )
        if self._running is not None:
            raise Busy(
                f"a backtest of {self._running} runs already, and one at a time does; "
                "cure: try again when it has ended"
            )
        self._running = asked.policy.model_name
        try:
            async with aclosing(self._run(asked, self._ledger)) as steps:
                async for each in steps:
                    yield each
        finally:
            self._running = None

    async def _run(self, asked: Question, ledger: LedgerPast) -> AsyncGenerator[Step | Ended]:
        name = asked.policy.model_name
        span = await self._span(asked, ledger)
        backtest, policies = await self._begun(asked)
        until = {
            each: await self._reader.current_us(each) or 0
            for each in (PREDICTIONS.name, JOINED.name)
        }
        with Beside("backtest") as beside:
            done, total = 0, 0
            async with aclosing(ledger.files(span)) as files:
                async for total, each in files:
                    portion = await beside.run(portion_of, each)
                    await self._know(backtest, policies, portion)
                    await beside.play(backtest.play, portion)
                    done += len(portion)
                    yield Step(done, total, len(backtest.proposed.tx.alerts))
            _require_reference(backtest, name)
            result = await beside.run(backtest.finish, until)
        await asyncio.to_thread(memory.give_back)
        remarks = [*result.remarks, *await self._live_remarks(name, asked.version)]
        result = BacktestResult(result.alerts, result.present, result.rows, result.truths, remarks)
        _log.info("backtest_ended", model_name=name, rows=result.rows, alerts=len(result.alerts))
        yield Ended(result, span.event_from_us or 0, span.event_before_us or 0)

    async def _span(self, asked: Question, ledger: LedgerPast) -> PastSpan:
        name, version = asked.policy.model_name, asked.version
        last = await ledger.last_event_us(name, version)
        if last is None:
            of = f" of its version {version}" if version is not None else ""
            raise NoPast(
                f"the ledger has no predictions of {name}{of}: there is nothing to test on yet; "
                "cure: `homeostat policy check` looks at the policy alone"
            )
        return PastSpan(name, version, last + 1 - int(asked.days * _DAY_US), last + 1)

    async def _begun(self, asked: Question) -> tuple[Backtest, list[Policy]]:
        name = asked.policy.model_name
        async with self._pool.acquire() as connection:
            present = await read_policy(connection, name)
        is_same = judges_alike(asked.policy, present)
        promotions = [] if asked.version is not None else await self._reader.promotions(name)
        marks: Marks = await self._reader.marks()
        backtest = Backtest.begun(name, marks, promotions, is_same=is_same)
        return backtest, [asked.policy] if is_same else [asked.policy, present]

    async def _know(self, backtest: Backtest, policies: list[Policy], portion: Portion) -> None:
        for place, (player, policy) in enumerate(zip(backtest.players, policies, strict=True)):
            for subject in player.wanted(portion):
                known = await self._versions.fresh(subject, policy)
                backtest.know(place, subject, known, KnownVersion(subject, Task.BINARY, None))

    async def _live_remarks(self, name: str, version: int | None) -> list[str]:
        standing = await self._reader.champion(name)
        subject = Subject(name, version) if version is not None else None
        if subject is None and standing is not None:
            subject = standing.subject
        return [] if subject is None else live_remarks(await self._reader.tallies(subject))


def _require_reference(backtest: Backtest, model_name: str) -> None:
    known = backtest.proposed.known.values()
    if any(each.profile is not None for each in known):
        return
    said = "; ".join(dict.fromkeys(text for each in known for text in each.remarks))
    raise UnusableReference(
        f"no version of {model_name} in that span has a reference to judge by"
        f"{': ' + said if said else ''}; cure: push versions with `homeostat push`, which makes one"
    )
