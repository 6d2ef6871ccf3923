"""PostgreSQL: alerts, and what is told of them."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from homeostat.ids import event_id
from homeostat.topics import ALERTS
from homeostat_kit import outbox
from homeostat_kit.postgres import Connection, queries
from homeostat_kit.telemetry import traceparent
from homeostat_monitor.domain.alerts.alert import LOSS_RULES, Alert, Subject
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.messages.alerts import message_of
from homeostat_monitor.store import notices as store_notices
from homeostat_monitor.store.rows import alert_of

_SQL = queries("homeostat_monitor")


class AlertsStore:
    """Its part of the use cases' port."""

    _on: Connection

    async def policy(self, model_name: str) -> Policy:
        """The newest one, DEFAULT where nobody set any."""
        return await store_notices.read_policy(self._on, model_name)

    async def open_alerts(self, subject: Subject) -> list[Alert]:
        """Of one version, all segments."""
        return await self._alerts("open_alerts", subject.model_name, subject.version)

    async def input_alerts_at(self, subject: Subject, watermark_us: int) -> list[Alert]:
        """What of the inputs stood open at that watermark."""
        return await self._alerts(
            "input_alerts_at",
            subject.model_name,
            subject.version,
            watermark_us,
            sorted(LOSS_RULES),
        )

    async def open_alerts_of_others(self, model_name: str, version: int) -> list[Alert]:
        """Of every version but this one."""
        return await self._alerts("open_alerts_of_others", model_name, version)

    async def _alerts(self, query: str, *arguments: Any) -> list[Alert]:
        return [alert_of(row["body"]) for row in await self._on.fetch(_SQL[query], *arguments)]

    async def save_alerts(self, alerts: Sequence[Alert]) -> None:
        """Stores the state; says nothing."""
        if not alerts:
            return
        await self._on.execute(
            _SQL["save_alerts"],
            [each.alert_id for each in alerts],
            [each.subject.model_name for each in alerts],
            [each.subject.version for each in alerts],
            [str(each.rule) for each in alerts],
            [each.segment for each in alerts],
            [each.is_open for each in alerts],
            [each.opened_at for each in alerts],
            [None if each.is_open else each.moment.watermark_us for each in alerts],
            [each.moment.occurred_us for each in alerts],
            [each.is_of_truths for each in alerts],
            [json.dumps(asdict(each)) for each in alerts],
        )

    async def tell(self, alerts: Sequence[Alert]) -> None:
        """Puts the alerts into the outbox, one event each, and out for the webhooks that hear."""
        if not alerts:
            return
        said = await store_notices.note_told(self._on, alerts)
        await self.save_alerts(
            [each for each, was in zip(said, alerts, strict=True) if each is not was]
        )
        await outbox.put_many(
            self._on,
            [
                outbox.Event(
                    topic=ALERTS,
                    key=each.subject.model_name.encode(),
                    message=message_of(each),
                    event_id=event_id("alert", each.alert_id, each.revision),
                    occurred_at_us=each.moment.occurred_us,
                    traceparent=traceparent(),
                )
                for each in said
            ],
        )
