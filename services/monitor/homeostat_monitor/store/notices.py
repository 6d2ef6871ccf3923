"""PostgreSQL: what is told of alerts is kept, and put into the outbox of webhooks."""

from collections.abc import Sequence
from dataclasses import replace

from homeostat_kit.postgres import Connection, queries
from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.alerts.notices import Silence, listeners, quieted
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.policies.policy import DEFAULT, Mute, Policy
from homeostat_monitor.messages.alerts import message_of
from homeostat_monitor.webhooks.bodies import body_of, notification_id

_SQL = queries("homeostat_monitor", "policies.sql")


async def read_policy(connection: Connection, model_name: str) -> Policy:
    """The newest one, DEFAULT where nobody set any."""
    row = await connection.fetchrow(_SQL["newest_policy"], model_name)
    if row is None:
        return DEFAULT.of(model_name)
    policy = Policy.stored(model_name, row["revision"], row["body"])
    return replace(policy, set_at_us=row["set_at_us"])


async def read_mutes(connection: Connection, model_name: str) -> list[Mute]:
    """Those that have not ended."""
    rows = await connection.fetch(_SQL["mutes"], model_name)
    return [
        Mute(
            row["model_name"],
            Rule(row["rule"]) if row["rule"] else None,
            row["feature"],
            row["segment"],
            row["until_us"],
            row["muted_by"],
            row["reason"],
        )
        for row in rows
    ]


async def note_told(connection: Connection, alerts: Sequence[Alert]) -> list[Alert]:
    """The alerts with their silence: kept as events, and put out for the webhooks that hear of
    them. In the transaction that tells them on the topic."""
    said: list[Alert] = []
    for model_name in dict.fromkeys(each.subject.model_name for each in alerts):
        of_model = [each for each in alerts if each.subject.model_name == model_name]
        policy = await read_policy(connection, model_name)
        said.extend(await _quieted(connection, policy, of_model))
        await _put_out(connection, policy, said[-len(of_model) :])
    messages = [message_of(each) for each in said]
    await connection.execute(
        _SQL["add_alert_events"],
        [each.alert_id for each in said],
        [each.revision for each in said],
        [each.is_muted for each in said],
        [each.SerializeToString() for each in messages],
    )
    return said


async def _quieted(
    connection: Connection, policy: Policy, alerts: Sequence[Alert]
) -> Sequence[Alert]:
    model_name = alerts[0].subject.model_name
    throttles = await connection.fetch(_SQL["throttles"], model_name)
    ids = [each.alert_id for each in alerts]
    heard = await connection.fetch(_SQL["heard_alerts"], ids)
    silence = Silence(
        mutes=await read_mutes(connection, model_name),
        throttle_us=round(policy.throttle_seconds * 1e6),
        last_told_us={(row["rule"], row["segment"]): row["last_us"] for row in throttles},
        heard={row["alert_id"] for row in heard},
    )
    said, told = quieted(alerts, silence)
    if told:
        await connection.execute(
            _SQL["set_throttles"],
            model_name,
            [rule for rule, _ in told],
            [segment for _, segment in told],
            list(told.values()),
        )
    return said


async def _put_out(connection: Connection, policy: Policy, alerts: Sequence[Alert]) -> None:
    posts = [
        (each.name, message_of(alert)) for alert in alerts for each in listeners(policy, alert)
    ]
    if not posts:
        return
    await connection.execute(
        _SQL["add_notifications"],
        [notification_id(message, name) for name, message in posts],
        [message.model_name for _, message in posts],
        [name for name, _ in posts],
        [message.alert_id for _, message in posts],
        [message.revision for _, message in posts],
        [body_of(message, name) for name, message in posts],
    )
