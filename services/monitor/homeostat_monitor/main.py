"""Wires the monitor: settings to edges, edges to use cases, and runs until it is told to leave."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc

from homeostat.progress.v1.progress_pb2 import GetProgressResponse
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat.topics import JOINED, PREDICTIONS, RUNS, TOPICS, VERSIONS, Topic
from homeostat_kit import (
    grpc_client,
    grpc_server,
    lifetime,
    logs,
    memory,
    postgres,
    progress,
    telemetry,
)
from homeostat_kit.kafka import Bus, consume
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.kafka.consumer import Handler
from homeostat_kit.offsets import read_offsets, stored_offsets
from homeostat_kit.outbox import OutboxRelay
from homeostat_monitor.api import service as grpc_api
from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.intake.bus import Listener
from homeostat_monitor.intake.sharing import Sharing
from homeostat_monitor.ledger import LedgerRows
from homeostat_monitor.loops.deepening import DeepeningLoop
from homeostat_monitor.loops.judging import JudgeLoop
from homeostat_monitor.loops.rebuilding import RebuildLoop
from homeostat_monitor.loops.retention import Retention
from homeostat_monitor.metrics import Metrics
from homeostat_monitor.past.ledger import LedgerPast
from homeostat_monitor.recent_policies import RecentPolicies
from homeostat_monitor.settings import MonitorSettings
from homeostat_monitor.store.deepening import DeepeningStore
from homeostat_monitor.store.transaction import Reader
from homeostat_monitor.versions import Versions
from homeostat_monitor.webhooks.loop import WebhookLoop

# What a health check asks for to learn whether every model is judged.
JUDGING_HEALTH = "homeostat.monitor.judging"

_log = logs.get_logger("homeostat_monitor")


def main() -> None:
    """Serves until SIGTERM."""
    memory.be_frugal()
    lifetime.run(lambda stop: serve(MonitorSettings(), stop), name="monitor")


async def serve(settings: MonitorSettings, stop: asyncio.Event) -> None:
    """Everything up, in the order in which it is needed; down in the opposite one."""
    async with AsyncExitStack() as stack:
        traces = telemetry.setup("monitor", settings.otlp_endpoint)
        stack.callback(traces.close)
        metrics = Metrics(traces.meter)
        pool = await postgres.open_pool(settings.database_url.get_secret_value())
        stack.push_async_callback(pool.close)
        await postgres.migrate(pool, "homeostat_monitor")
        bus = Bus(settings.kafka_bootstrap_servers, client_id="monitor")
        await bus.ensure_topics(TOPICS)
        await stack.enter_async_context(bus)
        channel = await stack.enter_async_context(
            grpc_client.connect(settings.registry_address, settings.peers)
        )
        versions = Versions(
            pool,
            RegistryServiceStub(channel),
            settings.data_folder / "references",
            window_us=None if settings.window_seconds is None else settings.window_seconds * 10**6,
            policies=RecentPolicies(pool),
        )
        sharing = Sharing(pool, settings.instance, settings.lease_seconds)
        await sharing.join()
        relay = OutboxRelay(pool, bus, "homeostat/monitor")
        hosts = AllowedHosts.parse(settings.webhook_hosts)
        webhooks = WebhookLoop(
            pool,
            hosts=hosts,
            secrets_folder=settings.webhook_secrets_folder
            or settings.data_folder / "webhook-secrets",
            timeout_seconds=settings.webhook_timeout_seconds,
            give_up_seconds=settings.webhook_give_up_seconds,
            metrics=metrics,
        )

        def told() -> None:
            relay.wake()
            webhooks.wake()

        ledger = await _ledger(settings, stack)
        deepening = _deepening(settings, pool, ledger, told=told)

        loop = JudgeLoop(
            pool,
            versions,
            instance=settings.instance,
            lease_seconds=settings.lease_seconds,
            told=told,
            spans=lambda: list(listener.recent_spans),
            metrics=metrics,
            traces=traces,
        )

        rebuilding = _rebuilding(pool, loop, versions, ledger)
        listener = Listener(
            pool,
            bus,
            versions,
            told=told,
            marked=loop.wake,
            runs_until_accepted=settings.runs_until_accepted,
            metrics=metrics,
            traces=traces,
        )
        monitor = grpc_api.MonitorServicer(
            Reader(pool),
            pool,
            versions,
            hosts=hosts,
            told=told,
            ledger=None if ledger is None else LedgerPast(ledger),
        )
        server = await _serve_grpc(settings, pool, bus, relay, monitor)
        await stack.enter_async_context(server)
        # By itself: the service answers, and other models are judged.
        await loop.tells(lambda well: server.tell_health(JUDGING_HEALTH, is_serving=well))
        _log.info("monitor_serving", address=settings.grpc_address)
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.run(stop))
            group.create_task(webhooks.run(stop))
            group.create_task(loop.run(stop))
            if deepening is not None:
                group.create_task(deepening.run(stop))
            if rebuilding is not None:
                group.create_task(rebuilding.run(stop))
            group.create_task(sharing.run(stop))
            group.create_task(_retention(settings, pool).run(stop))
            for topics, handle in (
                ((VERSIONS, RUNS), listener.on_news),
                ((PREDICTIONS,), listener.on_predictions),
                ((JOINED,), listener.on_joined),
            ):
                reading = _Reading(pool, bus, sharing, settings.poll_records)
                group.create_task(reading.run(topics, handle, stop))


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads this monitor's part of some topics, and another part when the parts change."""

    pool: postgres.Pool
    bus: Bus
    sharing: Sharing
    poll_records: int

    async def run(self, topics: Sequence[Topic], handle: Handler, stop: asyncio.Event) -> None:
        while not stop.is_set():
            changed = self.sharing.changed
            if not any(self.sharing.partitions(each) for each in topics):
                await first_of(stop, changed)
                continue
            over = asyncio.Event()
            watch = asyncio.create_task(_set_after(over, stop, changed))
            try:
                await consume(
                    self.bus,
                    topics,
                    offsets=stored_offsets(self.pool),
                    handle=handle,
                    stop=over,
                    max_records=self.poll_records,
                    partitions=self.sharing.partitions,
                )
            finally:
                watch.cancel()


