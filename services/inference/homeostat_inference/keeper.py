"""The keeper: follows the registry, keeps workers alive, and sends on what they have kept."""

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import grpc

from homeostat.inference.v1.serving_pb2_grpc import add_ServingServiceServicer_to_server
from homeostat.inference.v1.truth_pb2_grpc import add_TruthServiceServicer_to_server
from homeostat.topics import ACTIVATIONS, OUTCOMES, PREDICTIONS, VERSIONS
from homeostat_inference.app.plan import ServingPlan
from homeostat_inference.app.planning import Planner
from homeostat_inference.app.ports import Done, Kind
from homeostat_inference.app.supervising import CrashBook
from homeostat_inference.app.truth import CallerMarks, Described
from homeostat_inference.domain.times import TimeBounds, bounds
from homeostat_inference.edges.announcing import Announcer
from homeostat_inference.edges.archive import AskFate
from homeostat_inference.edges.beside import Beside
from homeostat_inference.edges.callers import CallersPromises
from homeostat_inference.edges.crew import Addresses, Crew
from homeostat_inference.edges.errors import CODES
from homeostat_inference.edges.events import wait_for
from homeostat_inference.edges.following import Following
from homeostat_inference.edges.health import Health
from homeostat_inference.edges.heard_changes import HeardChanges
from homeostat_inference.edges.heeding import Heeding
from homeostat_inference.edges.journals import KEEPER_SLOT, JournalRules, Journals
from homeostat_inference.edges.keeper_api import KeeperTruthApi, ServingApi
from homeostat_inference.edges.marks_file import MarkFile
from homeostat_inference.edges.nursery import Nursery, NurseryDied
from homeostat_inference.edges.passing import KEEPER_SERVICES
from homeostat_inference.edges.progress import Progress
from homeostat_inference.edges.relay_hooks import Tail
from homeostat_inference.edges.reservation import Reservation
from homeostat_inference.edges.slots import WorkerSlot
from homeostat_inference.edges.status import Status
from homeostat_inference.edges.versions import Registry, VersionCache
from homeostat_inference.metrics import keeper_metrics, observe
from homeostat_inference.settings import InferenceSettings
from homeostat_kit import grpc_server, telemetry
from homeostat_kit.clock import SystemClock
from homeostat_kit.kafka import Bus
from homeostat_kit.logs import get_logger
from homeostat_kit.progress import ProgressServicer

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
        self._beside = Beside()
        self._heeding = Heeding(
            self.following, self._announcer, self.crashes, self._beside, self._clock
        )
        self._changes = HeardChanges(bus, self.following)
        self.slots: list[WorkerSlot] = []
        self.journals = Journals(
            self._folder, _journal_rules(settings), bus, ask_fate, settings.server_name
        )
        self._health = Health(self.following, self.slots)
        self._is_leaving = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop``; then lets the workers answer, and sends what is kept."""
        self._nursery.attach()
        async with AsyncExitStack() as stack:
            stack.callback(self._nursery.close)
            address = self._reserved(self._settings.grpc_address, stack)
            http = self._settings.http_address
            http_address = self._reserved(http, stack) if http else None
            self._marks = CallerMarks(
                is_explicit=self._settings.watermark_mode == "explicit", mark_us=None
            )
            marks_file = MarkFile(self._folder / KEEPER_SLOT / "mark")
            stack.callback(marks_file.close)
            if self._marks.is_explicit:
                self._marks.mark_us = marks_file.mark_us
            self._announcer.begin()
            await asyncio.to_thread(self.following.begin)
            self._health.has_cached = bool(self.following.plan.models)
            self.journal = stack.enter_context(self.journals.open_own(asyncio.get_running_loop()))
            self._callers = CallersPromises(
                self._marks, marks_file, self.journal, self.slots, self._marks.mark_us
            )
            # Only now: nobody else has this folder.
            own_address = f"unix:{self._socket_path(stack)}"
            self._crew = self._add_crew(Addresses(address, http_address, own_address))
            self.status = Status(
                self._settings.server_name,
                self._settings.durability,
                self._settings.journal_quota_bytes,
                self._bus,
                self.following,
                self.crashes,
                self.journal,
                self.slots,
                self._crew.shadow,
                self.journals.relays,
            )
            server = await self._start_server(own_address)
            stack.push_async_callback(server.stop, 0.2)
            if self._observed.is_on:
                observe(self._observed.meter, keeper_metrics(self.status))
            await self._live(stop)

    @staticmethod
    def _reserved(address: str, stack: AsyncExitStack) -> str:
        reservation = Reservation.of(address)
        stack.callback(reservation.close)
        return reservation.address

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
                tasks.create_task(each.live(slots_stop), name=each.name) for each in self._crew.all
            ]
            tasks.create_task(self._follow(stop), name="registry")
            tasks.create_task(self.following.bring(stop), name="files")
            tasks.create_task(self._changes.run(stop), name="versions")
            tasks.create_task(self.journals.forget(stop), name="forget")
            tasks.create_task(self._health.tell(self.status, stop), name="health")
            tasks.create_task(self._fail_without_nursery(stop), name="nursery")
            await stop.wait()
            self._is_leaving = True
            for each in self._crew.all:
                each.leave()
            slots_stop.set()
            await asyncio.wait(lives, timeout=_LEAVE_SECONDS)
            for each in self._crew.all:
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

    def _add_crew(self, addresses: Addresses) -> Crew:
        """The slots, with the journals of all, and those that were left over."""
        self.journals.add_own(self.journal, self._standing_mark_us)
        crew = Crew(
            self.slots,
            workers=self._settings.workers,
            memory_bytes=self._settings.worker_memory_bytes,
            addresses=addresses,
            folder=self._folder,
            nursery=self._nursery,
            journals=self.journals,
            callers=self._callers,
            heeding=self._heeding,
            health=lambda: self._health.now,
        )
        self.journals.add_left_over()
        crew.bound_positions()
        return crew

    def _standing_mark_us(self) -> int | None:
        """By the clock: truths bring no times that a promise would have to wait for."""
        if self._marks.is_explicit:
            return self._callers.standing_us()
        return self._clock.now_us() - round(self._settings.watermark_bound_seconds * 1e6)

    def _publish(self, plan: ServingPlan) -> None:
        self._crew.publish(plan)

    def _publish_activation(self, message: bytes, done: Done) -> None:
        self.journal.append(Kind.ACTIVATION, message, done=done, must=True)
        self._beside.begin(asyncio.to_thread(self.journal.commit))

    # Following the registry.

    async def _follow(self, stop: asyncio.Event) -> None:
        await self.following.run(self._settings.snapshot_interval_seconds, stop)

    def _times(self, now_us: int) -> TimeBounds:
        return bounds(now_us, self._marks.mark_us, round(self._settings.future_bound_seconds * 1e6))

    # What is answered.

    async def _start_server(self, address: str) -> grpc_server.RunningServer:
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

        progress = Progress(
            self._crew,
            self.following,
            self._changes,
            self._beside,
            self.journal,
            self.journals,
            self._marks,
        )

        def add(server: grpc.aio.Server) -> None:
            add_TruthServiceServicer_to_server(truth, server)
            add_ServingServiceServicer_to_server(
                ServingApi(self.status.serving, self._heeding.release), server
            )
            ProgressServicer(progress.read).add_to(server)

        return await grpc_server.serve(address, add, errors=CODES, service_names=KEEPER_SERVICES)

    def _champions(self, model_name: str) -> Mapping[str, Described]:
        schema = self.following.schema(model_name)
        return {} if schema is None else {model_name: Described(schema)}


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
