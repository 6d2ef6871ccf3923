"""PostgreSQL: detectors that the ledger's past is to rebuild."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from homeostat_kit.lease import Lease
from homeostat_kit.postgres import Connection, Pool, queries, retrying
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.ports import ModelStanding, Standing, StateKey
from homeostat_monitor.store.transaction import StoreTransaction

_SQL = queries("homeostat_monitor", "rebuilding.sql")


@dataclass(frozen=True, slots=True)
class Damage:
    """What is to be rebuilt of a version, and up to where it was judged."""

    subject: Subject
    # Each with the revision of the state that stands there now.
    revisions: Mapping[StateKey, int | None]
    model: ModelStanding
    standing: Standing
    # Alerts whose level became the new normal: the ledger does not tell of them.
    accepted: int


class RebuildingStore:
    """Who replaces states holds the model's lease."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def due(self) -> list[Subject]:
        """Versions with detectors to rebuild."""
        rows = await self._pool.fetch(_SQL["due_versions"])
        return [Subject(row["model_name"], row["version"]) for row in rows]

    async def damage(self, subject: Subject) -> Damage:
        """All that is due of a version."""

        async def work(connection: Connection) -> Damage:
            tx = StoreTransaction(connection)
            model = await tx.lock_model(subject.model_name)
            rows = await connection.fetch(_SQL["due_keys"], subject.model_name, subject.version)
            revisions = await tx.state_revisions(subject)
            keys = [StateKey(row["segment"], row["name"]) for row in rows]
            accepted = await connection.fetchval(
                _SQL["accepted_alerts"], subject.model_name, subject.version
            )
            return Damage(
                subject,
                {key: revisions.get(key) for key in keys},
                model,
                await tx.standing(subject),
                int(accepted),
            )

        return await retrying(self._pool, work)

    async def give_up(self, subject: Subject, keys: Collection[StateKey]) -> None:
        """They are not to be rebuilt any more."""
        await self._pool.execute(_SQL["drop_due"], *_place(subject, keys))

    async def replace(
        self,
        damage: Damage,
        states: Mapping[StateKey, bytes],
        remarks: Sequence[str],
        *,
        lease: Lease,
    ) -> bool:
        """Puts the states in their places, unless anything was judged or changed since; LeaseLost.
        Keys without a state are given up."""

        async def work(connection: Connection) -> bool:
            await lease.check(connection)
            tx, subject = StoreTransaction(connection), damage.subject
            model = await tx.lock_model(subject.model_name)
            revisions = await tx.state_revisions(subject)
            if model != damage.model or any(
                revisions.get(key) != revision for key, revision in damage.revisions.items()
            ):
                return False
            await tx.save_states(subject, states)
            await tx.remark(subject, remarks)
            await connection.execute(_SQL["drop_due"], *_place(subject, damage.revisions))
            return True

        return await retrying(self._pool, work)


def _place(subject: Subject, keys: Collection[StateKey]) -> tuple[str, int, list[str], list[str]]:
    return (
        subject.model_name,
        subject.version,
        [each.segment for each in keys],
        [each.name for each in keys],
    )
