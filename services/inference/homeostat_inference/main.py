"""Wires the service and runs it."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import grpc

from homeostat_inference.edges.nursery import Nursery
from homeostat_inference.settings import InferenceSettings
from homeostat_inference.shadow import run_shadow
from homeostat_inference.worker import import_for_workers, run_worker
from homeostat_kit import lifetime, logs
from homeostat_kit.grpc_server import Security

_SWITCH_SECONDS = 0.0005


def main() -> None:
    """Runs until SIGTERM."""
    settings = InferenceSettings()
    logs.configure("inference", settings.log_level)
    # What people sent, and the socket on which all is asked, are nobody else's.
    os.umask(0o077)
    # What would end every worker ends the start instead.
    Security.of(settings.tls, settings.tokens_file, {}).require_usable()
    # Receiving, journal and event loop hand over to each other in microseconds, not in 5 ms.
    sys.setswitchinterval(_SWITCH_SECONDS)
    # Before this process has connections or a second thread.
    nursery = Nursery.start(
        partial(import_for_workers, with_http=bool(settings.http_address)), partial(_play, settings)
    )
    lifetime.run(partial(serve, settings, nursery), name="inference")


def _play(settings: InferenceSettings, told: Mapping[str, Any], given: Sequence[int]) -> int:
    """What a process that the nursery forked does."""
    if told["role"] == "shadow":
        return run_shadow(settings, told, given)
    return run_worker(settings, told, given)


async def serve(settings: InferenceSettings, nursery: Nursery, stop: asyncio.Event) -> None:
    """Serves until ``stop``."""
    # The keeper's own needs, imported while the nursery imports the workers'.
    from homeostat_inference.edges.archive import fate_by  # noqa: PLC0415
    from homeostat_inference.edges.versions import Registry  # noqa: PLC0415
    from homeostat_inference.keeper import Keeper  # noqa: PLC0415
    from homeostat_kit import telemetry  # noqa: PLC0415
    from homeostat_kit.grpc_client import connect  # noqa: PLC0415
    from homeostat_kit.kafka import Bus  # noqa: PLC0415

    async with AsyncExitStack() as stack:
        observed = telemetry.setup("inference", settings.otlp_endpoint)
        stack.callback(observed.close)
        bus = Bus(settings.kafka_bootstrap_servers, client_id="inference")
        registry = await stack.enter_async_context(
            connect(settings.registry_address, settings.peers)
        )
        ledger: grpc.aio.Channel | None = None
        if settings.ledger_address is not None:
            ledger = await stack.enter_async_context(
                connect(settings.ledger_address, settings.peers)
            )
        keeper = Keeper(settings, nursery, bus, Registry(registry), fate_by(ledger), observed)
        await keeper.run(stop)
