"""PostgreSQL: what is asked outside of transactions."""

import asyncio
from collections.abc import Mapping

import numpy as np

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_kit.postgres import Pool, queries
from homeostat_monitor.app.replaying import Marks, Promotion
from homeostat_monitor.domain.alerts.alert import Alert, Subject
from homeostat_monitor.domain.errors import UnknownModel
from homeostat_monitor.ports import Standing, StateKey
from homeostat_monitor.store.rows import alert_of, standing_of

# Alerts in one answer: about 10 MB.
_MOST_LISTED = 10_000
_BEFORE_ALL = -(2**63)

_SQL = queries("homeostat_monitor")


class Reader:
    """Questions, each answered from what is committed."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def models(self) -> list[str]:
        """Every model, by name."""
        return [row["model_name"] for row in await self._pool.fetch(_SQL["models"])]

    async def watched(self, model_name: str) -> list[Subject]:
        """The versions of a model that are judged."""
        rows = await self._pool.fetch(_SQL["watched_versions"], model_name)
        return [Subject(row["model_name"], row["version"]) for row in rows]

    async def current_us(self, topic: str) -> int | None:
        """The topic's watermark."""
        row = await self._pool.fetchrow(_SQL["read_watermark"], topic)
        return row["current_us"] if row is not None else None

    async def marks(self) -> Marks:
        """Values that the watermarks took, as far as they are remembered."""
        recorded = {}
        for topic in (PREDICTIONS.name, JOINED.name):
            rows = await self._pool.fetch(_SQL["past_marks"], topic)
            recorded[topic] = np.array([row["watermark_us"] for row in rows], dtype=np.int64)
        return Marks(recorded)

    async def promotions(self, model_name: str) -> list[Promotion]:
        """When each version took over last, by time."""
        rows = await self._pool.fetch(_SQL["promotions"], model_name)
        return [Promotion(row["version"], row["serving_since_us"]) for row in rows]

    async def due_models(self, *, most: int) -> list[str]:
        """Models that have something to judge at the marks that were reached."""
        windows_us, losses_us = await self.reached()
        rows = await self._pool.fetch(_SQL["due_models"], windows_us, losses_us, most)
        return [row["model_name"] for row in rows]

    async def open_work(self) -> int:
        """How many they are."""
        return int(await self._pool.fetchval(_SQL["open_work"], *await self.reached()))

    async def reached(self) -> tuple[int, int]:
        """Marks up to which windows, and up to which losses can be judged."""
        row = await self._pool.fetchrow(_SQL["reached"], PREDICTIONS.name, JOINED.name)
        if row is None:
            return _BEFORE_ALL, _BEFORE_ALL
        marks = (row["windows_us"], row["losses_us"])
        windows_us, losses_us = (_BEFORE_ALL if each is None else each for each in marks)
        return windows_us, losses_us

    async def list_alerts(self, model_name: str, *, open_only: bool) -> list[Alert]:
        """The last event of each alert, the newest 10,000 first to last; "" means all models."""
        asked = ("list_alerts", model_name) if model_name else ("list_all_alerts",)
        rows = await self._pool.fetch(_SQL[asked[0]], *asked[1:], open_only, _MOST_LISTED)
        # Seconds, where there are thousands.
        return await asyncio.to_thread(lambda: [alert_of(row["body"]) for row in rows])

    async def champion(self, model_name: str) -> Standing | None:
        """The version that serves, or the newest that was seen; None before any was."""
        model = await self._pool.fetchrow(_SQL["read_model"], model_name)
        if model is None:
            raise UnknownModel(f"nothing is known of the model {model_name!r}")
        row = await self._pool.fetchrow(_SQL["newest_version"], model_name)
        if model["champion_version"] is not None:
            champion = await self._pool.fetchrow(
                _SQL["read_version"], model_name, model["champion_version"]
            )
            row = champion or row
        return standing_of(row) if row is not None else None

    async def states(self, subject: Subject) -> Mapping[StateKey, bytes]:
        """What the version's detectors and watches remember."""
        rows = await self._pool.fetch(_SQL["all_states"], subject.model_name, subject.version)
        return {StateKey(row["segment"], row["name"]): row["state"] for row in rows}

    async def tallies(self, subject: Subject) -> Mapping[str, int]:
        """Counts of what happened, by name."""
        rows = await self._pool.fetch(_SQL["read_tallies"], subject.model_name, subject.version)
        return {row["name"]: row["total"] for row in rows}

    async def remarks(self, subject: Subject) -> list[str]:
        """What was skipped or could not be judged."""
        rows = await self._pool.fetch(_SQL["read_remarks"], subject.model_name, subject.version)
        return [row["text"] for row in rows]

    async def rebuilds(self, subject: Subject) -> list[StateKey]:
        """Detectors that wait for the ledger's past."""
        rows = await self._pool.fetch(_SQL["rebuilds"], subject.model_name, subject.version)
        return [StateKey(row["segment"], row["name"]) for row in rows]

    async def open_alert_count(self, model_name: str) -> int:
        """Alerts of all its versions that are open."""
        return int(await self._pool.fetchval(_SQL["count_open_alerts"], model_name))
