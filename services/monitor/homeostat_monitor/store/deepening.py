"""PostgreSQL: which alerts' rows are to be looked at."""

from collections.abc import Callable
from dataclasses import dataclass

from homeostat_kit.postgres import Connection, Pool, queries, retrying
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.store.notices import read_policy
from homeostat_monitor.store.transaction import StoreTransaction, alert_of

_SQL = queries("homeostat_monitor", "deepening.sql")


@dataclass(frozen=True, slots=True)
class Due:
    """An alert to look into, ours for a while."""

    alert: Alert
    policy: Policy
    # With this one.
    tries: int
    age_seconds: float


class DeepeningStore:
    """Any number of instances may ask; each alert is given to one at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, *, seconds: float) -> Due | None:
        """The next that is due; nobody else gets it for so long."""

        async def work(connection: Connection) -> Due | None:
            await connection.execute(_SQL["note_new"])
            row = await connection.fetchrow(_SQL["claim"], seconds)
            if row is None:
                return None
            alert = alert_of(row["body"])
            policy = await read_policy(connection, alert.subject.model_name)
            return Due(alert, policy, row["tries"], row["age_seconds"])

        return await retrying(self._pool, work)

    async def postpone(self, alert_id: str, seconds: float) -> None:
        """Again in a while."""
        await self._pool.execute(_SQL["postpone"], alert_id, seconds)

    async def finish(
        self, alert: Alert, retold: Callable[[Alert], Alert] | None = None
    ) -> Alert | None:
        """Never again. Tells what ``retold`` makes of the alert as it is by now, unless it has
        ended or was told by another instance."""

        async def work(connection: Connection) -> Alert | None:
            tx = StoreTransaction(connection)
            # Nobody judges the model meanwhile.
            await tx.lock_model(alert.subject.model_name)
            if await connection.fetchval(_SQL["finish"], alert.alert_id) is None:
                return None
            now = alert_of(await connection.fetchval(_SQL["read_alert"], alert.alert_id))
            if retold is None or not now.is_open:
                return None
            told = retold(now)
            await tx.save_alerts([told])
            await tx.tell([told])
            return told

        return await retrying(self._pool, work)
