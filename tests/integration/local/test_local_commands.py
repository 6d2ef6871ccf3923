"""`homeostat up`, `status` and `down` as a user types them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.broker import TestBroker

from homeostat_local import control

Homeostat = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all, since making a database takes seconds."""
    return tmp_path_factory.mktemp("commands")


@pytest.fixture
def homeostat(folder: Path) -> Iterator[Homeostat]:
    """The command line on a folder of its own, without services."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("homeostat")), *words, "--folder", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )

    yield run
    control.stop(folder)


def test_up_status_up_again_and_down(homeostat: Homeostat) -> None:
    first = homeostat("up", "--services", "")
    assert first.returncode == 0, first.stderr
    assert "Homeostat is up" in first.stdout

    status = json.loads(homeostat("status", "--json").stdout)
    assert status["ok"]
    assert [each["name"] for each in status["processes"]] == ["supervisor", "broker", "database"]
    assert all(each["pss_mib"] > 0 for each in status["processes"])

    again = homeostat("up", "--services", "")
    assert "Already running" in again.stdout
    assert (
        json.loads(homeostat("status", "--json").stdout)["processes"][0]["pid"]
        == (status["processes"][0]["pid"])
    )

    assert "Stopped broker, database" in homeostat("down").stdout
    assert homeostat("status").returncode == 1


def test_down_ends_what_a_killed_supervisor_left(homeostat: Homeostat, folder: Path) -> None:
    homeostat("up", "--services", "")
    endpoints = control.running(folder)
    assert endpoints is not None
    control.kill(endpoints.supervisor)
    down = homeostat("down")
    assert down.returncode == 0
    assert not any(record.is_alive() for _, record in endpoints.processes())
    assert homeostat("up", "--services", "").returncode == 0


def test_down_where_nothing_runs_says_so(homeostat: Homeostat) -> None:
    down = homeostat("down")
    assert down.returncode == 0
    assert "Nothing runs" in down.stdout


def test_a_taken_port_is_an_error_with_the_cure(
    homeostat: Homeostat, embedded_broker: TestBroker
) -> None:
    port = embedded_broker.address.rpartition(":")[2]
    up = homeostat("up", "--services", "", "--port", f"broker={port}")
    assert up.returncode == 1
    assert up.stderr.startswith(f"error port {port} for broker is taken")
    assert "cure" in up.stderr


def test_a_malformed_setting_is_an_error_with_an_example(homeostat: Homeostat) -> None:
    up = homeostat("up", "--set", "nonsense")
    assert up.returncode == 1
    assert "INFERENCE_WATERMARK_MODE=explicit" in up.stderr
