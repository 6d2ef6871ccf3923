"""A process without one of its threads must not look as if it were well."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, threading
from homeostat_inference.worker import end_with_thread
threading.excepthook = end_with_thread
def fail():
    raise MemoryError
thread = threading.Thread(target=fail, name=sys.argv[1], daemon=True)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(
    ("name", "status"),
    [("receive", 70), ("receive-loop", 70), ("run-fraud-3", 70), ("journal", 70), ("exporter", 0)],
)
def test_who_loses_the_thread_that_answers_ends(name: str, status: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, name], capture_output=True, text=True, check=False
    )
    assert ended.returncode == status
    assert "thread_died" in ended.stderr + ended.stdout
