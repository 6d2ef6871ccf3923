"""The parent of broker, database and services: `python -m homeostat_local.supervisor FOLDER`."""

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from homeostat_kit import logs
from homeostat_local import broker, database
from homeostat_local.child import Child
from homeostat_local.control import ALREADY_RUNNING, STACK_FAILED, end_orphans
from homeostat_local.endpoints import (
    FILE_NAME,
    Endpoints,
    ProcessRecord,
    State,
    read_ports,
    write_ports,
)
from homeostat_local.errors import FolderUnusable, LocalError
from homeostat_local.launch import HTTP_PORTS, Launch, read_launch
from homeostat_local.logs import cut_log
from homeostat_local.memory import rss_mib
from homeostat_local.ports import LOOPBACK, choose_port, is_free
from homeostat_local.probes import is_serving
from homeostat_local.processes import Command, start_mark
from homeostat_local.services import STOP_ORDER, service_command

_MEMORY_CHECK_SECONDS = 1.0
_LOG_CHECK_SECONDS = 5.0
_CATCH_UP_SECONDS = 0.5

_log = logs.get_logger("homeostat_local.supervisor")


class Supervisor:
    """Runs one stack in one data folder, and keeps `endpoints.json` true."""

    def __init__(self, data_folder: Path, launch: Launch) -> None:
        self._folder = data_folder
        self._launch = launch
        self._ports = _choose_ports(data_folder, launch)
        self._cluster_id: str | None = None
        self._database_urls: Mapping[str, str] = {}
        self._failure: LocalError | None = None
        self._is_behind = False
        self._started_at = time.time()
        self._mark = start_mark(os.getpid())
        self._broker = None if launch.kafka else self._broker_child()
        self._database = self._database_child()
        self._services = [self._service_child(name) for name in launch.services]

    async def run(self, stop: asyncio.Event) -> None:
        """Runs everything until `stop` is set, then stops it in order.

        Raises LocalError where the stack could not be brought up at all.
        """
        write_ports(self._folder, self._ports)
        self._publish()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_memory(stop))
            tasks.create_task(self._watch_logs(stop))
            tasks.create_task(self._catch_up(stop))
            starting = tasks.create_task(self._start_all(tasks, stop))
            try:
                await stop.wait()
                await starting
            finally:
                stop.set()
                await self._stop_all()
        (self._folder / FILE_NAME).unlink(missing_ok=True)
        if self._failure is not None:
            raise self._failure

    async def _start_all(self, tasks: asyncio.TaskGroup, stop: asyncio.Event) -> None:
        try:
            if self._broker is None:
                self._cluster_id = await asyncio.to_thread(broker.read_cluster_id, self._kafka)
            is_new = await asyncio.to_thread(database.prepare_database, self._folder)
            below = [child for child in (self._broker, self._database) if child is not None]
            for child in below:
                tasks.create_task(child.run())
            await _ready_or(stop, below)
        except LocalError as error:
            self._failure = error
            stop.set()
        except OSError as error:
            self._failure = FolderUnusable(f"{error}; cure: make room, or another --folder")
            stop.set()
        if not stop.is_set():
            for child in self._services:
                tasks.create_task(child.run())
            if is_new:
                tasks.create_task(self._settle(stop))

    def _database_answers(self) -> bool:
        """It does once every service has its role and database there."""
        port = self._ports["database"]
        try:
            if not database.answers(port):
                return False
            self._database_urls = database.create_service_databases(self._folder, port)
        except (LocalError, OSError) as error:
            _log.warning("database_not_usable", reason=str(error))
            return False
        return True

    async def _settle(self, stop: asyncio.Event) -> None:
        await _ready_or(stop, self._services)
        if not stop.is_set():
            try:
                await asyncio.to_thread(database.settle, self._folder, self._ports["database"])
            except (LocalError, OSError) as error:
                _log.warning("database_not_settled", reason=str(error))

    async def _stop_all(self) -> None:
        by_name = {child.name: child for child in self._children()}
        others = [name for name in by_name if name not in {*STOP_ORDER, "broker", "database"}]
        for name in (*STOP_ORDER, *others, "broker", "database"):
            if name in by_name:
                left = await by_name[name].stop()
                _log.info("child_stopped", name=name, by_itself=left)

    async def _watch_memory(self, stop: asyncio.Event) -> None:
        """What the embedded broker holds grows without end; a new epoch costs a resend."""
        while self._broker is not None and not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _MEMORY_CHECK_SECONDS)
            pid = self._broker.pid
            if pid is not None and (held := rss_mib(pid)) > self._launch.broker_memory_mib:
                _log.warning("broker_over_memory_limit", rss_mib=round(held))
                self._broker.kill()

    async def _catch_up(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _CATCH_UP_SECONDS)
            if self._is_behind and not stop.is_set():
                self._publish()

    async def _watch_logs(self, stop: asyncio.Event) -> None:
        names = ["supervisor", *(child.name for child in self._children())]
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOG_CHECK_SECONDS)
            for name in names:
                try:
                    await asyncio.to_thread(cut_log, self._folder, name)
                except OSError as error:
                    _log.warning("log_not_cut", name=name, reason=str(error))

    def _broker_child(self) -> Child:
        def command() -> Command:
            self._cluster_id = broker.new_cluster_id()
            return broker.broker_command(self._kafka, self._cluster_id)

        async def answers() -> bool:
            told = await asyncio.to_thread(broker.read_cluster_id, self._kafka)
            return told is not None and told == self._cluster_id

        return Child(
            "broker", self._kafka, command=command, answers=answers,
            data_folder=self._folder, changed=self._publish,
        )  # fmt: skip

    def _database_child(self) -> Child:
        port = self._ports["database"]

        async def answers() -> bool:
            return await asyncio.to_thread(self._database_answers)

        return Child(
            "database", f"{LOOPBACK}:{port}",
            command=lambda: database.database_command(self._folder, port), answers=answers,
            data_folder=self._folder, changed=self._publish,
        )  # fmt: skip

    def _service_child(self, name: str) -> Child:
        addresses = {each: f"{LOOPBACK}:{self._ports[each]}" for each in self._launch.services}
        http_port = self._ports.get(HTTP_PORTS.get(name, ""))
        http_address = None if http_port is None else f"{LOOPBACK}:{http_port}"

        def command() -> Command:
            return service_command(
                name, launch=self._launch, data_folder=self._folder, kafka=self._kafka,
                addresses=addresses, database_urls=self._database_urls, http_address=http_address,
            )  # fmt: skip

        async def answers() -> bool:
            return await asyncio.to_thread(is_serving, addresses[name])

        return Child(
            name, addresses[name], command=command, answers=answers,
            data_folder=self._folder, changed=self._publish, http_address=http_address,
        )  # fmt: skip

    @property
    def _kafka(self) -> str:
        return self._launch.kafka or f"{LOOPBACK}:{self._ports['broker']}"

    def _children(self) -> Iterator[Child]:
        yield from self._services
        yield self._database
        if self._broker is not None:
            yield self._broker

    def _publish(self) -> None:
        me = ProcessRecord(
            address="", pid=os.getpid(), mark=self._mark, state=State.READY,
            started_at=self._started_at,
        )  # fmt: skip
        endpoints = Endpoints(
            supervisor=me,
            kafka=self._kafka,
            cluster_id=self._cluster_id,
            broker=self._broker.record() if self._broker is not None else None,
            database=self._database.record(),
            services={child.name: child.record() for child in self._services},
        )
        try:
            endpoints.write(self._folder)
        except OSError as error:
            # The file is behind until there is room again; the processes live on.
            if not self._is_behind:
                _log.warning("endpoints_not_written", reason=str(error))
            self._is_behind = True
        else:
            self._is_behind = False


