"""Starting, recognising and ending our own processes, and no others."""

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from homeostat_local.errors import StartFailed

_POLL_SECONDS = 0.01
_LOG_TAIL_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute: arguments, the whole environment, and the signal that asks it to leave.

    `drop_rights` are the words before it that give up the user's rights.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    stop_signal: signal.Signals = signal.SIGTERM
    drop_rights: tuple[str, ...] = ()


def spawn(command: Command, output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Starts the command in a session of its own.

    Started from the main thread it also ends when this process does, however that happens. From
    another thread it does not: the kernel would end it together with that thread.
    """
    bound: tuple[str, ...] = ()
    if threading.current_thread() is threading.main_thread():
        bound = _dying_with_parent(command.stop_signal)
    return subprocess.Popen(
        # In this order: the kernel forgets the signal of a process that changes its user.
        (*command.drop_rights, *bound, *command.arguments),
        env=dict(command.environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes], how: signal.Signals, seconds: float = 10.0) -> bool:
    """Asks the process to leave and kills it after `seconds`; True if it left by itself."""
    if process.poll() is not None:
        return True
    process.send_signal(how)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def wait_until(
    condition: Callable[[], bool],
    process: subprocess.Popen[bytes],
    *,
    name: str,
    log: Path,
    seconds: float = 20.0,
) -> None:
    """Waits for the condition; raises StartFailed if the process ends or the time is up first."""
    deadline = time.monotonic() + seconds
    while not condition():
        code = process.poll()
        if code is not None:
            raise StartFailed(f"{name} ended with code {code} at its start: {tail(log)}")
        if time.monotonic() > deadline:
            raise StartFailed(f"{name} did not answer within {seconds:.0f} s: {tail(log)}")
        time.sleep(_POLL_SECONDS)


def tail(log: Path) -> str:
    """The last lines of a log file, for error messages; empty if there is none."""
    try:
        return log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""


def start_mark(pid: int) -> str | None:
    """Tells a process from a later one with the same pid; None if none runs (or a zombie)."""
    try:
        # The fields after the name in brackets: state is the first of them, start time the 20th.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.Error:
        return None


def is_same(pid: int, mark: str | None) -> bool:
    """Whether the process that was recorded under this pid and mark still runs."""
    return mark is not None and start_mark(pid) == mark


def end_group(pid: int) -> None:
    """Kills what a dead child of ours has left behind in its own process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _dying_with_parent(how: signal.Signals) -> tuple[str, ...]:
    setpriv = shutil.which("setpriv")
    return () if setpriv is None else (setpriv, "--pdeathsig", how.name.removeprefix("SIG"), "--")
