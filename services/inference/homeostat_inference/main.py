"""Wires the service and runs it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from homeostat.topics import ACTIVATIONS, OUTCOMES, PREDICTIONS, VERSIONS
from homeostat_inference.edges.archive import archived_by
from homeostat_inference.edges.journal import Journal
from homeostat_inference.edges.relay import Relay, Tail
from homeostat_inference.edges.versions import Registry
from homeostat_inference.settings import InferenceSettings
from homeostat_inference.worker import Worker
from homeostat_kit import lifetime, telemetry
from homeostat_kit.grpc_client import connect
from homeostat_kit.kafka import Bus

_SWITCH_SECONDS = 0.0005


def main() -> None:
    """Runs until SIGTERM."""
    # Receiving, journal and event loop hand over to each other in microseconds, not in 5 ms.
    sys.setswitchinterval(_SWITCH_SECONDS)
    lifetime.run(serve, name="inference")


async def serve(stop: asyncio.Event) -> None:
    """Reads the settings, then serves until ``stop``."""
    async with connected(InferenceSettings()) as worker:
        await worker.run(stop)


@asynccontextmanager
async def connected(settings: InferenceSettings) -> AsyncIterator[Worker]:
    """A worker whose connections and journal are open, and that has started nothing."""
    async with AsyncExitStack() as stack:
        slot = settings.data_folder / "worker-0"
        slot.mkdir(parents=True, exist_ok=True)
        observed = telemetry.setup("inference", settings.otlp_endpoint)
        stack.callback(observed.close)
        bus = await stack.enter_async_context(
            Bus(settings.kafka_bootstrap_servers, client_id="inference")
        )
        await bus.ensure_topics((PREDICTIONS, OUTCOMES, ACTIVATIONS, VERSIONS))
        journal = stack.enter_context(
            Journal(
                slot / "journal",
                segment_bytes=settings.journal_segment_bytes,
                quota_bytes=settings.journal_quota_bytes,
                is_durable=settings.durability == "durable",
            )
        )
        registry = await stack.enter_async_context(connect(settings.registry_address))
        ledger: grpc.aio.Channel | None = None
        if settings.ledger_address is not None:
            ledger = await stack.enter_async_context(connect(settings.ledger_address))
        relay = Relay(
            journal,
            bus,
            state_file=slot / "relay.json",
            source_id=settings.server_name,
            tail=Tail(
                settings.journal_tail_bytes,
                settings.journal_tail_seconds,
                crowded_bytes=settings.journal_quota_bytes // 2,
            ),
            are_archived=archived_by(ledger),
        )
        yield Worker(settings, bus, journal, relay, Registry(registry), observed)
