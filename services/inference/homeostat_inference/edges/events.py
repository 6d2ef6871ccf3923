"""Waiting for the first of some events."""

import asyncio
from collections.abc import Iterable


async def wait_for(events: Iterable[asyncio.Event], seconds: float | None = None) -> None:
    """Until one of them is set, or the time is over."""
    waits = [asyncio.ensure_future(each.wait()) for each in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waits:
            each.cancel()
