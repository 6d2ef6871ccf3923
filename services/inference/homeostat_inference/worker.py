"""One process of inference at work: its loops, what it tells, and the order in which it ends."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc

from homeostat.inference.v1.truth_pb2_grpc import add_TruthServiceServicer_to_server
from homeostat.progress.v1.progress_pb2 import GetProgressResponse
from homeostat.topics import VERSIONS
from homeostat_inference.app.book import BLOCK_AGE_US, BlockBook
from homeostat_inference.app.engine import Engine, Rules
from homeostat_inference.app.ports import Call, Kind
from homeostat_inference.app.serving import NotLoaded, Table
from homeostat_inference.app.truth import CallerMarks
from homeostat_inference.domain.errors import Overloaded
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.times import ClockMarks, TimeBounds, bounds
from homeostat_inference.edges.doors import Behind, DoorRules, Doors
from homeostat_inference.edges.grpc_api import ServerState, TruthApi
from homeostat_inference.edges.journal import Journal
from homeostat_inference.edges.loading import Limits, Loader
from homeostat_inference.edges.relay import Relay
from homeostat_inference.edges.roles import PROGRESS_SERVICE, ROLES, TRUTH_SERVICE
from homeostat_inference.edges.versions import Follower, Registry, RegistryAway, VersionCache
from homeostat_inference.metrics import inference_metrics, observe
from homeostat_inference.settings import InferenceSettings
from homeostat_kit import telemetry
from homeostat_kit.clock import SystemClock
from homeostat_kit.grpc_server import Security
from homeostat_kit.kafka import Batch, Bus, consume, from_the_start
from homeostat_kit.logs import get_logger
from homeostat_kit.progress import ProgressServicer, progress_response

# Requests that may wait for versions that nobody asked for before.
_WAITING_FOR_VERSIONS = 256
_TICK_SECONDS = 0.01
_IDLE_TICK_SECONDS = 0.05
_FORGET_SECONDS = 5.0
# Of the ten seconds after SIGTERM: for answers, then for the broker.
_DRAIN_SECONDS = 2.0
_RELAY_SECONDS = 3.0
log = get_logger("homeostat_inference")


class Worker:
    """Holds the parts together; `run` is its whole life."""

    def __init__(
        self,
        settings: InferenceSettings,
        bus: Bus,
        journal: Journal,
        relay: Relay,
        registry: Registry,
        observed: telemetry.Telemetry,
    ) -> None:
        self._settings = settings
        self._bus = bus
        self._journal = journal
        self._relay = relay
        self._observed = observed
        self._registry = registry
        self._clock = SystemClock()
        self._table = Table(settings.pinned_versions)
        self._book = BlockBook(journal, self._clock)
        self._clock_marks = ClockMarks(
            bound_us=_us(settings.watermark_bound_seconds),
            idle_us=_us(settings.watermark_idle_seconds),
        )
        self._last_mark_us: int | None = None
        self._applied_epoch = ""
        self._applied: dict[tuple[str, int], int] = {}
        self._fetching: set[asyncio.Task[None]] = set()
        self._loader = Loader(
            self._table,
            registry,
            VersionCache(settings.data_folder / "versions"),
            journal,
            self._clock,
            settings.server_name,
            Limits(settings.inline_run_seconds, settings.queue_rows, settings.queue_bytes),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop``; then answers what is in hand and sends what is kept."""
        self._loop = asyncio.get_running_loop()
        self._journal.on_growth = self._wake_relay
        mark_us = self._relay.recover()
        is_explicit = self._settings.watermark_mode == "explicit"
        self._marks = CallerMarks(is_explicit=is_explicit, mark_us=mark_us)
        self._book.promised_us = self._marks.mark_us
        self._engine = self._new_engine()
        if self._observed.is_on:
            observe(
                self._observed.meter,
                inference_metrics(self._engine, self._journal, self._relay, self._loader),
            )
        revisions = await self._loader.start_from_cache()
        self._follower = Follower(self._registry, self._loader.adopt, revisions)
        self._has_cached = bool(revisions)
        drained = asyncio.Event()
        doors = self._doors()
        await doors.open()
        log.info(
            "inference_serving",
            port=doors.grpc_port,
            http_port=doors.http_port,
            transport=self._settings.transport,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_snapshots(stop), name="snapshots")
            tasks.create_task(self._follow_topic(stop), name="versions")
            tasks.create_task(self._tick(stop), name="tick")
            tasks.create_task(self._forget(stop), name="forget")
            relay = tasks.create_task(self._relay.run(drained), name="relay")
            await stop.wait()
            await self._leave(doors)
            drained.set()
            await asyncio.wait([relay], timeout=_RELAY_SECONDS)
            relay.cancel()

    def _new_engine(self) -> Engine:
        settings = self._settings
        engine = Engine(
            table=self._table,
            book=self._book,
            clock=self._clock,
            rules=Rules(
                max_message_bytes=settings.max_message_bytes,
                client_key_secret=_secret(settings),
                durability=settings.durability,
            ),
            times=self._times,
            see=self._clock_marks.see,
            fetch=self._fetch_from_thread,
            log=lambda event, error: log.error(event, error=repr(error)),
        )
        if self._observed.is_on:
            engine.trace = self._span
        return engine

    def _times(self, now_us: int) -> TimeBounds:
        return bounds(now_us, self._marks.mark_us, _us(self._settings.future_bound_seconds))

    @contextmanager
    def _span(self, schema: Schema, rows: int) -> Iterator[str]:
        with self._observed.tracer.start_as_current_span(
            "inference.run",
            attributes={
                "homeostat.model": schema.model_name,
                "homeostat.version": schema.version,
                "homeostat.rows": rows,
            },
        ):
            yield telemetry.traceparent() or ""

    def _doors(self) -> Doors:
        settings = self._settings
        state = ServerState(self._is_ready, lambda: self._engine.is_leaving)
        truth = TruthApi(
            table=self._table,
            journal=self._journal,
            book=self._book,
            marks=self._marks,
            clock=self._clock,
            times=self._times,
            secret=_secret(settings),
            durability=settings.durability,
            state=state,
        )

        def add(server: grpc.aio.Server) -> None:
            add_TruthServiceServicer_to_server(truth, server)
            ProgressServicer(self._progress).add_to(server)

        return Doors(
            _door_rules(settings),
            Behind(
                handle=self._engine.handle,
                table=self._table,
                state=state,
                pin=self._loader.pin,
                record=lambda request: truth.RecordOutcomes(request, None),
                add=add,
                service_names=(TRUTH_SERVICE, PROGRESS_SERVICE),
            ),
        )

    def _is_ready(self) -> bool:
        return not self._engine.is_leaving and (self._follower.has_snapshot or self._has_cached)

    def _wake_relay(self) -> None:
        if self._relay.is_idle and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._relay.wake)

    def _fetch_from_thread(self, call: Call, missing: NotLoaded) -> None:
        self._loop.call_soon_threadsafe(self._fetch_later, call, missing)

    def _fetch_later(self, call: Call, missing: NotLoaded) -> None:
        if len(self._fetching) >= _WAITING_FOR_VERSIONS:
            call.fail(Overloaded("too many requests wait for versions to be loaded; try later"))
            return
        task = self._loop.create_task(self._fetch(call, missing))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)

    async def _fetch(self, call: Call, missing: NotLoaded) -> None:
        try:
            await self._loader.pin(missing.model_name, missing.version)
        except Exception as error:
            call.fail(error)
        else:
            await asyncio.to_thread(self._engine.handle, [call])

    async def _follow_snapshots(self, stop: asyncio.Event) -> None:
        """The safety net under the topic, and the way in at the start."""
        is_away = False
        while not stop.is_set():
            try:
                await self._follower.poll()
                is_away = False
            except RegistryAway as error:
                if not is_away:
                    log.warning("registry_away", reason=str(error))
                is_away = True
            except OSError as error:
                log.error("snapshot_not_followed", reason=str(error))
            waiting = 0.2 if not self._follower.has_snapshot else None
            await _pause(stop, waiting or self._settings.snapshot_interval_seconds)

    async def _follow_topic(self, stop: asyncio.Event) -> None:
        await consume(self._bus, [VERSIONS], offsets=from_the_start, handle=self._hear, stop=stop)

    async def _hear(self, batch: Batch) -> None:
        # Of several changes of one model only the last says what serves now.
        last = {change.model_name: change for _, change in batch.records}
        for change in last.values():
            await self._follower.hear(change)
        if batch.epoch != self._applied_epoch:
            self._applied_epoch, self._applied = batch.epoch, {}
        self._applied.update(batch.next_offsets)

    async def _tick(self, stop: asyncio.Event) -> None:
        """Ends blocks that are old enough, and makes promises by the clock."""
        every_us = _us(self._settings.watermark_interval_seconds)
        marked_at_us = 0
        while not stop.is_set():
            await _pause(stop, _TICK_SECONDS if self._book.open_rows else _IDLE_TICK_SECONDS)
            now_us = self._clock.now_us()
            self._book.seal_older_than(now_us - BLOCK_AGE_US)
            if not self._marks.is_explicit and now_us - marked_at_us >= every_us:
                marked_at_us = now_us
                mark_us = self._clock_marks.next_mark(now_us, self._table.oldest_arrival_us)
                if mark_us is not None:
                    self._last_mark_us = mark_us
                    self._book.mark(Kind.CLOCK_MARK, mark_us)

    async def _forget(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await _pause(stop, _FORGET_SECONDS)
            try:
                dropped = await self._relay.forget_archived()
            except OSError as error:
                # A file that can't be removed now may be later; serving does not depend on it.
                log.error("journal_not_forgotten", reason=str(error))
                continue
            if dropped:
                log.info("journal_forgot", segments=dropped)

    async def _leave(self, doors: Doors) -> None:
        """Answers what is in hand, then closes the door."""
        self._engine.is_leaving = True
        await self._until(lambda: not self._in_hand())
        await doors.stop()
        self._book.seal_older_than(self._clock.now_us())
        await self._until(lambda: not self._journal.unsettled_count)

    async def _until(self, is_done: Callable[[], bool]) -> None:
        """Answers come from other threads; a few looks cost less than being told of each."""
        deadline = self._loop.time() + _DRAIN_SECONDS
        while not is_done() and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def _in_hand(self) -> int:
        """Rows, and calls whose version is being fetched, that are not answered yet."""
        return len(self._fetching) + self._table.rows_in_hand

    async def _progress(self) -> GetProgressResponse:
        relay, journal = self._relay, self._journal
        # Read along the flow, so that what moves on in the meantime is counted twice, not missed.
        open_work_count = self._loader.loading_count + self._in_hand()
        unsettled_count = journal.unsettled_count
        unsent_bytes = relay.unsent_bytes
        is_current = relay.epoch == self._bus.epoch
        # A record's mean size is not worth keeping: what counts is whether anything is left.
        unsent = unsettled_count - (-unsent_bytes // 4096)
        return progress_response(
            "inference",
            self._bus.epoch,
            produced=relay.produced if is_current else {},
            applied=self._applied if self._applied_epoch == self._bus.epoch else {},
            unsent_count=unsent,
            open_work_count=open_work_count,
            watermark_us=self._marks.mark_us if self._marks.is_explicit else self._last_mark_us,
        )


def _door_rules(settings: InferenceSettings) -> DoorRules:
    return DoorRules(
        transport=settings.transport,
        grpc_address=settings.grpc_address,
        http_address=settings.http_address,
        security=Security.of(settings.tls, settings.tokens_file, ROLES),
        max_message_bytes=settings.max_message_bytes,
        max_json_bytes=settings.http_json_bytes,
        held_http_bytes=settings.queue_bytes,
        request_timeout_seconds=settings.request_timeout_seconds,
    )


def _secret(settings: InferenceSettings) -> bytes:
    return settings.client_key_secret.get_secret_value().encode()


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
