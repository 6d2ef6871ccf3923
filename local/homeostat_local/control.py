"""Starting, awaiting and stopping a stack from outside its supervisor."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from homeostat_local.endpoints import (
    FILE_NAME,
    Endpoints,
    ProcessRecord,
    State,
    read_endpoints,
)
from homeostat_local.errors import StartFailed
from homeostat_local.launch import Launch, check_machine
from homeostat_local.logs import log_path, open_log
from homeostat_local.processes import Command, spawn, tail
from homeostat_local.services import STOP_ORDER

# The supervisor's exit code when another one has the folder.
ALREADY_RUNNING = 3
# The last event in the log of a supervisor that could not bring its stack up.
STACK_FAILED = "stack_failed"

_POLL_SECONDS = 0.03
_LEAVE_SECONDS = 10.0
# Seven children, ten seconds each, and some.
_ALL_LEAVE_SECONDS = 80.0
# A service that dies so often before it ever answered will not come up.
_HOPELESS_DEATHS = 3


@dataclass(frozen=True, slots=True)
class Stopped:
    """What `stop` did: who left in order, and whom a dead supervisor had left behind."""

    in_order: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    supervisor_killed: bool = False


def running(data_folder: Path) -> Endpoints | None:
    """The stack of this folder, if its supervisor is alive; a stale file counts as none."""
    endpoints = read_endpoints(data_folder)
    return endpoints if endpoints is not None and endpoints.supervisor.is_alive() else None


def start(data_folder: Path, launch: Launch, *, detached: bool) -> subprocess.Popen[bytes]:
    """Starts a supervisor; detached, it outlives this process, else it ends in order with it.

    Raises MissingExtra or FolderUnusable if this machine cannot run the stack.
    """
    check_machine(data_folder, launch)
    launch.write(data_folder)
    arguments = (sys.executable, "-m", "homeostat_local.supervisor", str(data_folder))
    with open_log(data_folder, "supervisor") as output:
        if not detached:
            return spawn(Command(arguments, os.environ), output)
        return subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip


def wait_ready(
    data_folder: Path,
    supervisor: subprocess.Popen[bytes] | None,
    *,
    seconds: float = 60.0,
    names: Collection[str] = (),
    progress: Callable[[Endpoints], None] = lambda _: None,
) -> Endpoints:
    """Waits until these processes (default: all) answer.

    Raises StartFailed, with the end of its log, where one cannot.
    """
    deadline = time.monotonic() + seconds
    while True:
        endpoints = running(data_folder)
        if endpoints is not None:
            progress(endpoints)
            if endpoints.all_ready(names):
                return endpoints
            _raise_if_hopeless(data_folder, endpoints)
        elif supervisor is None or supervisor.poll() not in (None, ALREADY_RUNNING):
            raise StartFailed(_why_ended(log_path(data_folder, "supervisor")))
        if time.monotonic() > deadline:
            raise StartFailed(_slow(data_folder, endpoints, seconds))
        time.sleep(_POLL_SECONDS)


def stop(data_folder: Path, *, progress: Callable[[str], None] = lambda _: None) -> Stopped:
    """Stops the folder's stack in order, or what is left of it; never anything else."""
    endpoints = running(data_folder)
    if endpoints is None:
        return Stopped(orphans=end_orphans(data_folder))
    alive = [name for name, record in endpoints.processes() if record.is_alive()]
    names = tuple(sorted(alive, key=_stop_position))
    _signal(endpoints.supervisor, signal.SIGTERM)
    killed = not _gone(
        endpoints.supervisor, _ALL_LEAVE_SECONDS, lambda: _tell(data_folder, progress)
    )
    if killed:
        _signal(endpoints.supervisor, signal.SIGKILL)
        _gone(endpoints.supervisor, _LEAVE_SECONDS)
    return Stopped(names, end_orphans(data_folder), killed)


def end_orphans(data_folder: Path) -> tuple[str, ...]:
    """Ends what a supervisor that died has left running; pids that others took over stay alone."""
    endpoints = read_endpoints(data_folder)
    if endpoints is None:
        return ()
    left = [(name, record) for name, record in endpoints.processes() if record.is_alive()]
    for name, record in left:
        _signal(record, signal.SIGINT if name == "database" else signal.SIGTERM)
    for _, record in left:
        if not _gone(record, _LEAVE_SECONDS):
            _signal(record, signal.SIGKILL)
            _gone(record, _LEAVE_SECONDS)
    (data_folder / FILE_NAME).unlink(missing_ok=True)
    return tuple(name for name, _ in left)


def kill(record: ProcessRecord) -> None:
    """SIGKILL to that very process, and waits until it is gone."""
    _signal(record, signal.SIGKILL)
    _gone(record, _LEAVE_SECONDS)


def _stop_position(name: str) -> int:
    order = (*STOP_ORDER, "broker", "database")
    return order.index(name) if name in order else len(STOP_ORDER)


def _signal(record: ProcessRecord, how: signal.Signals) -> None:
    if record.pid is not None and record.is_alive():
        try:
            os.kill(record.pid, how)
        except ProcessLookupError:
            return


def _gone(
    record: ProcessRecord, seconds: float, meanwhile: Callable[[], None] = lambda: None
) -> bool:
    deadline = time.monotonic() + seconds
    while record.is_alive():
        meanwhile()
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _tell(data_folder: Path, progress: Callable[[str], None]) -> None:
    endpoints = read_endpoints(data_folder)
    if endpoints is not None:
        left = [name for name, record in endpoints.processes() if record.state is not State.STOPPED]
        progress(", ".join(left))


def _raise_if_hopeless(data_folder: Path, endpoints: Endpoints) -> None:
    for name, record in endpoints.processes():
        if not record.was_ready and record.restarts >= _HOPELESS_DEATHS:
            log = log_path(data_folder, name)
            raise StartFailed(
                f"{name} died {record.restarts} times before it answered; the end of {log}:\n"
                f"{tail(log)}"
            )


def _why_ended(log: Path) -> str:
    """The reason that the supervisor gave; the end of its log where it gave none."""
    end = tail(log)
    try:
        last = json.loads(end.splitlines()[-1])
        if last["event"] == STACK_FAILED:
            return str(last["reason"])
    except (ValueError, LookupError, TypeError):
        pass
    return f"the supervisor ended; the end of {log}:\n{end}"


def _slow(data_folder: Path, endpoints: Endpoints | None, seconds: float) -> str:
    processes = endpoints.processes() if endpoints is not None else ()
    late = [name for name, record in processes if not record.is_ready()]
    return (
        f"not ready within {seconds:.0f} s: {', '.join(late) or 'the supervisor'}; "
        f"see {data_folder / 'logs'}"
    )
