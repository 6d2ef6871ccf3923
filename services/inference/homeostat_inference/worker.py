"""One worker: answers requests, keeps what it answered in its own journal, and does what the keeper
tells it."""

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import uvloop

from homeostat.inference.v1.truth_pb2_grpc import TruthServiceStub
from homeostat_inference.app.book import BLOCK_AGE_US, BlockBook
from homeostat_inference.app.engine import Engine, Rules
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.ports import Call, Kind
from homeostat_inference.app.serving import NotLoaded, Served, Table
from homeostat_inference.domain.errors import InferenceError, NotServed, Overloaded
from homeostat_inference.domain.schema import Schema
from homeostat_inference.domain.times import ClockMarks, TimeBounds, bounds
from homeostat_inference.edges.board import Board
from homeostat_inference.edges.board_layout import Word
from homeostat_inference.edges.board_runs import BoardRuns
from homeostat_inference.edges.control import (
    AskMark,
    Assignment,
    Control,
    Leave,
    Marked,
    Message,
    Need,
    Prepared,
    Ready,
    Refuse,
    Take,
    TellHealth,
    TellPlan,
)
from homeostat_inference.edges.doors import Behind, DoorRules, Doors
from homeostat_inference.edges.events import wait_for
from homeostat_inference.edges.grpc_api import ServerState
from homeostat_inference.edges.journal_writer import JournalInUse, JournalWriter
from homeostat_inference.edges.lane import Turns
from homeostat_inference.edges.memory import bound_memory
from homeostat_inference.edges.passing import KEEPER_SERVICES, PassedOn, keeper_channel
from homeostat_inference.edges.plan_loading import Limits, PlanLoader
from homeostat_inference.edges.roles import ROLES, SERVING_SERVICE
from homeostat_inference.edges.transports import remove_sockets
from homeostat_inference.edges.versions import RegistryAway, VersionCache
from homeostat_inference.settings import InferenceSettings
from homeostat_kit import telemetry
from homeostat_kit.clock import SystemClock
from homeostat_kit.grpc_server import Security
from homeostat_kit.logs import get_logger

# Requests that may wait for versions that nobody asked for before.
_WAITING_FOR_VERSIONS = 256
_TICK_SECONDS = 0.01
_IDLE_TICK_SECONDS = 0.05
# Without rows a mark only follows the clock: nobody waits for it long.
_IDLE_MARK_US = 2_000_000
_WATCH_SECONDS = 0.025
# Of the seconds that a leaving server has: for answers.
_DRAIN_SECONDS = 2.0
_LOCK_SECONDS = 5.0
# They receive calls, run models, sync the journal, and show that the process lives.
_VITAL_THREADS = ("receive", "run-", "journal", "watchdog")
_SOFTWARE_ERROR = 70
# The native front reserves what a message's length says before the message has come, up to 4 GiB
# each, and ends the process where it can't. What is reserved costs nothing until it is written.
_NATIVE_SPARE_BYTES = 1 << 40
log = get_logger("homeostat_inference.worker")


def run_worker(settings: InferenceSettings, told: Mapping[str, Any], given: Sequence[int]) -> int:
    """The life of a forked process. ``given``: control socket, board, and what wakes the relay."""
    control, board, bell = given
    spare_bytes = _NATIVE_SPARE_BYTES if settings.transport == "native" else 0
    bound_memory(settings.worker_memory_bytes, spare_bytes)
    threading.excepthook = end_with_thread
    worker = Worker(settings, Assignment.of(told), Board.open(board), bell)
    uvloop.run(worker.run(socket.socket(fileno=control)))
    return 0


def end_with_thread(args: threading.ExceptHookArgs) -> None:
    """Without one of these threads the process would look healthy and answer nobody: the keeper
    starts another one."""
    name = args.thread.name if args.thread is not None else ""
    try:
        log.error("thread_died", thread=name, exc_info=args.exc_value)
    finally:
        if name.startswith(_VITAL_THREADS):
            os._exit(_SOFTWARE_ERROR)


