"""Rebuilding detectors whose state could not be read from the ledger's past, version by version.

The model is not judged meanwhile: what becomes due waits, and is judged by the rebuilt detectors
after it, as if nothing had been.
"""

import asyncio
import time
from contextlib import aclosing

import asyncpg

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_kit import logs, memory
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.lease import Lease, LeaseLost
from homeostat_kit.postgres import Pool
from homeostat_monitor.app.deepening import Past
from homeostat_monitor.app.rebuilding import Rebuilt, player_of, rebuilt
from homeostat_monitor.app.replaying import Player
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.faults import is_of_one_model
from homeostat_monitor.loops.judging import JudgeLoop
from homeostat_monitor.past.beside import Beside
from homeostat_monitor.past.ledger import LedgerAway, LedgerPast, PastSpan, portion_of
from homeostat_monitor.ports import KnownVersion
from homeostat_monitor.store.notices import read_policy
from homeostat_monitor.store.reader import Reader
from homeostat_monitor.store.rebuilding import Damage, RebuildingStore
from homeostat_monitor.versions import RegistryAway, Versions

_IDLE_SECONDS = 1.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
# How long judging may wait for a ledger that is a little behind.
_BEHIND_SECONDS = 10.0
_BEHIND_PAUSE_SECONDS = 0.2

_AWAY = (
    LedgerAway,
    RegistryAway,
    LeaseLost,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

_log = logs.get_logger("homeostat_monitor.rebuilding")


class RebuildLoop:
    """Any number of instances may run one: the model's lease lets one of them work."""

    def __init__(
        self,
        pool: Pool,
        judging: JudgeLoop,
        versions: Versions,
        *,
        past: Past,
        rows: LedgerPast,
    ) -> None:
        """``past`` says how far the ledger has come, ``rows`` gives what it has."""
        self._pool = pool
        self._store = RebuildingStore(pool)
        self._reader = Reader(pool)
        self._judging = judging
        self._versions = versions
        self._past = past
        self._rows = rows
        # Versions that wait for the world: until when (monotonic), and how long next.
        self._pauses: dict[Subject, tuple[float, float]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Rebuilds until ``stop``."""
        while not stop.is_set():
            try:
                for subject in await self._store.due():
                    if self._pauses.get(subject, (0.0, 0.0))[0] <= time.monotonic():
                        await self._try(subject)
            except _AWAY as error:
                _log.warning("rebuilding_waits", error=repr(error))
            await first_of(stop, timeout=_IDLE_SECONDS)

    async def _try(self, subject: Subject) -> None:
        try:
            # Before anybody's judging is held up for a ledger that is not there.
            await self._past.reached_us()
            async with self._judging.reserved(subject.model_name) as is_ours:
                done = is_ours and await self._rebuild(subject)
        except _AWAY as error:
            _log.warning(
                "rebuilding_waits",
                model_name=subject.model_name,
                version=subject.version,
                error=str(error) or repr(error),
            )
            done = False
        except Exception as error:
            # A bug that this version's past meets: all others are judged and rebuilt.
            if not is_of_one_model(error):
                raise
            _log.exception(
                "rebuilding_failed",
                model_name=subject.model_name,
                version=subject.version,
                error_class=type(error).__name__,
            )
            done = False
        if done:
            self._pauses.pop(subject, None)
            return
        _, pause = self._pauses.get(subject, (0.0, _FIRST_PAUSE_SECONDS))
        self._pauses[subject] = (time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE_SECONDS))

    async def _rebuild(self, subject: Subject) -> bool:
        damage = await self._store.damage(subject)
        if not damage.standing.is_watched:
            # Its states are gone; a version that comes back begins afresh.
            await self._store.give_up(subject, damage.revisions)
            return True
        await self._until_reached(damage)
        begun = time.monotonic()
        found = await self._played(damage)
        lease = await self._lease(subject)
        done = await self._store.replace(damage, found.states, found.remarks, lease=lease)
        await asyncio.to_thread(memory.give_back)
        _log.info(
            "detectors_rebuilt" if done else "rebuilding_overtaken",
            model_name=subject.model_name,
            version=subject.version,
            detectors=sorted({each.name for each in found.states}),
            seconds=time.monotonic() - begun,
        )
        return done

    async def _until_reached(self, damage: Damage) -> None:
        """The ledger has everything that was judged; LedgerAway after a while."""
        marks = (damage.model.windows_until_us, damage.model.losses_until_us)
        wanted = max((each for each in marks if each is not None), default=None)
        until = time.monotonic() + _BEHIND_SECONDS
        while wanted is not None:
            reached = await self._past.reached_us()
            if reached is not None and reached >= wanted:
                return
            if time.monotonic() > until:
                raise LedgerAway(f"the ledger has come to {reached}, judging to {wanted}")
            await asyncio.sleep(_BEHIND_PAUSE_SECONDS)

    async def _played(self, damage: Damage) -> Rebuilt:
        name, model = damage.subject.model_name, damage.model
        marks, promotions = await self._reader.marks(), await self._reader.promotions(name)
        player = player_of(damage.subject, model, marks, promotions)
        async with self._pool.acquire() as connection:
            policy = await read_policy(connection, name)
        known = await self._versions.fresh(damage.subject, policy)
        player.known[damage.subject] = known or _unknown(damage.subject)
        until = {PREDICTIONS.name: model.windows_until_us, JOINED.name: model.losses_until_us}
        span = PastSpan(
            name,
            damage.subject.version,
            None,
            max((each for each in until.values() if each is not None), default=0),
            None if model.losses_until_us is None else model.losses_until_us - 1,
        )
        with Beside("rebuild") as beside:
            async with aclosing(self._rows.files(span)) as files:
                async for _, each in files:
                    portion = await beside.run(portion_of, each)
                    _know_others(player, player.wanted(portion))
                    await beside.play(player.play, portion)
                    await self._lease(damage.subject)
            _know_others(player, [Subject(name, each.version) for each in promotions])
            await beside.run(
                player.finish, {name: each for name, each in until.items() if each is not None}
            )
        return await rebuilt(
            player, damage.subject, damage.revisions, damage.standing, accepted=damage.accepted
        )

    async def _lease(self, subject: Subject) -> Lease:
        lease = await self._judging.renewed(subject.model_name)
        if lease is None:
            raise LeaseLost(f"another process judges {subject.model_name} by now")
        return lease


def _know_others(player: Player, subjects: list[Subject]) -> None:
    """Versions whose rows are not played: that they took over is all that matters."""
    for each in subjects:
        player.known.setdefault(each, _unknown(each))


def _unknown(subject: Subject) -> KnownVersion:
    return KnownVersion(subject, Task.BINARY, None)
