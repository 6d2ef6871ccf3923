"""Wires the retrainer and runs it."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import grpc

from homeostat.channels import ChannelSecurity
from homeostat.progress.v1.progress_pb2 import GetProgressResponse
from homeostat.topics import ALERTS, JOINED, RUNS, VERSIONS
from homeostat_kit import grpc_client, lifetime, logs, memory, telemetry
from homeostat_kit.clock import SystemClock
from homeostat_kit.grpc_server import Security
from homeostat_kit.grpc_server import serve as serve_grpc
from homeostat_kit.kafka import Bus, consume
from homeostat_kit.offsets import read_offsets, stored_offsets
from homeostat_kit.outbox import OutboxRelay
from homeostat_kit.postgres import Pool, migrate, open_pool
from homeostat_kit.progress import ROLES as PROGRESS_ROLES
from homeostat_kit.progress import SERVICE_NAME as PROGRESS
from homeostat_kit.progress import ProgressServicer, progress_response
from homeostat_kit.telemetry import Telemetry
from homeostat_retrainer.app.remedy import Tools
from homeostat_retrainer.bus import Ears
from homeostat_retrainer.domain.policy import Policy
from homeostat_retrainer.domain.split import Windows
from homeostat_retrainer.grpc_api import ERRORS, ROLES, SERVICE_NAME, RetrainerApi
from homeostat_retrainer.metrics import Metrics
from homeostat_retrainer.peers import LedgerClient, RegistryClient
from homeostat_retrainer.runner import Runner
from homeostat_retrainer.settings import RetrainerSettings
from homeostat_retrainer.store import PostgresRuns
from homeostat_retrainer.workshop.supervisor import Limits, Supervisor

_MICROS = 1_000_000

_log = logs.get_logger("homeostat_retrainer")


def main() -> None:
    """The process."""
    memory.be_frugal(arrow_threads=1)
    settings = RetrainerSettings()
    lifetime.run(lambda stop: serve(settings, stop), name="retrainer")


async def serve(settings: RetrainerSettings, stop: asyncio.Event) -> None:
    """Runs until ``stop``; a part that fails takes the whole down."""
    async with AsyncExitStack() as stack:
        observed = telemetry.setup("retrainer", settings.otlp_endpoint)
        stack.callback(observed.close)
        pool = await open_pool(settings.database_url.get_secret_value())
        stack.push_async_callback(pool.close)
        await migrate(pool, "homeostat_retrainer")
        bus = Bus(settings.kafka_bootstrap_servers, client_id="retrainer")
        relay = OutboxRelay(pool, bus, "homeostat/retrainer")
        registry = RegistryClient(await _channel(stack, settings.registry_address, settings.peers))
        ledger = LedgerClient(await _channel(stack, settings.ledger_address, settings.peers))
        workshop = Supervisor(_limits(settings))
        tools = Tools(registry, ledger, workshop, Windows(settings.longest_window_share))
        runs, metrics = PostgresRuns(pool), Metrics(observed.meter)
        runner = _runner(settings, pool, runs, tools, workshop, metrics, observed, relay)
        ears = Ears(pool, bus, registry, policy_of(settings), metrics, _both(runner, relay))
        await bus.ensure_topics((ALERTS, VERSIONS, JOINED, RUNS))
        await stack.enter_async_context(bus)
        await _open_doors(settings, stack, pool, runs, runner, bus, relay)
        # Last: its imports take seconds of a core, which nobody should wait for.
        await stack.enter_async_context(workshop)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(relay.run(stop), name="relay")
            tasks.create_task(runner.run(stop), name="runner")
            tasks.create_task(
                consume(
                    bus,
                    (VERSIONS, JOINED, ALERTS),
                    offsets=stored_offsets(pool),
                    handle=ears.handle,
                    stop=stop,
                ),
                name="consumer",
            )


def policy_of(settings: RetrainerSettings) -> Policy:
    """The policy that the settings describe."""
    return Policy(
        cool_down_share=settings.cool_down_share,
        volume_share=settings.truth_volume_share or None,
        follow_up_shares=settings.follow_up_shares,
        schedule_us=settings.schedule_seconds * _MICROS or None,
        budget_runs=settings.budget_runs,
        budget_period_us=settings.budget_period_seconds * _MICROS,
    )


def _limits(settings: RetrainerSettings) -> Limits:
    return Limits(
        memory_bytes=settings.worker_memory_bytes,
        cpu_seconds=settings.worker_cpu_seconds,
        wall_seconds=settings.worker_wall_seconds,
        niceness=settings.worker_niceness,
    )


def _runner(
    settings: RetrainerSettings,
    pool: Pool,
    runs: PostgresRuns,
    tools: Tools,
    workshop: Supervisor,
    metrics: Metrics,
    observed: Telemetry,
    relay: OutboxRelay,
) -> Runner:
    return Runner(
        pool,
        runs,
        tools,
        metrics,
        observed.tracer,
        relay.wake,
        workshop.rest,
        instance_id=settings.instance_id,
        lease_seconds=settings.lease_seconds,
        peer_away_seconds=settings.peer_away_seconds,
    )


def _both(runner: Runner, relay: OutboxRelay) -> Callable[[], None]:
    def wake() -> None:
        runner.wake()
        relay.wake()

    return wake


async def _channel(
    stack: AsyncExitStack, address: str, security: ChannelSecurity
) -> grpc.aio.Channel:
    channel = grpc_client.connect(address, security)
    stack.push_async_callback(channel.close)
    return channel


async def _open_doors(
    settings: RetrainerSettings,
    stack: AsyncExitStack,
    pool: Pool,
    runs: PostgresRuns,
    runner: Runner,
    bus: Bus,
    relay: OutboxRelay,
) -> None:
    api = RetrainerApi(pool, runs, policy_of(settings), SystemClock(), runner.wake)

    async def collect() -> GetProgressResponse:
        # Applied first: what an offset covers is then in the open work that is counted after it.
        # All of one epoch, though the broker be exchanged meanwhile.
        epoch = bus.epoch
        applied = await read_offsets(pool, epoch)
        open_work = await runs.count_open_work()
        unsent = await relay.unsent_count()
        return progress_response(
            "retrainer",
            epoch,
            produced=await relay.produced_positions(),
            applied=applied,
            unsent_count=unsent,
            open_work_count=open_work,
            watermark_us=await runs.watermark_us(),
        )

    def add(server: grpc.aio.Server) -> None:
        api.add_to(server)
        ProgressServicer(collect).add_to(server)

    await stack.enter_async_context(
        await serve_grpc(
            settings.grpc_address,
            add,
            errors=ERRORS,
            service_names=(SERVICE_NAME, PROGRESS),
            security=Security.of(settings.tls, settings.tokens_file, {**ROLES, **PROGRESS_ROLES}),
        )
    )
    _log.info("retrainer_serving", address=settings.grpc_address)
