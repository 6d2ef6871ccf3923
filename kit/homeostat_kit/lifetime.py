"""The life of a service's process: starts the loop, hears SIGTERM, and leaves in time."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable

import uvloop

from homeostat_kit import logs

# A supervisor kills after 10 s; leaving by ourselves says why in the log.
_LEAVE_SECONDS = 9.0
_LEFT_LATE = 70

_log = logs.get_logger("homeostat_kit.lifetime")


def run(serve: Callable[[asyncio.Event], Awaitable[None]], *, name: str) -> None:
    """Runs ``serve(stop)`` until it returns. SIGTERM and SIGINT set ``stop``; a process that has
    not left 9 s later is ended. Exits with status 1 if ``serve`` raised.
    """
    logs.configure(name, os.environ.get("HOMEOSTAT_LOG_LEVEL", "INFO"))
    try:
        uvloop.run(_serve(serve, name))
    except Exception:
        _log.exception("service_failed", name=name)
        sys.stdout.flush()
        sys.exit(1)


async def _serve(serve: Callable[[asyncio.Event], Awaitable[None]], name: str) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave(received: signal.Signals) -> None:
        if stop.is_set():
            return
        _log.info("service_leaving", name=name, signal=received.name)
        stop.set()
        _end_after(_LEAVE_SECONDS, name)

    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, leave, each)
    _log.info("service_starting", name=name, pid=os.getpid())
    await serve(stop)
    _log.info("service_left", name=name)


def _end_after(seconds: float, name: str) -> None:
    """A thread, because a loop that is blocked could not end itself."""

    def end() -> None:
        _log.error("service_left_late", name=name, seconds=seconds)
        sys.stdout.flush()
        os._exit(_LEFT_LATE)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