async def _set_after(over: asyncio.Event, *events: asyncio.Event) -> None:
    await first_of(*events)
    over.set()


async def _ledger(settings: MonitorSettings, stack: AsyncExitStack) -> grpc.aio.Channel | None:
    """None where no ledger is named."""
    if not settings.ledger_address:
        return None
    return await stack.enter_async_context(
        grpc_client.connect(settings.ledger_address, settings.peers)
    )


def _deepening(
    settings: MonitorSettings,
    pool: postgres.Pool,
    ledger: grpc.aio.Channel | None,
    *,
    told: Callable[[], None],
) -> DeepeningLoop | None:
    if ledger is None:
        return None
    return DeepeningLoop(
        DeepeningStore(pool),
        LedgerRows(ledger),
        give_up_seconds=settings.deepening_give_up_seconds,
        told=told,
    )


def _retention(settings: MonitorSettings, pool: postgres.Pool) -> Retention:
    return Retention(
        pool,
        alert_days=settings.alert_retention_days,
        delivery_days=settings.delivery_retention_days,
    )


def _rebuilding(
    pool: postgres.Pool, judging: JudgeLoop, versions: Versions, ledger: grpc.aio.Channel | None
) -> RebuildLoop | None:
    if ledger is None:
        return None
    return RebuildLoop(pool, judging, versions, past=LedgerRows(ledger), rows=LedgerPast(ledger))


async def _serve_grpc(
    settings: MonitorSettings,
    pool: postgres.Pool,
    bus: Bus,
    relay: OutboxRelay,
    monitor: grpc_api.MonitorServicer,
) -> grpc_server.RunningServer:
    reader = Reader(pool)

    async def collect() -> GetProgressResponse:
        # As work flows on: what leaves one place while we look is seen in the next.
        epoch = bus.epoch
        applied = await read_offsets(pool, epoch)
        open_work = await reader.open_work()
        unsent = await relay.unsent_count()
        produced = await relay.produced_positions()
        reached = [await reader.current_us(each.name) for each in (PREDICTIONS, JOINED)]
        known = [each for each in reached if each is not None]
        return progress.progress_response(
            "monitor",
            epoch,
            produced=produced,
            applied=applied,
            unsent_count=unsent,
            open_work_count=open_work,
            watermark_us=min(known) if len(known) == len(reached) else None,
        )

    answers = progress.ProgressServicer(collect)

    def add(server: grpc.aio.Server) -> None:
        monitor.add_to(server)
        answers.add_to(server)

    return await grpc_server.serve(
        settings.grpc_address,
        add,
        errors=grpc_api.ERRORS,
        service_names=[grpc_api.SERVICE_NAME, progress.SERVICE_NAME],
        security=grpc_server.Security.of(
            settings.tls, settings.tokens_file, {**grpc_api.ROLES, **progress.ROLES}
        ),
    )
