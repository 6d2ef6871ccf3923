"""What a jailed process can't do. Each claim runs in a process of its own."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="no call filter for this machine"
)

_JAIL = """
import os, resource, socket, threading
from homeostat_registry.admission import jail
kept = os.dup(1)
jail.limit(jail.Limits(memory_bytes=1 << 30, cpu_seconds=5))
assert jail.close_doors()
try:
    {attempt}
except (OSError, MemoryError, ValueError) as error:
    os.write(kept, type(error).__name__.encode())
else:
    os.write(kept, b"done")
"""


def outcome(attempt: str, folder: Path | None = None) -> str:
    """What the jailed attempt ended with."""
    script = _JAIL.format(attempt=attempt)
    ended = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=folder,
    )
    return ended.stdout or f"exit code {ended.returncode}: {ended.stderr[-300:]}"


@pytest.mark.parametrize(
    "attempt",
    [
        "open('/etc/hostname')",
        "open('left-behind', 'w')",
        "os.unlink('/nowhere')",
        "os.mkdir('left-behind')",
        "socket.socket()",
        "socket.socketpair()",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        "os.chmod('/nowhere', 0)",
    ],
)
def test_every_door_is_closed(attempt: str, tmp_path: Path) -> None:
    assert outcome(attempt, tmp_path) == "PermissionError"
    assert list(tmp_path.iterdir()) == []


def test_memory_is_limited() -> None:
    assert outcome("bytearray(2 << 30)") == "MemoryError"


def test_limits_cannot_be_raised_again() -> None:
    attempt = "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))"
    assert outcome(attempt) in ("PermissionError", "ValueError")


def test_threads_and_reading_limits_still_work() -> None:
    attempt = (
        "resource.getrlimit(resource.RLIMIT_CPU); "
        "each = threading.Thread(target=int); each.start(); each.join()"
    )
    assert outcome(attempt) == "done"
