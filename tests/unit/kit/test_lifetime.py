"""A service's process: starting, hearing SIGTERM, leaving in time."""

import json
import signal
import subprocess
import sys
import time

import pytest

BEGIN = "import asyncio, time\nfrom homeostat_kit.lifetime import run\nasync def serve(stop):\n"


def a_process(body: str, before_run: str = "") -> subprocess.Popen[str]:
    lines = "".join(f"    {line}\n" for line in ("print('serving', flush=True)", *body.split(";")))
    code = f"{BEGIN}{lines}{before_run}\nrun(serve, name='test')"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "serving" not in process.stdout.readline():
        assert process.poll() is None
    return process


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_stop_and_the_process_ends_well(by: signal.Signals) -> None:
    process = a_process("await stop.wait();print('flushed', flush=True)")
    process.send_signal(by)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "flushed" in output
    assert json.loads(output.splitlines()[-1])["event"] == "service_left"


def test_a_service_that_fails_says_why_and_ends_badly() -> None:
    process = a_process("raise RuntimeError('the cause')")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    line = json.loads(output.splitlines()[-1])
    assert (line["event"], "the cause" in line["exception"]) == ("service_failed", True)


@pytest.mark.parametrize("body", ["await asyncio.Event().wait()", "time.sleep(60)"])
def test_a_service_that_does_not_leave_is_ended(body: str) -> None:
    quick = "import homeostat_kit.lifetime as l; l._LEAVE_SECONDS = 0.3"
    blocked = "sleep" in body
    # A loop that is blocked hears no signal; it is told before it blocks.
    first = "import os, signal; os.kill(os.getpid(), signal.SIGTERM); await asyncio.sleep(0.05);"
    process = a_process((first.replace("; ", ";") if blocked else "") + body, quick)
    began = time.monotonic()
    if not blocked:
        process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 70
    assert "service_left_late" in output
    assert time.monotonic() - began < 5
