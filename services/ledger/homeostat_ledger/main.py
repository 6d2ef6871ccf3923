"""Wires the ledger and runs it."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
from opentelemetry.trace import Tracer

from homeostat.progress.v1.progress_pb2 import GetProgressResponse
from homeostat.topics import JOINED, OUTCOMES, PREDICTIONS
from homeostat_kit import lifetime, logs, memory, telemetry
from homeostat_kit.clock import SystemClock
from homeostat_kit.grpc_server import Security
from homeostat_kit.grpc_server import serve as serve_grpc
from homeostat_kit.kafka import Batch, Bus, consume
from homeostat_kit.kafka.bus import first_of
from homeostat_kit.offsets import read_offsets, stored_offsets
from homeostat_kit.outbox import OutboxRelay
from homeostat_kit.postgres import Pool, migrate, open_pool
from homeostat_kit.progress import ROLES as PROGRESS_ROLES
from homeostat_kit.progress import SERVICE_NAME as PROGRESS
from homeostat_kit.progress import ProgressServicer, progress_response
from homeostat_ledger.app.compact import compact
from homeostat_ledger.app.expire import expire
from homeostat_ledger.archive.files import ParquetArchive
from homeostat_ledger.bus.dead import refuser, teller
from homeostat_ledger.bus.intake import Intaker, Limits, Sources
from homeostat_ledger.domain.errors import Superseded
from homeostat_ledger.grpc_api import ERRORS, ROLES, SERVICE_NAME, LedgerApi
from homeostat_ledger.metrics import Metrics
from homeostat_ledger.settings import LedgerSettings
from homeostat_ledger.store.away import away_is_told
from homeostat_ledger.store.finding import PostgresFinder
from homeostat_ledger.store.index import PostgresIndex, become_writer
from homeostat_ledger.store.memory import SQL
from homeostat_ledger.store.past import PostgresPast

_CARE_SECONDS = 1.0
# Readers may still have a merged file open; it stays so many rounds of care.
_FORGET_AFTER_ROUNDS = 30
_MICROS = 1_000_000

_log = logs.get_logger("homeostat_ledger")


def main() -> None:
    """The process."""
    memory.be_frugal()
    settings = LedgerSettings()
    lifetime.run(lambda stop: serve(settings, stop), name="ledger")


@dataclass(frozen=True, slots=True)
class _Ledger:
    """What the running parts share."""

    settings: LedgerSettings
    pool: Pool
    bus: Bus
    relay: OutboxRelay
    index: PostgresIndex
    archive: ParquetArchive
    metrics: Metrics
    tracer: Tracer

    def intaker(self) -> Intaker:
        """Takes in what the topics say."""
        return Intaker(
            index=self.index,
            archive=self.archive,
            refuse=refuser(self.bus),
            limits=_limits(self.settings),
            clock=SystemClock(),
            load_sources=lambda: _sources(self.pool),
            metrics=self.metrics,
            tracer=self.tracer,
        )

    def api(self) -> LedgerApi:
        """Answers calls."""
        limits = _limits(self.settings)
        return LedgerApi(
            index=self.index,
            archive=self.archive,
            finder=PostgresFinder(self.pool),
            past=PostgresPast(self.pool),
            client_key_secret=limits.client_key_secret,
            known_at_ahead_us=limits.known_at_ahead_us,
            clock=SystemClock(),
            metrics=self.metrics,
        )

    async def progress(self, *, is_busy: bool) -> GetProgressResponse:
        """In this order: what was applied is in the outbox, and what left it has a position."""
        # Of one epoch, though the broker be exchanged meanwhile.
        epoch = self.bus.epoch
        with away_is_told():
            applied = await read_offsets(self.pool, epoch)
            unsent_count = await self.relay.unsent_count()
            produced = await self.relay.produced_positions()
        return progress_response(
            "ledger",
            epoch,
            produced=produced,
            applied=applied,
            unsent_count=unsent_count,
            open_work_count=int(is_busy),
            watermark_us=self.index.forwarded_us,
        )


async def serve(settings: LedgerSettings, stop: asyncio.Event) -> None:
    """Runs until ``stop``; a part that fails takes the whole down."""
    async with AsyncExitStack() as stack:
        ledger = await _open(settings, stack)
        intaker, api = ledger.intaker(), ledger.api()

        def add(server: grpc.aio.Server) -> None:
            api.add_to(server)
            ProgressServicer(lambda: ledger.progress(is_busy=intaker.is_busy)).add_to(server)

        # Questions are answered without the broker, too.
        server = await serve_grpc(
            settings.grpc_address,
            add,
            errors=ERRORS,
            service_names=(SERVICE_NAME, PROGRESS),
            security=Security.of(settings.tls, settings.tokens_file, {**ROLES, **PROGRESS_ROLES}),
        )
        await stack.enter_async_context(server)
        _log.info("ledger_serving", address=server.address)
        await ledger.bus.ensure_topics((PREDICTIONS, OUTCOMES, JOINED))
        await stack.enter_async_context(ledger.bus)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ledger.relay.run(stop), name="relay")
            tasks.create_task(_Care(ledger, intaker).run(stop), name="care")
            tasks.create_task(_consume(ledger, intaker, stop), name="consumer")


async def _open(settings: LedgerSettings, stack: AsyncExitStack) -> _Ledger:
    observed = telemetry.setup("ledger", settings.otlp_endpoint)
    stack.callback(observed.close)
    pool = await open_pool(settings.database_url.get_secret_value())
    stack.push_async_callback(pool.close)
    await migrate(pool, "homeostat_ledger")
    bus = Bus(settings.kafka_bootstrap_servers, client_id="ledger")
    relay = OutboxRelay(pool, bus, "homeostat/ledger", retained_rows=settings.outbox_retained_rows)
    index = PostgresIndex(pool, await become_writer(pool), SystemClock(), relay.wake)
    index.forwarded_us = await pool.fetchval(SQL["read_forwarded"])
    archive = ParquetArchive(settings.data_folder / "archive", cache_bytes=settings.cache_bytes)
    await _clean(pool, archive)
    return _Ledger(
        settings, pool, bus, relay, index, archive, Metrics(observed.meter), observed.tracer
    )


async def _consume(ledger: _Ledger, intaker: Intaker, stop: asyncio.Event) -> None:
    async def handle(batch: Batch) -> None:
        try:
            await intaker.handle(batch)
        except Superseded:
            # A newer process has taken over: this one has nothing left to do.
            _log.error("superseded")
            stop.set()
            raise

    await consume(
        ledger.bus,
        (PREDICTIONS, OUTCOMES),
        offsets=stored_offsets(ledger.pool),
        handle=handle,
        stop=stop,
        max_records=ledger.settings.poll_records,
    )


class _Care:
    """What is done once a second beside the stream: merging files, giving up parked truth."""

    def __init__(self, ledger: _Ledger, intaker: Intaker) -> None:
        self._retention_us = ledger.settings.parked_retention_seconds * _MICROS
        self._index = ledger.index
        self._archive = ledger.archive
        self._metrics = ledger.metrics
        self._tell = teller(ledger.bus.produce_many)
        self._intaker = intaker
        self._expired_us: int | None = None
        self._replaced: list[list[str]] = []

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; what the world does not allow now is tried again."""
        while not stop.is_set():
            await first_of(stop, timeout=_CARE_SECONDS)
            try:
                await self._merge()
                await self._expire()
            except Superseded:
                stop.set()
            except Exception:
                _log.exception("care_interrupted")

    async def _merge(self) -> None:
        replaced = await compact(index=self._index, archive=self._archive)
        self._metrics.merged(len(replaced))
        if replaced:
            _log.info("files_merged", files=len(replaced))
        self._replaced.append(replaced)
        if len(self._replaced) > _FORGET_AFTER_ROUNDS:
            self._archive.forget(self._replaced.pop(0))

    async def _expire(self) -> None:
        watermark = self._intaker.sources.outcomes_us
        if watermark is None or watermark == self._expired_us:
            return
        before_us = watermark - self._retention_us
        while count := await expire(before_us, index=self._index, tell=self._tell):
            self._metrics.expired(count)
            _log.warning("parked_truth_given_up", rows=count)
        self._expired_us = watermark


def _limits(settings: LedgerSettings) -> Limits:
    return Limits(
        event_time_ahead_us=settings.event_time_ahead_seconds * _MICROS,
        known_at_ahead_us=settings.known_at_ahead_seconds * _MICROS,
        client_key_secret=settings.client_key_secret.get_secret_value().encode(),
    )


async def _clean(pool: Pool, archive: ParquetArchive) -> None:
    """After becoming the writer: no other process can still commit a file that is not named yet."""
    rows = await pool.fetch(SQL["all_files"])
    strays = await asyncio.to_thread(archive.clean, [row["file_name"] for row in rows])
    if strays:
        _log.info("stray_files_removed", files=strays)


async def _sources(pool: Pool) -> Sources:
    row = await pool.fetchrow(SQL["read_watermark"])
    return Sources() if row is None else Sources(row["epoch"], row["marks"])
