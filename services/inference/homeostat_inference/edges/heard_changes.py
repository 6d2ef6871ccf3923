"""The registry's topic: what has changed, one record after the other, and how far that is known."""

import asyncio

from homeostat.topics import VERSIONS
from homeostat_inference.edges.following import Following
from homeostat_kit.kafka import Batch, Bus, consume, from_the_start


class HeardChanges:
    """Tells it to whoever follows the registry."""

    def __init__(self, bus: Bus, following: Following) -> None:
        self._bus = bus
        self._following = following
        self._epoch = ""
        self._applied: dict[tuple[str, int], int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """From the start on, in every life of the broker."""
        await consume(self._bus, [VERSIONS], offsets=from_the_start, handle=self._hear, stop=stop)

    async def _hear(self, batch: Batch) -> None:
        # Of several changes of one model only the last says what serves now.
        last = {change.model_name: change for _, change in batch.records}
        for change in last.values():
            await self._following.hear(change)
        if batch.epoch != self._epoch:
            self._epoch, self._applied = batch.epoch, {}
        self._applied.update(batch.next_offsets)

    def applied(self, epoch: str) -> dict[tuple[str, int], int]:
        """Next offsets by (topic, partition), in this life of the broker."""
        return self._applied if self._epoch == epoch else {}
