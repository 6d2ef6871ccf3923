"""The whole stack from Python, for tests and the demo: start, wait, kill, measure, stop."""

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from homeostat_local import control, database
from homeostat_local.endpoints import Endpoints
from homeostat_local.errors import StartFailed
from homeostat_local.launch import SERVICES, Launch
from homeostat_local.logs import log_path
from homeostat_local.memory import pss_mib, tree
from homeostat_local.ports import split_address

_SAMPLE_SECONDS = 1.0
_LEAVE_SECONDS = 90.0


class Stack:
    """A stack whose supervisor is this process's child; it ends in order with this process."""

    def __init__(self, data_folder: Path, launch: Launch, *, counts_caller: bool = False) -> None:
        self.folder = data_folder
        self._counts_caller = counts_caller
        self.launch = launch
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._peak_mib = 0.0

    @property
    def endpoints(self) -> Endpoints:
        """What the supervisor says now; StartFailed if none runs."""
        endpoints = control.running(self.folder)
        if endpoints is None:
            raise StartFailed(f"nothing runs in {self.folder}")
        return endpoints

    @property
    def addresses(self) -> Mapping[str, str]:
        """host:port by service, and of "kafka" and "database"."""
        endpoints = self.endpoints
        found = {name: record.address for name, record in endpoints.services.items()}
        if endpoints.database is not None:
            found["database"] = endpoints.database.address
        return MappingProxyType(found | {"kafka": endpoints.kafka})

    @property
    def cluster_id(self) -> str | None:
        """The broker's epoch."""
        return self.endpoints.cluster_id

    def admin_url(self) -> str:
        """The database server's URL for its owner."""
        return database.admin_url(self.folder, split_address(self.addresses["database"])[1])

    def database_url(self, service: str) -> str:
        """The URL that a service was given."""
        _, port = split_address(self.addresses["database"])
        return database.service_url(self.folder, port, service)

    def start(self, *, seconds: float = 60.0) -> None:
        """Starts the supervisor and waits until everything answers; StartFailed with the reason."""
        self._supervisor = control.start(self.folder, self.launch, detached=False)
        self.wait_ready(seconds=seconds)

    def wait_ready(self, *names: str, seconds: float = 30.0) -> None:
        """Waits until these processes answer (default: all), also after a kill."""
        control.wait_ready(self.folder, self._supervisor, seconds=seconds, names=names)

    def kill(self, name: str) -> None:
        """SIGKILL to a service, "broker", "database" or "supervisor"; returns once it is gone."""
        endpoints = self.endpoints
        control.kill(endpoints.supervisor if name == "supervisor" else endpoints.process(name))

    def restarts(self, name: str) -> int:
        """How often a process was started again."""
        return self.endpoints.process(name).restarts

    def pid(self, name: str) -> int | None:
        """The pid of a process; None between two lives."""
        return self.endpoints.process(name).pid

    def log(self, name: str) -> str:
        """What a process has written so far."""
        path = log_path(self.folder, name)
        return path.read_text(errors="replace") if path.exists() else ""

    def pss_mb(self) -> float:
        """Memory of all processes of the stack now, in MiB (shared pages counted once).

        With `counts_caller` the calling process is one of them.
        """
        supervisor = self._supervisor
        pids = tree(supervisor.pid) if supervisor is not None else []
        now = pss_mib([*pids, *([os.getpid()] if self._counts_caller else [])])
        self._peak_mib = max(self._peak_mib, now)
        return now

    def pss_by_process(self) -> dict[str, float]:
        """The same by process, largest first; "caller" is the calling one."""
        endpoints = self.endpoints
        roots = {name: record.pid for name, record in endpoints.processes() if record.pid}
        held = {name: pss_mib(tree(pid)) for name, pid in roots.items()}
        held["supervisor"] = pss_mib([endpoints.supervisor.pid or 0])
        if self._counts_caller:
            held["caller"] = pss_mib([os.getpid()])
        return dict(sorted(held.items(), key=lambda each: -each[1]))

    @property
    def peak_pss_mb(self) -> float:
        """The largest memory seen by the sampler (each second) or by `pss_mb`."""
        return self._peak_mib

    def stop(self) -> control.Stopped:
        """Stops everything in order, or what is left of it."""
        stopped = control.stop(self.folder)
        if self._supervisor is not None:
            self._supervisor.wait(_LEAVE_SECONDS)
        return stopped


@contextmanager
def running_stack(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    services: Sequence[str] = SERVICES,
    kafka: str | None = None,
    commands: Mapping[str, Sequence[str]] | None = None,
    broker_memory_mib: int = 1024,
    seconds: float = 60.0,
    counts_caller: bool = False,
) -> Iterator[Stack]:
    """A stack that is ready on entry and stopped on exit.

    `settings` are environment variables, with or without the prefix HOMEOSTAT_; `kafka` (host:port)
    takes the place of the embedded broker; `commands` say how to start a service instead. With
    `counts_caller` the memory that is measured includes the calling process.
    """
    launch = Launch(
        services=tuple(services),
        settings=dict(settings or {}),
        kafka=kafka,
        commands={name: tuple(words) for name, words in (commands or {}).items()},
        broker_memory_mib=broker_memory_mib,
    )
    stack = Stack(folder.resolve(), launch, counts_caller=counts_caller)
    over = threading.Event()
    sampler = threading.Thread(target=_sample, args=(stack, over), name="pss", daemon=True)
    try:
        stack.start(seconds=seconds)
        sampler.start()
        yield stack
    finally:
        over.set()
        if sampler.is_alive():
            sampler.join()
        stack.stop()


def _sample(stack: Stack, over: threading.Event) -> None:
    while not over.wait(_SAMPLE_SECONDS):
        stack.pss_mb()
