"""The keeper: follows the registry, keeps workers alive, and sends on what they have kept."""

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc

from homeostat.inference.v1.serving_pb2_grpc import add_ServingServiceServicer_to_server
from homeostat.inference.v1.truth_pb2_grpc import add_TruthServiceServicer_to_server
from homeostat.progress.v1.progress_pb2 import GetProgressResponse
from homeostat.topics import ACTIVATIONS, OUTCOMES, PREDICTIONS, VERSIONS
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.planning import Planner
from homeostat_inference.app.ports import Done, Kind
from homeostat_inference.app.supervising import CrashBook, DeadRun
from homeostat_inference.app.truth import CallerMarks, Described
from homeostat_inference.domain.errors import NotServed
from homeostat_inference.domain.times import TimeBounds, bounds
from homeostat_inference.edges.announcing import Announcer
from homeostat_inference.edges.archive import AskFate
from homeostat_inference.edges.board import Word
from homeostat_inference.edges.callers import CallersPromises
from homeostat_inference.edges.control import (
    Applied,
    Assignment,
    Failed,
    Loaded,
    Message,
    Need,
    Refuse,
    TellHealth,
    TellPlan,
)
from homeostat_inference.edges.errors import CODES
from homeostat_inference.edges.events import wait_for
from homeostat_inference.edges.following import Following
from homeostat_inference.edges.journal_reader import Segment
from homeostat_inference.edges.journals import KEEPER_SLOT, JournalRules, Journals
from homeostat_inference.edges.keeper_api import KeeperTruthApi, ServingApi
from homeostat_inference.edges.marks_file import MarkFile
from homeostat_inference.edges.nursery import Nursery, NurseryDied
from homeostat_inference.edges.passing import KEEPER_SERVICES
from homeostat_inference.edges.relay_hooks import Hooks, Tail
from homeostat_inference.edges.reservation import Reservation
from homeostat_inference.edges.shadow_positions import (
    Position,
    bound_positions,
    is_held,
    load_positions,
    positions_file,
)
from homeostat_inference.edges.slot_orders import Orders
from homeostat_inference.edges.slots import WorkerSlot
from homeostat_inference.edges.status import Status
from homeostat_inference.edges.versions import Registry, RegistryAway, VersionCache
from homeostat_inference.metrics import keeper_metrics, observe
from homeostat_inference.settings import InferenceSettings
from homeostat_kit import grpc_server, telemetry
from homeostat_kit.clock import SystemClock
from homeostat_kit.kafka import Batch, Bus, consume, from_the_start
from homeostat_kit.logs import get_logger
from homeostat_kit.progress import ProgressServicer, progress_response

SHADOW_SLOT = "shadow"
_HEALTH_SECONDS = 0.5
# Versions that requests named and that are fetched at the same time, and what else is under way.
_TASKS = 64
# Of the ten seconds after SIGTERM: for workers to answer and end, then for the broker.
_LEAVE_SECONDS = 4.0
_RELAY_SECONDS = 3.0
# A path of a Unix socket has less than 108 bytes.
_PATH_BYTES = 100
log = get_logger("homeostat_inference.keeper")


