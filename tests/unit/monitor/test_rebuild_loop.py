"""The loop around rebuilding: what one version's past leads to stops no other's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.loops.rebuilding import RebuildLoop

POISONED, SOUND = Subject("a", 1), Subject("b", 1)


class Judging:
    @asynccontextmanager
    async def reserved(self, model_name: str) -> AsyncIterator[bool]:
        yield True


class Past:
    async def reached_us(self) -> int:
        return 0


class Store:
    async def due(self) -> list[Subject]:
        return [POISONED, SOUND]


class Loop(RebuildLoop):
    """Its rebuilding fails for one version."""

    error: BaseException
    stop: asyncio.Event

    async def _rebuild(self, subject: Subject) -> bool:
        if subject == POISONED:
            raise self.error
        self.stop.set()
        return True


def a_loop(error: BaseException) -> Loop:
    nothing: Any = None
    judging: Any = Judging()
    past: Any = Past()
    store: Any = Store()
    loop = Loop(nothing, judging, nothing, past=past, rows=nothing)
    loop.error, loop.stop, loop._store = error, asyncio.Event(), store
    return loop


async def test_a_version_that_cannot_be_rebuilt_stops_no_other_and_waits() -> None:
    loop = a_loop(IndexError("of one past"))
    async with asyncio.timeout(10):
        await loop.run(loop.stop)
    assert set(loop._pauses) == {POISONED}


async def test_what_is_wrong_for_all_ends_the_loop() -> None:
    loop = a_loop(MemoryError())
    async with asyncio.timeout(10):
        with pytest.raises(MemoryError):
            await loop.run(loop.stop)
