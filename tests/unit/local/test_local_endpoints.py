import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from homeostat.endpoints import addresses
from homeostat_local.endpoints import (
    FILE_NAME,
    Endpoints,
    ProcessRecord,
    State,
    read_endpoints,
    read_ports,
    write_ports,
)
from homeostat_local.processes import start_mark


def a_record(address: str = "127.0.0.1:21000") -> ProcessRecord:
    """A process that is ready: this very one."""
    pid = os.getpid()
    return ProcessRecord(address, pid, start_mark(pid), State.READY, 1.5, 0.2, 3, was_ready=True)


def some_endpoints() -> Endpoints:
    return Endpoints(
        supervisor=a_record(""),
        kafka="127.0.0.1:21001",
        cluster_id="an-epoch",
        broker=a_record("127.0.0.1:21001"),
        database=a_record("127.0.0.1:21002"),
        services={"registry": a_record("127.0.0.1:21003")},
    )


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    some_endpoints().write(tmp_path)
    assert read_endpoints(tmp_path) == some_endpoints()
    assert [each.name for each in tmp_path.iterdir()] == [FILE_NAME]


def test_the_client_finds_the_services_in_the_file(tmp_path: Path) -> None:
    some_endpoints().write(tmp_path)
    assert addresses(tmp_path)["registry"] == "127.0.0.1:21003"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"supervisor": 3}', "\x00"])
def test_a_file_that_cannot_be_read_is_no_stack(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert read_endpoints(tmp_path) is None


def test_a_pid_that_another_process_took_over_is_not_ours() -> None:
    record = replace(a_record(), mark="1")
    assert not record.is_alive()
    assert not record.is_ready()


def test_all_is_ready_only_if_every_process_is() -> None:
    endpoints = some_endpoints()
    assert endpoints.all_ready()
    late = replace(endpoints, services={"registry": replace(a_record(), state=State.STARTING)})
    assert not late.all_ready()
    assert late.all_ready(["broker"])


def test_nothing_is_ready_under_a_dead_supervisor() -> None:
    dead = replace(some_endpoints(), supervisor=replace(a_record(), mark="1"))
    assert not dead.all_ready()


def test_an_external_kafka_is_no_process_of_ours() -> None:
    names = [name for name, _ in replace(some_endpoints(), broker=None).processes()]
    assert names == ["registry", "database"]


def test_ports_are_remembered(tmp_path: Path) -> None:
    write_ports(tmp_path, {"registry": 21003})
    assert read_ports(tmp_path) == {"registry": 21003}


@pytest.mark.parametrize("content", [None, "", "[1]", json.dumps({"registry": "x"})])
def test_unreadable_ports_count_as_none(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "ports.json").write_text(content)
    assert read_ports(tmp_path) == {}