class Keeper:
    """Holds the parts together; `run` is its whole life."""

    def __init__(
        self,
        settings: InferenceSettings,
        nursery: Nursery,
        bus: Bus,
        registry: Registry,
        ask_fate: AskFate,
        observed: telemetry.Telemetry,
    ) -> None:
        self._settings = settings
        self._nursery = nursery
        self._bus = bus
        self._observed = observed
        self._clock = SystemClock()
        self._folder = settings.data_folder
        self._announcer = Announcer(
            settings.server_name,
            self._folder / "versions" / "announced.json",
            self._clock,
            self._publish_activation,
        )
        self.crashes = CrashBook()
        self.following = Following(
            registry,
            VersionCache(self._folder / "versions"),
            Planner(settings.pinned_versions),
            self.crashes,
            self._folder / "versions" / "plan.json",
            self._publish,
            self._announcer.not_fetched,
        )
        self.slots: list[WorkerSlot] = []
        self.journals = Journals(
            self._folder, _journal_rules(settings), bus, ask_fate, settings.server_name
        )
        self._applied_epoch = ""
        self._applied: dict[tuple[str, int], int] = {}
        self._health = TellHealth([], is_losing=False, is_ready=False)
        self._is_leaving = False
        self._was_ready = False
        self._tasks: set[asyncio.Future[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop``; then lets the workers answer, and sends what is kept."""
        self._loop = asyncio.get_running_loop()
        self._nursery.attach()
        async with AsyncExitStack() as stack:
            stack.callback(self._nursery.close)
            reservation = Reservation.of(self._settings.grpc_address)
            stack.callback(reservation.close)
            self._address = reservation.address
            self._http_address: str | None = None
            if self._settings.http_address:
                reserved = Reservation.of(self._settings.http_address)
                stack.callback(reserved.close)
                self._http_address = reserved.address
            self._marks = CallerMarks(
                is_explicit=self._settings.watermark_mode == "explicit", mark_us=None
            )
            marks_file = MarkFile(self._folder / KEEPER_SLOT / "mark")
            stack.callback(marks_file.close)
            if self._marks.is_explicit:
                self._marks.mark_us = marks_file.mark_us
            self._announcer.begin()
            await asyncio.to_thread(self.following.begin)
            self._has_cached = bool(self.following.plan.models)
            self.journal = stack.enter_context(self.journals.open_own(self._loop))
            self._callers = CallersPromises(
                self._marks, marks_file, self.journal, self.slots, self._marks.mark_us
            )
            self._keeper_address = f"unix:{self._socket_path(stack)}"
            self._add_journals()
            self.status = Status(
                self._settings.server_name,
                self._settings.durability,
                self._settings.journal_quota_bytes,
                self._bus,
                self.following,
                self.crashes,
                self.journal,
                self.slots,
                self.shadow,
                self.journals.relays,
            )
            server = await self._start_server()
            stack.push_async_callback(server.stop, 0.2)
            if self._observed.is_on:
                observe(self._observed.meter, keeper_metrics(self.status))
            await self._live(stop)

    def _socket_path(self, stack: AsyncExitStack) -> Path:
        path = (self._folder / "keeper.sock").absolute()
        if len(str(path).encode()) > _PATH_BYTES:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="homeostat-")), "k")
        path.unlink(missing_ok=True)
        return path

    async def _live(self, stop: asyncio.Event) -> None:
        drained, slots_stop, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._hold_bus(over), name="broker")
            relays = [
                tasks.create_task(each.run(drained), name=f"relay-{name}")
                for name, each in self.journals.relays.items()
            ]
            lives = [
                tasks.create_task(each.live(slots_stop), name=each.name)
                for each in (*self.slots, self.shadow)
            ]
            tasks.create_task(self._follow(stop), name="registry")
            tasks.create_task(self.following.bring(stop), name="files")
            tasks.create_task(self._follow_topic(stop), name="versions")
            tasks.create_task(self.journals.forget(stop), name="forget")
            tasks.create_task(self._tell_health(stop), name="health")
            tasks.create_task(self._fail_without_nursery(stop), name="nursery")
            await stop.wait()
            self._is_leaving = True
            for each in (*self.slots, self.shadow):
                each.leave()
            slots_stop.set()
            await asyncio.wait(lives, timeout=_LEAVE_SECONDS)
            for each in (*self.slots, self.shadow):
                each.kill("the server has left")
            await asyncio.wait(lives, timeout=1.0)
            drained.set()
            await asyncio.wait(relays, timeout=_RELAY_SECONDS)
            for task in (*relays, *lives):
                task.cancel()
            over.set()

    async def _hold_bus(self, over: asyncio.Event) -> None:
        """Nobody waits for the broker to serve."""
        async with self._bus:
            await self._bus.ensure_topics((PREDICTIONS, OUTCOMES, ACTIVATIONS, VERSIONS))
            await over.wait()

    async def _fail_without_nursery(self, stop: asyncio.Event) -> None:
        await wait_for((stop, self._nursery.died), 1e9)
        if not stop.is_set():
            raise NurseryDied("no worker can be started any longer")

    # Slots and their journals.

    def _add_journals(self) -> None:
        self.journals.add_own(self.journal, self._standing_mark_us)
        for index in range(self._settings.workers):
            self.slots.append(self._add_slot(f"worker-{index}", index))
        self.shadow = self._add_slot(SHADOW_SLOT, self._settings.workers)
        self.shadow.want(self._has_shadows(self.following.plan))
        self.journals.add_left_over()
        relays = self.journals.relays
        bound_positions(
            positions_file(self._folder),
            {name: each.end for name, each in relays.items() if not each.trouble},
        )

    def _add_slot(self, name: str, index: int) -> WorkerSlot:
        is_shadow = name == SHADOW_SLOT
        orders = Orders(
            lambda: self._callers.asked_us,
            self._shadow_assignment if is_shadow else partial(self._assignment, index),
            self._boards_of_workers if is_shadow else list,
            lambda: self.following.plan,
            lambda: self._health,
            self._heard_of_shadow if is_shadow else self._heard,
            self._crashed,
        )
        slot = WorkerSlot(
            name,
            index,
            self._nursery,
            orders,
            memory_bytes=self._settings.worker_memory_bytes,
            may_overlap=not is_shadow,
        )
        hooks = _hooks_of_shadow(slot) if is_shadow else self._hooks(slot)
        self.journals.add(name, _committed_of(slot), hooks)
        slot.board.set(Word.JOURNAL_START, self.journals.start(name))
        self._loop.add_reader(slot.bell, self._rung, slot)
        return slot

    def _hooks(self, slot: WorkerSlot) -> Hooks:
        board = slot.board
        return Hooks(
            # By the clock, nothing is promised for a worker that can't start, and the others serve.
            # What a caller promises holds for every journal.
            has_writer=lambda: self._marks.is_explicit or slot.has_writer,
            set_idle=lambda is_idle: board.set(Word.IS_RELAY_IDLE, int(is_idle)),
            forgot=lambda start: board.set(Word.JOURNAL_START, start),
            standing_mark_us=self._callers_mark_us,
            is_held=lambda segment: self._is_held(slot.name, segment),
        )

    def _rung(self, slot: WorkerSlot) -> None:
        os.eventfd_read(slot.bell)
        self.journals.relays[slot.name].wake()

    def _standing_mark_us(self) -> int | None:
        """By the clock: truths bring no times that a promise would have to wait for."""
        if self._marks.is_explicit:
            return self._callers_mark_us()
        return self._clock.now_us() - round(self._settings.watermark_bound_seconds * 1e6)

    def _callers_mark_us(self) -> int | None:
        """Spelled out in every journal, but a relay of this life may begin behind that place."""
        return self._callers.kept_us if self._marks.is_explicit else None

    # Workers.

    def _assignment(self, index: int) -> dict[str, object]:
        return Assignment(index, self._address, self._http_address, self._keeper_address).told()

    def _shadow_assignment(self) -> dict[str, object]:
        return {"role": SHADOW_SLOT, "mark_us": self._marks.mark_us}

    def _boards_of_workers(self) -> list[int]:
        return [each.board.descriptor for each in self.slots]

    @staticmethod
    def _has_shadows(plan: ServingPlan) -> bool:
        return any(each.shadows for each in plan.models.values())

    def _publish(self, plan: ServingPlan) -> None:
        message = TellPlan(plan.to_json())
        for each in (*self.slots, self.shadow):
            each.send(message)
        has_shadows = self._has_shadows(plan)
        if has_shadows:
            self.journals.promises.count(SHADOW_SLOT)
        self.shadow.want(has_shadows)

    def _is_held(self, slot: str, segment: Segment) -> bool:
        """Whether the shadow process has still to read a segment of a worker's journal."""
        return self.shadow.is_wanted and is_held(segment, self._shadow_positions().get(slot))

    def _shadow_positions(self) -> dict[str, Position]:
        return load_positions(positions_file(self._folder))

    def _is_shadow_behind(self) -> bool:
        """Whether it has not read yet what the workers' journals hold."""
        if not self.shadow.is_wanted:
            return False
        positions = self._shadow_positions()
        return any(
            (at := positions.get(each.name)) is None
            or at.floor < self.journals.relays[each.name].end
            for each in self.slots
        )

    def _heard_of_shadow(self, slot: WorkerSlot, message: Message) -> None:
        if isinstance(message, Failed) and not self.following.cache.has(
            message.model_name, message.version
        ):
            self.following.forget_file((message.model_name, message.version))

    def _heard(self, slot: WorkerSlot, message: Message) -> None:
        match message:
            case Loaded() | Applied():
                self._announce(slot)
            case Failed(model_name, version):
                self._announcer.failed(slot.name, self.following.plan, message)
                if not self.following.cache.has(model_name, version):
                    self.following.forget_file((model_name, version))
                else:
                    self.following.note_unfit((model_name, version))
            case Need():
                self._need(slot, message)
            case _:
                pass

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Future[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task_failed", exc_info=task.exception())

    def _need(self, slot: WorkerSlot, need: Need) -> None:
        if len(self._tasks) < _TASKS:
            self._begin(self._pin(slot, need))
        else:
            reason = "too many other versions are being fetched; try again"
            slot.send(Refuse(need.model_name, need.version, reason, is_away=True))

    async def _pin(self, slot: WorkerSlot, need: Need) -> None:
        try:
            await self.following.pin((need.model_name, need.version))
        except Exception as error:
            # A client waits for a word, whatever happens here.
            is_away = not isinstance(error, NotServed)
            slot.send(Refuse(need.model_name, need.version, str(error) or repr(error), is_away))
            if not isinstance(error, NotServed | RegistryAway):
                raise
        else:
            # The plan may have held it already: then this worker has not heard of it again.
            slot.send(TellPlan(self.following.plan.to_json()))

    def _crashed(self, slot: WorkerSlot, runs: list[DeadRun], reason: str) -> None:
        self.crashes.note(runs, reason, time.monotonic(), self._clock.now_us())
        for each in self.crashes.held:
            if each.reason.endswith(reason):
                log.error(
                    "quarantined",
                    model_name=each.model_name,
                    version=each.version,
                    input_fingerprint=each.input_fingerprint,
                )
        self.following.renew()

    def release(self, model_name: str, version: int, input_fingerprint: str) -> int:
        """Lets it run again; how many quarantines that lifted."""
        count = self.crashes.release(model_name, version, input_fingerprint)
        if input_fingerprint:
            self.following.renew()
        else:
            self.following.forgive((model_name, version))
        return count

    def _announce(self, slot: WorkerSlot) -> None:
        plan = self.following.plan
        for name, model in plan.models.items():
            if model.champion is not None and (name, model.champion) in slot.told.loaded:
                self.following.note_loaded(name, model.champion, model.revision)
        self._announcer.loaded(slot.name, plan, slot.told.loaded)

    def _publish_activation(self, message: bytes, done: Done) -> None:
        self.journal.append(Kind.ACTIVATION, message, done=done, must=True)
        self._begin(asyncio.to_thread(self.journal.commit))

    # Following the registry.

    async def _follow(self, stop: asyncio.Event) -> None:
        await self.following.run(self._settings.snapshot_interval_seconds, stop)

    async def _follow_topic(self, stop: asyncio.Event) -> None:
        await consume(self._bus, [VERSIONS], offsets=from_the_start, handle=self._hear, stop=stop)

    async def _hear(self, batch: Batch) -> None:
        # Of several changes of one model only the last says what serves now.
        last = {change.model_name: change for _, change in batch.records}
        for change in last.values():
            await self.following.hear(change)
        if batch.epoch != self._applied_epoch:
            self._applied_epoch, self._applied = batch.epoch, {}
        self._applied.update(batch.next_offsets)

    def _times(self, now_us: int) -> TimeBounds:
        return bounds(now_us, self._marks.mark_us, round(self._settings.future_bound_seconds * 1e6))

    # What is answered.

    async def _start_server(self) -> grpc_server.RunningServer:
        settings = self._settings
        truth = KeeperTruthApi(
            champions=self._champions,
            journal=self.journal,
            advance=self._callers.advance,
            clock=self._clock,
            times=self._times,
            secret=settings.client_key_secret.get_secret_value().encode(),
            durability="durable" if settings.durability == "durable" else "fast",
            is_leaving=lambda: self._is_leaving,
            promising=self._callers.promising,
        )

        def add(server: grpc.aio.Server) -> None:
            add_TruthServiceServicer_to_server(truth, server)
            add_ServingServiceServicer_to_server(
                ServingApi(self.status.serving, self.release), server
            )
            ProgressServicer(self._progress).add_to(server)

        return await grpc_server.serve(
            self._keeper_address, add, errors=CODES, service_names=KEEPER_SERVICES
        )

    def _champions(self, model_name: str) -> Mapping[str, Described]:
        schema = self.following.schema(model_name)
        return {} if schema is None else {model_name: Described(schema)}

    @property
    def is_ready(self) -> bool:
        """Whether what is to be served is known (from the registry, or from the last life), and was
        loaded once by every worker that there is: a fresh one loads before it takes calls."""
        if not self._was_ready and (self.following.has_snapshot or self._has_cached):
            number = self.following.plan.number
            alive = [each for each in self.slots if each.has_process]
            self._was_ready = bool(alive) and all(
                each.is_ready and each.told.plan_number >= number for each in alive
            )
        return self._was_ready

    async def _tell_health(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            health = TellHealth(
                self.status.degraded_reasons(), self.status.is_losing(), self.is_ready
            )
            if health != self._health:
                new = set(health.degraded_reasons) - set(self._health.degraded_reasons)
                for reason in sorted(new):
                    log.warning("degraded", reason=reason)
                self._health = health
                for each in self.slots:
                    each.send(health)
            # Suspicion ends by itself.
            self.following.renew()
            pause = _HEALTH_SECONDS if self.is_ready else 0.02
            await wait_for((stop,), pause)

    async def _progress(self) -> GetProgressResponse:
        epoch = self._bus.epoch
        # Read along the flow, so that what moves on in the meantime is counted twice, not missed.
        open_work = self.following.open_work_count + len(self._tasks)
        number = self.following.plan.number
        for slot in self.slots:
            open_work += slot.board.get(Word.ROWS_IN_HAND) + slot.board.get(Word.FETCHING)
            open_work += slot.is_ready and slot.told.plan_number < number
        open_work += self._is_shadow_behind()
        unsettled = self.journal.unsettled_count
        return progress_response(
            "inference",
            epoch,
            produced=self.journals.produced(epoch),
            applied=self._applied if self._applied_epoch == epoch else {},
            # A record's mean size is not worth keeping: what counts is whether anything is left.
            unsent_count=unsettled - (-self.journals.unsent_bytes // 4096),
            open_work_count=open_work,
            watermark_us=self._watermark_us(),
        )

    def _watermark_us(self) -> int | None:
        if self._marks.is_explicit:
            return self._marks.mark_us
        marks = [each.board.get(Word.LAST_MARK_US) for each in self.slots]
        return min(marks) if all(marks) else None


def _journal_rules(settings: InferenceSettings) -> JournalRules:
    return JournalRules(
        settings.journal_segment_bytes,
        settings.journal_quota_bytes,
        settings.durability == "durable",
        Tail(
            settings.journal_tail_bytes,
            settings.journal_tail_seconds,
            crowded_bytes=settings.journal_quota_bytes // 2,
        ),
    )


def _committed_of(slot: WorkerSlot) -> Callable[[], int | None]:
    return lambda: slot.board.committed_end


def _hooks_of_shadow(slot: WorkerSlot) -> Hooks:
    board = slot.board

    def standing_mark_us() -> int | None:
        """A quiet shadow spells nothing out: what it has promised stands on its board."""
        return board.get(Word.LAST_MARK_US) or None if slot.is_ready else None

    return Hooks(
        # The server's promises do not wait for one that dies again and again.
        has_writer=lambda: slot.has_writer,
        set_idle=lambda is_idle: board.set(Word.IS_RELAY_IDLE, int(is_idle)),
        forgot=lambda start: board.set(Word.JOURNAL_START, start),
        standing_mark_us=standing_mark_us,
    )
