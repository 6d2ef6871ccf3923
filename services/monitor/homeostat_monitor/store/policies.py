"""PostgreSQL: policies, what people know of alerts, and the outbox of webhooks."""

from dataclasses import dataclass

import asyncpg

from homeostat.events.v1 import alert_pb2
from homeostat_kit.postgres import Pool, queries
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.errors import UnknownAlert, UnknownModel
from homeostat_monitor.domain.policies.policy import Mute, Policy
from homeostat_monitor.messages.alerts import message_of
from homeostat_monitor.store.notices import read_mutes, read_policy
from homeostat_monitor.store.rows import alert_of
from homeostat_monitor.store.transaction import StoreTransaction

_SQL = queries("homeostat_monitor", "policies.sql")


class PolicyStore(StoreTransaction):
    """The use cases' port on one connection that is in a transaction."""

    async def is_known(self, model_name: str) -> bool:
        return bool(await self._on.fetchval(_SQL["model_is_known"], model_name))

    async def take_turn(self, model_name: str) -> None:
        """Until the transaction ends nobody else judges the model or changes its policy."""
        await self.lock_model(model_name)

    async def add_policy(self, policy: Policy) -> int:
        """Keeps one more revision; when, in microseconds."""
        await self._on.execute(_SQL["trust_webhooks_again"], policy.model_name)
        return int(
            await self._on.fetchval(
                _SQL["add_policy"],
                policy.model_name,
                policy.revision,
                policy.set_by,
                policy.to_json(),
            )
        )

    async def find_alert(self, alert_id: str) -> Alert | None:
        row = await self._on.fetchrow(_SQL["read_alert"], alert_id)
        return None if row is None else alert_of(row["body"])

    async def add_acknowledgement(self, alert_id: str, who: str, comment: str) -> None:
        await self._on.execute(_SQL["add_acknowledgement"], alert_id, who, comment)

    async def is_past(self, at_us: int) -> bool:
        """By the database's clock."""
        return bool(await self._on.fetchval(_SQL["is_past"], at_us))

    async def set_mute(self, mute: Mute) -> None:
        await self._on.execute(
            _SQL["set_mute"], *_place(mute), mute.until_us, mute.muted_by, mute.reason
        )

    async def end_mute(self, mute: Mute) -> None:
        await self._on.execute(_SQL["end_mute"], *_place(mute))

    async def mutes(self, model_name: str) -> list[Mute]:
        return await read_mutes(self._on, model_name)


def _place(mute: Mute) -> tuple[str, str, str, str]:
    return (
        mute.model_name,
        "" if mute.rule is None else str(mute.rule),
        mute.feature,
        mute.segment,
    )


@dataclass(frozen=True, slots=True)
class Notification:
    """One event for one webhook, and how its delivery goes."""

    notification_id: str
    model_name: str
    webhook_name: str
    alert_id: str
    alert_revision: int
    body: str
    tries: int
    delivered_at_us: int | None = None
    error: str = ""
    is_given_up: bool = False


@dataclass(frozen=True, slots=True)
class Claimed:
    """One that is to be tried now, by the database's clock."""

    notification: Notification
    now_seconds: int
    # Since it was put out.
    age_seconds: float


async def alert_events(pool: Pool, alert_id: str) -> list[alert_pb2.Alert]:
    """Every event of an alert's life, oldest first; UnknownAlert.

    Of an alert that ended before events were kept there is the last one.
    """
    rows = await pool.fetch(_SQL["alert_events"], alert_id)
    if rows:
        return [alert_pb2.Alert.FromString(row["body"]) for row in rows]
    row = await pool.fetchrow(_SQL["read_alert"], alert_id)
    if row is None:
        raise UnknownAlert(
            f"there is no alert {alert_id!r}; cure: `homeostat alerts list MODEL` shows their ids"
        )
    return [message_of(alert_of(row["body"]))]


class NotificationStore:
    """The outbox of webhooks, from the side of who delivers."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim(self, seconds: float, most: int) -> list[Claimed]:
        """Due ones, one of each webhook; nobody else gets them within so many seconds."""
        rows = await self._pool.fetch(_SQL["claim_notifications"], seconds, most)
        return [Claimed(_notification(row), row["now_seconds"], row["age_seconds"]) for row in rows]

    async def policy(self, model_name: str) -> Policy:
        """The newest one, DEFAULT where nobody set any."""
        async with self._pool.acquire() as connection:
            return await read_policy(connection, model_name)

    async def seconds_to_next(self) -> float | None:
        """When the next one is due; None if none waits."""
        seconds = await self._pool.fetchval(_SQL["next_due_seconds"])
        return None if seconds is None else max(0.0, float(seconds))

    async def note_delivered(self, notification_id: str) -> None:
        """It was taken."""
        await self._pool.execute(_SQL["note_delivered"], notification_id)

    async def note_failed(
        self, notification_id: str, error: str, *, is_given_up: bool, retry_seconds: float
    ) -> None:
        """It was not taken: why, and when to try again."""
        await self._pool.execute(
            _SQL["note_failed"], notification_id, error, is_given_up, retry_seconds
        )

    async def note_gone(self, model_name: str, webhook_name: str, error: str) -> None:
        """Nothing is posted to this webhook any more, until the policy is set anew."""
        await self._pool.execute(_SQL["note_gone"], model_name, webhook_name, error)

    async def newest(self, model_name: str, limit: int) -> list[Notification]:
        """Newest first; "" means all models. UnknownModel."""
        if model_name and not await self._pool.fetchval(_SQL["model_is_known"], model_name):
            raise UnknownModel(f"nothing is known of the model {model_name!r}")
        rows = await self._pool.fetch(_SQL["notifications"], model_name, limit)
        return [_notification(row, row["delivered_at_us"]) for row in rows]


def _notification(row: asyncpg.Record, delivered_at_us: int | None = None) -> Notification:
    fields = dict(row)
    return Notification(
        fields["notification_id"],
        fields["model_name"],
        fields["webhook_name"],
        fields["alert_id"],
        fields["alert_revision"],
        fields["body"],
        fields["tries"],
        delivered_at_us,
        fields["error"],
        fields["is_given_up"],
    )
