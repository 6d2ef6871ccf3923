"""Clients that ask for predictions of many rows at a pace, whatever the answers take."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import grpc
import numpy as np
from benchmarks.latency.world import Fault, rows_of

from homeostat.client import Client, infer_request

# Requests of one client that may be under way; more wait, and the rate falls behind.
_UNDER_WAY = 8


@dataclass(slots=True)
class Load:
    """What is sent, and what came of it."""

    models: Sequence[str]
    rows_per_second: int
    rows_per_request: int
    rng: np.random.Generator
    # What has happened to each model so far.
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    answered_rows: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    answer_seconds: list[float] = field(default_factory=list)

    async def run(self, clients: Sequence[Client], stop: asyncio.Event) -> None:
        """Until ``stop``."""
        begun = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(self._pace(client, number, len(clients), begun, stop))

    async def _pace(
        self, client: Client, number: int, clients: int, begun: float, stop: asyncio.Event
    ) -> None:
        """Every so many-th request of all."""
        room = asyncio.Semaphore(_UNDER_WAY)
        interval = self.rows_per_request / self.rows_per_second
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                await asyncio.sleep(max(0.0, begun + number * interval - time.perf_counter()))
                await room.acquire()
                model = self.models[number % len(self.models)]
                group.create_task(self._ask(client, model, room))
                number += clients

    async def _ask(self, client: Client, model: str, room: asyncio.Semaphore) -> None:
        try:
            rows = rows_of(self.rows_per_request, self.rng)
            for each in self.faults.get(model, ()):
                each.change(rows, self.rng)
            begun = time.perf_counter()
            await client.infer(infer_request(model, rows))
            self.answer_seconds.append(time.perf_counter() - begun)
            self.answered_rows += self.rows_per_request
        except grpc.aio.AioRpcError as error:
            self.refused[error.code().name] += 1
        finally:
            room.release()