class Worker:
    """Holds the parts together; `run` is its whole life."""

    def __init__(
        self, settings: InferenceSettings, assignment: Assignment, board: Board, bell: int
    ) -> None:
        self._settings = settings
        self._assignment = assignment
        self._board = board
        self._bell = bell
        self._clock = SystemClock()
        self._table = Table()
        self._clock_marks = ClockMarks(
            bound_us=_us(settings.watermark_bound_seconds),
            idle_us=_us(settings.watermark_idle_seconds),
        )
        self._runs = BoardRuns(
            board, _run_options, limit_ns=round(settings.run_limit_seconds * 1e9)
        )
        self._health = TellHealth([], is_losing=False, is_ready=False)
        self._needed: dict[tuple[str, int], list[asyncio.Future[None]]] = {}
        self._fetching: set[asyncio.Task[None]] = set()
        self._taken = asyncio.Event()
        # Calls wait for it: there is a journal to keep them in.
        self._opened = threading.Event()
        self._leave = asyncio.Event()
        self._is_followed = False
        self._is_serving = False
        self._is_over = threading.Event()
        self._timekeeper = ThreadPoolExecutor(1, "time")

    @property
    def _folder(self) -> Path:
        return self._settings.data_folder / f"worker-{self._assignment.slot}"

    @property
    def _is_explicit(self) -> bool:
        return self._settings.watermark_mode == "explicit"

    async def run(self, control: socket.socket) -> None:
        """Serves until the keeper says that it is enough; then answers what is in hand."""
        self._loop = asyncio.get_running_loop()
        self._control = await Control.over(control)
        self._loader = PlanLoader(
            self._table,
            VersionCache(self._settings.data_folder / "versions"),
            Limits(
                self._settings.inline_run_seconds,
                self._settings.queue_rows,
                self._settings.queue_bytes,
            ),
            self._control.send,
            None if self._assignment.is_successor else self._runs,
        )
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        self._loader.take(await self._first_plan())
        async with AsyncExitStack() as stack:
            observed = telemetry.setup("inference", self._settings.otlp_endpoint)
            stack.callback(observed.close)
            await self._loader.reconcile()
            self._journal = self._new_journal()
            self._book = BlockBook(self._journal, self._clock)
            self._engine = self._new_engine(observed)
            channel = await stack.enter_async_context(
                keeper_channel(self._assignment.keeper_address)
            )
            self._gate = Gate(self._engine, self._engine, self._opened)
            if not self._assignment.is_successor:
                # The slot is this process's alone.
                remove_sockets(self._folder)
            self._doors = self._new_doors(channel)
            await self._doors.open()
            hearing = asyncio.create_task(self._hear(), name="control")
            self._control.send(Prepared())
            if not await self._take_over():
                return
            stack.push(self._journal)
            self._control.send(Ready(self._doors.grpc_port, self._doors.http_port or 0))
            log.info(
                "worker_serving",
                slot=self._assignment.slot,
                port=self._doors.grpc_port,
                http_port=self._doors.http_port,
                transport=self._settings.transport,
            )
            await self._serve(hearing)

    async def _first_plan(self) -> ServingPlan:
        message = await self._control.receive()
        if not isinstance(message, TellPlan):
            raise SystemExit(_SOFTWARE_ERROR)
        return ServingPlan.from_json(message.plan)

    def _lock_journal(self) -> None:
        """The one before may take a moment to be gone."""
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                self._journal.__enter__()
                return
            except JournalInUse:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _new_journal(self) -> JournalWriter:
        board = self._board
        return JournalWriter(
            self._folder / "journal",
            segment_bytes=self._settings.journal_segment_bytes,
            quota_bytes=self._settings.journal_quota_bytes,
            is_durable=self._settings.durability == "durable",
            start=lambda: board.words[Word.JOURNAL_START],
            on_commit=lambda end: board.note_committed(end, self._bell),
        )

    async def _take_over(self) -> bool:
        """Waits for the slot, and takes its journal and its board; False if there is to be none."""
        await wait_for((self._taken, self._leave))
        if not self._taken.is_set():
            return False
        await asyncio.to_thread(self._lock_journal)
        # Where readers may read up to now; and from now on there is a writer.
        self._board.words[Word.COMMITTED_END] = self._journal.end
        self._board.words[Word.IS_WRITING] = 1
        self._loader.watch = self._runs
        self._is_serving = True
        self._opened.set()
        return True

    async def _serve(self, hearing: "asyncio.Task[None]") -> None:
        tasks = [
            hearing,
            asyncio.create_task(self._loader.run(), name="plans"),
            asyncio.create_task(self._tick(), name="tick"),
        ]
        leaving = asyncio.create_task(self._leave.wait(), name="leave")
        ended, _ = await asyncio.wait([*tasks, leaving], return_when=asyncio.FIRST_COMPLETED)
        for each in ended:
            # A task that ended by itself takes the process down with its cause.
            each.result()
        await self._drain()
        for each in tasks:
            each.cancel()

    def _new_engine(self, observed: telemetry.Telemetry) -> Engine:
        settings = self._settings
        engine = Engine(
            table=self._table,
            book=self._book,
            clock=self._clock,
            rules=Rules(
                max_message_bytes=settings.max_message_bytes,
                client_key_secret=settings.client_key_secret.get_secret_value().encode(),
                durability=settings.durability,
                request_timeout_seconds=settings.request_timeout_seconds,
                run_limit_seconds=settings.run_limit_seconds,
                sample_share=settings.sample_share if settings.durability == "sampled" else 1.0,
                sheds_when_full=settings.journal_full == "shed",
            ),
            times=self._times,
            see=self._clock_marks.see,
            fetch=self._fetch_from_thread,
            log=lambda event, error: log.error(event, error=repr(error)),
            watch=self._runs,
        )
        if observed.is_on:
            engine.trace = lambda schema, rows: _span(observed, schema, rows)
        return engine

    def _times(self, now_us: int) -> TimeBounds:
        mark_us = self._book.promised_us if self._is_explicit else None
        return bounds(now_us, mark_us, _us(self._settings.future_bound_seconds))

    def _new_doors(self, channel: grpc.aio.Channel) -> Doors:
        truth: Any = TruthServiceStub(channel)
        seconds = self._settings.request_timeout_seconds
        return Doors(
            self._door_rules(),
            Behind(
                handle=self._gate.handle,
                turns=self._gate,
                lane_turns=Gate(self._engine, self._engine.another_way(), self._opened),
                table=self._table,
                state=ServerState(self._is_ready, lambda: self._engine.is_leaving),
                record=lambda request: truth.RecordOutcomes(request, timeout=seconds),
                add=lambda server: server.add_generic_rpc_handlers(
                    (PassedOn(channel, KEEPER_SERVICES),)
                ),
                service_names=KEEPER_SERVICES,
            ),
        )

    def _door_rules(self) -> DoorRules:
        settings = self._settings
        return DoorRules(
            transport=settings.transport,
            grpc_address=self._assignment.address,
            http_address=self._assignment.http_address,
            security=Security.of(settings.tls, settings.tokens_file, ROLES),
            max_message_bytes=settings.max_message_bytes,
            max_json_bytes=settings.http_json_bytes,
            held_http_bytes=settings.queue_bytes,
            request_timeout_seconds=settings.request_timeout_seconds,
            is_shared=True,
            socket_folder=self._folder,
        )

    def _is_ready(self) -> bool:
        return not self._engine.is_leaving and self._health.is_ready and self._loader.is_complete

    async def _hear(self) -> None:
        while (message := await self._control.receive()) is not None:
            await self._obey(message)
        # The keeper is gone; the kernel ends this process too.
        self._leave.set()

    async def _obey(self, message: Message) -> None:
        match message:
            case TellPlan(plan):
                self._loader.take(ServingPlan.from_json(plan))
            case AskMark(number) if not self._is_serving:
                # The journal is still another's.
                self._control.send(Marked(number, "the worker does not serve yet; try again"))
            case AskMark(number, mark_us):
                await asyncio.to_thread(self._mark, number, mark_us)
            case Refuse():
                error: InferenceError | RegistryAway = (
                    RegistryAway(message.reason) if message.is_away else NotServed(message.reason)
                )
                self._settle((message.model_name, message.version), error)
            case TellHealth():
                await self._take_health(message)
            case Take(mark_us):
                self._book.promised_us = mark_us if self._is_explicit else None
                self._taken.set()
            case Leave(is_followed):
                self._is_followed = is_followed
                self._leave.set()

    def _mark(self, number: int, mark_us: int) -> None:
        """The keeper has judged the promise; a lower one than the last is an old call's."""
        before = self._book.promised_us

        def done(error: Exception | None) -> None:
            if error is not None:
                self._book.promised_us = before
            answer = Marked(number, "" if error is None else str(error))
            self._loop.call_soon_threadsafe(self._control.send, answer)

        if before is not None and mark_us < before:
            done(None)
        else:
            self._book.mark(Kind.CALLER_MARK, mark_us, done)

    async def _take_health(self, health: TellHealth) -> None:
        is_new = health.is_losing != self._health.is_losing
        self._health = health
        if is_new:
            await self._doors.server.tell_health(SERVING_SERVICE, is_serving=not health.is_losing)

    # Versions that requests name and that are not loaded.

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
            await self._pinned(missing.model_name, missing.version)
        except Exception as error:
            call.fail(error)
        else:
            await asyncio.to_thread(self._engine.handle, [call])

    async def _pinned(self, model_name: str, version: int) -> Served:
        """The version, once it is loaded; NotServed or RegistryAway if it is not to be had."""
        key = (model_name, version)
        waiter: asyncio.Future[None] = self._loop.create_future()
        if key not in self._needed:
            self._control.send(Need(*key))
        self._needed.setdefault(key, []).append(waiter)
        try:
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                await waiter
        except TimeoutError:
            raise RegistryAway(
                f"model {model_name!r} version {version} could not be loaded in time"
            ) from None
        finally:
            self._forget_waiter(key, waiter)
        return self._table.route(model_name, str(version))[0]

    def _forget_waiter(self, key: tuple[str, int], waiter: "asyncio.Future[None]") -> None:
        waiters = self._needed.get(key, [])
        if waiter in waiters:
            waiters.remove(waiter)
        if not waiters:
            self._needed.pop(key, None)

    def _settle(self, key: tuple[str, int], error: Exception | None) -> None:
        for waiter in self._needed.pop(key, []):
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    # The clock.

    async def _tick(self) -> None:
        """Ends blocks that are old enough, makes promises by the clock, wakes who waits."""
        while True:
            await asyncio.sleep(_TICK_SECONDS if self._book.open_rows else _IDLE_TICK_SECONDS)
            now_us = self._clock.now_us()
            is_promise_due = self._is_promise_due(now_us)
            if is_promise_due or self._book.has_older_than(now_us - BLOCK_AGE_US):
                # The journal's disk may be slow, and calls wait on this loop.
                await self._loop.run_in_executor(
                    self._timekeeper, self._keep_time, now_us, is_promise_due
                )
            self._wake_those_served()

    def _keep_time(self, now_us: int, is_promise_due: bool) -> None:
        self._book.seal_older_than(now_us - BLOCK_AGE_US)
        if is_promise_due:
            self._promise(now_us)

    def _is_promise_due(self, now_us: int) -> bool:
        if self._is_explicit:
            return False
        is_idle = self._journal.records_count == self._marked_records
        every_us = _IDLE_MARK_US if is_idle else _us(self._settings.watermark_interval_seconds)
        return now_us - self._marked_at_us >= every_us

    def _promise(self, now_us: int) -> None:
        self._marked_at_us = now_us
        mark_us = self._clock_marks.next_mark(now_us, self._table.oldest_arrival_us)
        if mark_us is not None:
            self._book.mark(Kind.CLOCK_MARK, mark_us, partial(self._marked, mark_us))
        self._marked_records = self._journal.records_count

    def _marked(self, mark_us: int, error: Exception | None) -> None:
        if error is None:
            self._board.words[Word.LAST_MARK_US] = max(0, mark_us)

    _marked_at_us = 0
    _marked_records = 0

    def _wake_those_served(self) -> None:
        for key in list(self._needed):
            failed = self._loader.failure(key)
            if failed:
                self._settle(key, NotServed(failed))
            elif self._loader.is_loaded(key):
                self._settle(key, None)

    def _watch(self) -> None:
        """The watchdog's thread: ends runs that are overdue, and shows that this process lives."""
        looks = 0
        while not self._is_over.wait(_WATCH_SECONDS):
            looks += 1
            try:
                self._runs.end_overdue(time.monotonic_ns())
                if self._is_serving and looks % 4 == 0:
                    self._show()
            except Exception:
                # The next look may go well; if none does, the keeper sees no sign of life.
                log.exception("watchdog_failed")

    def _show(self) -> None:
        words, counts, journal = self._board.words, self._engine.counts, self._journal
        for word, value in (
            (Word.REQUESTS, counts.requests),
            (Word.ROWS, counts.rows),
            (Word.REFUSED, counts.refused),
            (Word.FAILED, counts.failed),
            (Word.RUNS, counts.runs),
            (Word.RUN_NS, round(counts.run_seconds * 1e9)),
            (Word.QUEUE_NS, round(counts.queue_seconds * 1e9)),
            (Word.BATCH_ROWS_MAX, counts.batch_rows_max),
            (Word.ROWS_IN_HAND, self._table.rows_in_hand),
            (Word.FETCHING, len(self._fetching)),
            (Word.JOURNAL_RECORDS, journal.records_count),
            (Word.JOURNAL_GROUPS, journal.groups_count),
            (Word.JOURNAL_REFUSED, journal.refused_count),
            (Word.DISK_ERRORS, journal.abandoned_count),
            (Word.JOURNAL_CUT_BYTES, journal.cut_bytes),
            (Word.JOURNAL_UNSETTLED, journal.unsettled_count),
            (Word.LOADS, self._loader.loads_count),
            (Word.SAMPLED_OUT, counts.sampled_out),
            (Word.SHED, counts.shed),
            (Word.OVERDUE, counts.overdue),
            (Word.HEARTBEAT_NS, time.monotonic_ns()),
        ):
            words[word] = value

    # The end.

    async def _drain(self) -> None:
        """Answers what is in hand, then closes the door. Where another worker follows, what comes
        in meanwhile is answered too: callers are not to notice."""
        self._engine.is_leaving = not self._is_followed
        await self._until(lambda: not (self._fetching or self._table.rows_in_hand))
        await self._doors.stop()
        self._engine.is_leaving = True
        self._book.seal_older_than(self._clock.now_us())
        await self._until(lambda: not self._journal.unsettled_count)
        self._is_over.set()
        self._show()
        await self._control.flush()

    async def _until(self, is_done: Callable[[], bool]) -> None:
        """Answers come from other threads; a few looks cost less than being told of each."""
        deadline = self._loop.time() + _DRAIN_SECONDS
        while not is_done() and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Gate:
    """Lets calls through to the engine once its worker has a slot; until then they wait."""

    def __init__(self, engine: Engine, turns: Turns, opened: threading.Event) -> None:
        """``turns``: the engine, or another way to it."""
        self._engine = engine
        self._opened = opened
        self._take = turns.take
        self.work = turns.work
        self.patience_ms = turns.patience_ms

    def handle(self, calls: Sequence[Call]) -> None:
        """As the engine does."""
        if not self._opened.is_set():
            self._opened.wait()
        self._engine.handle(calls)

    def take(self, calls: Sequence[Call]) -> None:
        """As the engine does."""
        if not self._opened.is_set():
            self._opened.wait()
        self._take(calls)


def _run_options() -> Any:
    import onnxruntime as ort  # noqa: PLC0415 - the keeper does without

    return ort.RunOptions()


@contextmanager
def _span(observed: telemetry.Telemetry, schema: Schema, rows: int) -> Iterator[str]:
    with observed.tracer.start_as_current_span(
        "inference.run",
        attributes={
            "homeostat.model": schema.model_name,
            "homeostat.version": schema.version,
            "homeostat.rows": rows,
        },
    ):
        yield telemetry.traceparent() or ""


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def import_for_workers(*, with_http: bool) -> None:
    """What a worker needs, imported once for all of them."""
    import onnxruntime  # noqa: F401, PLC0415
    import pygrpc_native  # noqa: F401, PLC0415

    if with_http:
        import aiohttp.web_server  # noqa: F401, PLC0415 - 0.3 s that a fresh worker has not

    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        log.error("nursery_has_threads", threads=threads)
        sys.exit(70)
