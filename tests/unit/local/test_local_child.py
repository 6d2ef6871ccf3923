"""A supervised process on a machine that fails: a full disk, a supervisor cut short."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil
import pytest
from tests.support.waiting import PATIENCE_SECONDS

from homeostat_local import child as children
from homeostat_local.child import Child
from homeostat_local.endpoints import State, read_endpoints
from homeostat_local.launch import Launch
from homeostat_local.processes import Command
from homeostat_local.supervisor import Supervisor

SLEEP = Command((sys.executable, "-c", "import signal; signal.pause()"), dict(os.environ))


async def at_once() -> bool:
    return True


def a_child(folder: Path) -> Child:
    return Child(
        "x", "127.0.0.1:1", command=lambda: SLEEP, answers=at_once,
        data_folder=folder, changed=lambda: None,
    )  # fmt: skip


async def test_a_disk_that_is_full_for_a_while_delays_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(28, "No space left on device")] * 2
    real = children.open_log

    def open_log(folder: Path, name: str) -> IO[bytes]:
        if failures:
            raise failures.pop()
        return real(folder, name)

    monkeypatch.setattr(children, "open_log", open_log)
    child = a_child(tmp_path)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(child.run())
        await child.ready.wait()
        assert child.record().restarts == 2
        await child.stop()
    assert child.record().state is State.STOPPED


async def test_a_child_is_ended_even_if_its_supervision_was_cut_short(tmp_path: Path) -> None:
    child = a_child(tmp_path)
    supervision = asyncio.create_task(child.run())
    async with asyncio.timeout(60):
        await child.ready.wait()
        pid = child.pid
        supervision.cancel()
        await asyncio.gather(supervision, return_exceptions=True)
        assert await child.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_what_a_full_disk_did_not_take_is_written_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    supervisor = Supervisor(tmp_path, Launch(services=()))
    stop = asyncio.Event()
    with monkeypatch.context() as full:
        full.setattr("homeostat_local.endpoints.write_atomically", no_room)
        supervisor._publish()
    assert read_endpoints(tmp_path) is None
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(supervisor._catch_up(stop))
        while read_endpoints(tmp_path) is None:  # noqa: ASYNC110 - a file tells nobody
            await asyncio.sleep(0.02)
        stop.set()


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root can give its rights up",
)
def test_who_gave_up_roots_rights_still_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from homeostat_local.processes import Command, spawn
drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
print(spawn(Command(("sleep", "600"), dict(os.environ), drop_rights=drop), 1).pid, flush=True)
signal.pause()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    try:
        until(lambda: psutil.Process(pid).name() == "sleep")
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        until(lambda: not psutil.pid_exists(pid))
    finally:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGKILL)


def until(condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)
