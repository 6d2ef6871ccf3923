"""The real services under the supervisor: up, killed, back, and leaving by themselves."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat_local.launch import SERVICES
from homeostat_local.probes import is_serving
from homeostat_local.stack import Stack, running_stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("services")


@pytest.fixture(scope="module")
def stack(folder: Path) -> Iterator[Stack]:
    with running_stack(folder) as running:
        yield running


def test_every_service_serves(stack: Stack) -> None:
    assert all(is_serving(stack.addresses[name]) for name in SERVICES)


def test_all_of_it_takes_less_than_a_gigabyte_when_idle(stack: Stack) -> None:
    assert stack.pss_mb() < 1_000


@pytest.mark.parametrize("name", SERVICES)
def test_a_killed_service_serves_again(stack: Stack, name: str) -> None:
    stack.kill(name)
    stack.wait_ready()
    assert is_serving(stack.addresses[name])
    assert stack.restarts(name) == 1


def test_every_service_outlives_a_killed_database_and_a_killed_broker(stack: Stack) -> None:
    before = {name: stack.pid(name) for name in SERVICES}
    stack.kill("database")
    stack.kill("broker")
    stack.wait_ready()
    assert all(is_serving(stack.addresses[name]) for name in SERVICES)
    assert {name: stack.pid(name) for name in SERVICES} == before


def test_every_process_leaves_by_itself_when_told(stack: Stack) -> None:
    stack.stop()
    events = [json.loads(line) for line in stack.log("supervisor").splitlines()]
    stopped = {each["name"]: each for each in events if each["event"] == "child_stopped"}
    assert set(stopped) == {*SERVICES, "broker", "database"}
    assert [name for name, each in stopped.items() if not each["by_itself"]] == []
    codes = {each["name"]: each["code"] for each in events if each["event"] == "child_ended"}
    assert codes == dict.fromkeys((*SERVICES, "broker", "database"), 0)