def main(data_folder: Path) -> int:
    """Runs the stack that `launch.json` describes; 3 if another supervisor has the folder."""
    logs.configure("supervisor", os.environ.get("HOMEOSTAT_LOG_LEVEL", "INFO"))
    with (data_folder / "supervisor.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ALREADY_RUNNING
        for name in end_orphans(data_folder):
            _log.warning("orphan_ended", name=name)
        try:
            asyncio.run(_run(data_folder))
        except (LocalError, OSError) as error:
            _log.error(STACK_FAILED, reason=str(error))
            return 1
    return 0


async def _run(data_folder: Path) -> None:
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    await Supervisor(data_folder, read_launch(data_folder)).run(stop)


def _choose_ports(data_folder: Path, launch: Launch) -> dict[str, int]:
    """Last time's ports where they are free; a port that the user fixed must be."""
    http = [port for name, port in HTTP_PORTS.items() if name in launch.services]
    names = [*launch.services, *http, "database", *([] if launch.kafka else ["broker"])]
    before = read_ports(data_folder)
    ports: dict[str, int] = {}
    for name in names:
        fixed = launch.ports.get(name)
        if fixed is not None and not is_free(fixed):
            raise LocalError(
                f"port {fixed} for {name} is taken by another process; "
                f"cure: another one by --port {name}=PORT, or end that process"
            )
        ports[name] = fixed or choose_port(before.get(name, 0), taken=set(ports.values()))
    return before | ports


async def _ready_or(stop: asyncio.Event, children: Sequence[Child]) -> None:
    async def all_ready() -> None:
        for child in children:
            await child.ready.wait()

    waiting = {asyncio.ensure_future(stop.wait()), asyncio.ensure_future(all_ready())}
    _, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
