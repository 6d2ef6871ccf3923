"""The supervisor with real broker and database; services are stand-ins that answer health."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest
from tests.support.psql import query
from tests.support.waiting import PATIENCE_SECONDS

from homeostat_local import control
from homeostat_local.broker import read_cluster_id
from homeostat_local.database import create_service_database, prepare_database
from homeostat_local.endpoints import read_endpoints
from homeostat_local.errors import StartFailed
from homeostat_local.launch import SERVICES, Launch
from homeostat_local.probes import is_serving
from homeostat_local.stack import Stack, running_stack


def stand_in(name: str, *options: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.support.standin_service", name, *options)


STAND_INS = {name: stand_in(name) for name in SERVICES}


def until(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    with running_stack(folder, commands=STAND_INS, settings={"LEDGER_X": "7"}) as running:
        yield running


@pytest.fixture(scope="module")
def used_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database is made already, for one stack after the other."""
    folder = tmp_path_factory.mktemp("used")
    prepare_database(folder)
    return folder


def test_everything_answers_where_the_file_says(stack: Stack) -> None:
    assert all(is_serving(stack.addresses[name]) for name in SERVICES)
    assert read_cluster_id(stack.addresses["kafka"]) == stack.cluster_id
    assert query(stack.database_url("ledger"), "SELECT current_user") == "ledger"


def connections_of(process: psutil.Process) -> list[Any]:
    """None of a process that ended in between, as a database session may."""
    try:
        return list(process.net_connections())
    except psutil.NoSuchProcess:
        return []


def test_only_loopback_is_listened_on(stack: Stack) -> None:
    supervisor = psutil.Process(stack.endpoints.supervisor.pid)
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in supervisor.children(recursive=True)
        for connection in connections_of(process)
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}


def test_settings_reach_the_services(stack: Stack) -> None:
    until(lambda: "HOMEOSTAT_LEDGER_X" in stack.log("ledger"))


def test_a_role_cannot_enter_another_services_database(stack: Stack) -> None:
    foreign = stack.database_url("ledger").rpartition("/")[0] + "/registry"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        query(foreign, "SELECT 1")


@pytest.mark.parametrize("name", ["monitor", "database"])
def test_a_killed_child_is_restarted_at_its_address(stack: Stack, name: str) -> None:
    address, restarts, pid = stack.addresses[name], stack.restarts(name), stack.pid(name)
    stack.kill(name)
    stack.wait_ready()
    assert stack.addresses[name] == address
    assert stack.restarts(name) > restarts
    assert stack.pid(name) != pid


def test_a_killed_broker_comes_back_as_a_new_epoch(stack: Stack) -> None:
    address, before = stack.addresses["kafka"], stack.cluster_id
    stack.kill("broker")
    stack.wait_ready()
    assert stack.addresses["kafka"] == address
    assert stack.cluster_id != before
    assert read_cluster_id(address) == stack.cluster_id


def test_memory_is_summed_over_all_processes(stack: Stack) -> None:
    assert 50 < stack.pss_mb() < 1_000
    assert stack.peak_pss_mb >= 50


def test_memory_in_all_can_include_the_caller(used_folder: Path) -> None:
    with running_stack(used_folder, services=(), counts_caller=True) as stack:
        by_process = stack.pss_by_process()
        assert set(by_process) == {"caller", "supervisor", "broker", "database"}
        assert by_process["caller"] > 10
        assert stack.pss_mb() == pytest.approx(sum(by_process.values()), rel=0.2)


def test_what_is_meant_for_one_service_does_not_reach_another(stack: Stack) -> None:
    assert "HOMEOSTAT_LEDGER_X" not in stack.log("registry")
    assert "CLIENT_KEY_SECRET" not in stack.log("monitor")


def test_a_second_supervisor_leaves_the_folder_alone(stack: Stack) -> None:
    before = stack.endpoints
    second = subprocess.run(
        [sys.executable, "-m", "homeostat_local.supervisor", str(stack.folder)], check=False
    )
    assert second.returncode == control.ALREADY_RUNNING
    assert stack.endpoints == before


