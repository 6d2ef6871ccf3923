"""Wires the registry and runs it."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import grpc

from homeostat.progress.v1.progress_pb2 import GetProgressResponse
from homeostat.topics import VERSIONS
from homeostat_kit import grpc_server, lifetime, logs, postgres, telemetry
from homeostat_kit.clock import SystemClock
from homeostat_kit.grpc_server import Security
from homeostat_kit.kafka import Bus
from homeostat_kit.outbox import OutboxRelay
from homeostat_kit.progress import ROLES as PROGRESS_ROLES
from homeostat_kit.progress import SERVICE_NAME as PROGRESS
from homeostat_kit.progress import ProgressServicer, progress_response
from homeostat_registry.app.registering import Limits
from homeostat_registry.artifacts import DiskShelf
from homeostat_registry.domain.gate import GateRule
from homeostat_registry.grpc_api import ERRORS, ROLES, SERVICE_NAME, RegistryApi, Tools
from homeostat_registry.judge import JailedJudge, JudgeLimits
from homeostat_registry.metrics import Metrics
from homeostat_registry.settings import RegistrySettings
from homeostat_registry.store import PostgresBook

_CHUNK_BYTES = 1024 * 1024

_log = logs.get_logger("homeostat_registry")


def main() -> None:
    """Serves until SIGTERM."""
    settings = RegistrySettings()
    logs.configure("registry", settings.log_level)
    lifetime.run(partial(serve, settings), name="registry")


async def serve(settings: RegistrySettings, stop: asyncio.Event) -> None:
    """The whole service; stops taking calls, ends those in hand, sends what it can, closes."""
    clock = SystemClock()
    instruments = telemetry.setup("registry", settings.otlp_endpoint)
    async with AsyncExitStack() as stack:
        stack.callback(instruments.close)
        pool = await postgres.open_pool(settings.database_url.get_secret_value())
        stack.push_async_callback(pool.close)
        await postgres.migrate(pool, "homeostat_registry")
        bus = await stack.enter_async_context(
            Bus(settings.kafka_bootstrap_servers, client_id="homeostat-registry")
        )
        relay = OutboxRelay(pool, bus, "homeostat/registry")
        judge = _judge(settings)
        stack.callback(judge.close)
        tools = Tools(
            book=PostgresBook(pool, clock, committed=relay.wake),
            shelf=DiskShelf(settings.data_folder / "artifacts"),
            judge=judge,
            clock=clock,
            rule=GateRule(settings.min_holdout_rows, settings.gate_error_probability),
            limits=_limits(settings),
            metrics=Metrics(instruments),
            most_registrations=settings.most_registrations_at_once,
        )
        api = RegistryApi(tools)
        server = await _serve_grpc(settings, api, bus, relay)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_prepare_topics(bus), name="topics")
            tasks.create_task(relay.run(stop), name="relay")
            _log.info("serving", address=server.address)
            await stop.wait()
            await server.stop()


def _judge(settings: RegistrySettings) -> JailedJudge:
    limits = JudgeLimits(
        settings.admission_memory_bytes,
        settings.admission_cpu_seconds,
        settings.admission_wall_seconds,
    )
    return JailedJudge(settings.data_folder / "judge", limits)


def _limits(settings: RegistrySettings) -> Limits:
    return Limits(
        settings.model_limit_bytes,
        settings.reference_limit_bytes,
        _CHUNK_BYTES,
        settings.future_bound_seconds,
    )


async def _serve_grpc(
    settings: RegistrySettings, api: RegistryApi, bus: Bus, relay: OutboxRelay
) -> grpc_server.RunningServer:
    async def progress() -> GetProgressResponse:
        # In the order in which work moves on: what leaves one count is in a later one; all of one
        # epoch, though the broker be exchanged meanwhile.
        epoch = bus.epoch
        open_count = api.open_count
        unsent_count = await relay.unsent_count()
        return progress_response(
            "registry",
            epoch,
            produced=await relay.produced_positions(),
            applied={},
            unsent_count=unsent_count,
            open_work_count=open_count,
        )

    def add(server: grpc.aio.Server) -> None:
        api.add_to(server)
        ProgressServicer(progress).add_to(server)

    return await grpc_server.serve(
        settings.grpc_address,
        add,
        errors=ERRORS,
        service_names=[SERVICE_NAME, PROGRESS],
        security=Security.of(settings.tls, settings.tokens_file, {**ROLES, **PROGRESS_ROLES}),
    )


async def _prepare_topics(bus: Bus) -> None:
    await bus.ensure_topics([VERSIONS])
