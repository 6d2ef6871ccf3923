"""Waiting on a condition with a deadline, instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any

# Not a claim about speed: what a slow machine that does much else may need.
PATIENCE_SECONDS = 60.0


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]],
    *,
    seconds: float = PATIENCE_SECONDS,
    what: str = "",
) -> Any:
    """The first true value of ``condition``; AssertionError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        await asyncio.sleep(0.01)