def test_a_second_start_finds_data_ports_and_secrets(used_folder: Path) -> None:
    with running_stack(used_folder, services=()) as first:
        url, kafka = first.database_url("ledger"), first.addresses["kafka"]
        query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert read_endpoints(used_folder) is None
    with running_stack(used_folder, services=()) as second:
        assert second.database_url("ledger") == url
        assert second.addresses["kafka"] == kafka
        assert query(url, "SELECT answer FROM kept") == "42"


def test_a_port_that_was_taken_meanwhile_is_given_up(used_folder: Path) -> None:
    with running_stack(used_folder, services=()) as first:
        kafka = first.addresses["kafka"]
    host, _, port = kafka.partition(":")
    with (
        socket.create_server((host, int(port))),
        running_stack(used_folder, services=()) as second,
    ):
        assert second.addresses["kafka"] != kafka


def test_a_broker_over_its_memory_limit_becomes_a_new_epoch(used_folder: Path) -> None:
    with running_stack(used_folder, services=(), broker_memory_mib=1) as stack:
        until(lambda: stack.restarts("broker") > 0)


def test_a_service_that_cannot_start_is_reported_with_its_log(used_folder: Path) -> None:
    commands = {"registry": (sys.executable, "-c", "print('no such luck'); raise SystemExit(1)")}
    with (
        pytest.raises(StartFailed, match=r"(?s)registry died.*no such luck"),
        running_stack(used_folder, services=["registry"], commands=commands),
    ):
        pass
    assert read_endpoints(used_folder) is None


def test_a_service_deaf_to_sigterm_is_killed_in_the_end(used_folder: Path) -> None:
    commands = {"ledger": stand_in("ledger", "--deaf")}
    stack = Stack(used_folder, Launch(services=("ledger",), commands=commands))
    stack.start()
    pid = stack.pid("ledger")
    started = time.monotonic()
    stack.stop()
    assert time.monotonic() - started < 20
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert "child_killed" in stack.log("supervisor")


def test_what_a_killed_supervisor_leaves_behind_is_ended_and_the_data_are_found(
    used_folder: Path,
) -> None:
    stack = Stack(used_folder, Launch(services=("ledger",), commands=STAND_INS))
    stack.start()
    pids = [record.pid for _, record in stack.endpoints.processes()]
    query(stack.database_url("ledger"), "CREATE TABLE survived AS SELECT 42 AS answer")
    stack.kill("supervisor")
    stack.stop()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids if pid))
    with running_stack(used_folder, services=()) as second:
        assert query(second.database_url("ledger"), "SELECT answer FROM survived") == "42"


def test_a_stranger_with_a_recorded_pid_is_not_ended(used_folder: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    try:
        with running_stack(used_folder, services=()) as stack:
            endpoints = stack.endpoints
        assert endpoints.database is not None
        replace(endpoints, database=replace(endpoints.database, pid=stranger.pid)).write(
            used_folder
        )
        assert control.stop(used_folder) == control.Stopped()
        assert stranger.poll() is None
    finally:
        stranger.send_signal(signal.SIGKILL)
        stranger.wait()


def test_an_external_kafka_takes_the_brokers_place(used_folder: Path, stack: Stack) -> None:
    kafka = stack.addresses["kafka"]
    with running_stack(used_folder, services=["ledger"], commands=STAND_INS, kafka=kafka) as other:
        assert other.addresses["kafka"] == kafka
        assert other.endpoints.broker is None
        assert other.cluster_id == stack.cluster_id


def test_making_a_database_twice_keeps_it(stack: Stack) -> None:
    url = create_service_database(stack.admin_url(), "twice", "pass'word")
    query(url, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert create_service_database(stack.admin_url(), "twice", "pass'word") == url
    assert query(url, "SELECT answer FROM kept") == "42"


@pytest.mark.kafka
def test_a_real_kafka_tells_its_cluster_id_too(used_folder: Path, kafka_address: str) -> None:
    with running_stack(used_folder, services=(), kafka=kafka_address) as stack:
        assert stack.cluster_id is not None
