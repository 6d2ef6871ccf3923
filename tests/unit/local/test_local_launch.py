import os
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from homeostat_local import launch as launches
from homeostat_local.errors import FolderUnusable, LocalError, MissingExtra
from homeostat_local.files import secret
from homeostat_local.launch import (
    SERVICES,
    Launch,
    check_machine,
    parse_ports,
    parse_settings,
    read_launch,
)
from homeostat_local.logs import cut_log, log_path, open_log
from homeostat_local.services import service_command


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_launch_is_read_as_it_was_written_and_by_its_owner_only(tmp_path: Path) -> None:
    launch = Launch(
        services=("registry",),
        settings={"REGISTRY_X": "1"},
        kafka="127.0.0.1:9092",
        commands={"registry": ("true",)},
        ports={"registry": 21000},
    )
    launch.write(tmp_path)
    assert read_launch(tmp_path) == launch
    assert mode(tmp_path / "launch.json") == 0o600


def test_settings_get_their_prefix_once() -> None:
    launch = Launch(settings={"INFERENCE_A": "1", "HOMEOSTAT_LEDGER_B": "2"})
    assert launch.environment("inference") == {"HOMEOSTAT_INFERENCE_A": "1"}
    assert launch.environment("ledger") == {"HOMEOSTAT_LEDGER_B": "2"}


def test_a_common_setting_holds_for_every_service_that_has_none_of_its_own() -> None:
    launch = Launch(settings={"OTLP_ENDPOINT": "http://a", "LEDGER_OTLP_ENDPOINT": "http://b"})
    assert launch.environment("monitor") == {"HOMEOSTAT_MONITOR_OTLP_ENDPOINT": "http://a"}
    assert launch.environment("ledger") == {"HOMEOSTAT_LEDGER_OTLP_ENDPOINT": "http://b"}


def test_a_setting_of_no_service_is_refused_with_the_cure() -> None:
    with pytest.raises(LocalError, match="HOMEOSTAT_WATERMARK_MODE is no service's setting; cure"):
        Launch(settings={"WATERMARK_MODE": "explicit"})


def test_a_setting_keeps_the_equals_signs_of_its_value() -> None:
    assert parse_settings(["a_b=c=d"]) == {"A_B": "c=d"}


@pytest.mark.parametrize("assignment", ["nonsense", "=1", "a b=1"])
def test_a_malformed_setting_is_refused_with_an_example(assignment: str) -> None:
    with pytest.raises(LocalError, match="like INFERENCE_WATERMARK_MODE=explicit"):
        parse_settings([assignment])


@pytest.mark.parametrize("assignment", ["inference", "inference=x", "nobody=1"])
def test_a_malformed_port_is_refused_with_an_example(assignment: str) -> None:
    with pytest.raises(LocalError, match="like inference=8001"):
        parse_ports([assignment])


def test_an_unknown_service_is_refused() -> None:
    with pytest.raises(LocalError, match="unknown service nobody"):
        Launch(services=("nobody",))


def test_an_address_among_the_settings_is_refused_with_the_cure() -> None:
    with pytest.raises(LocalError, match="--port"):
        Launch(settings={"INFERENCE_GRPC_ADDRESS": "127.0.0.1:1"})


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "_NEEDED", {"monitor": ("no_such_module",)})
    with pytest.raises(MissingExtra, match=r"pip install 'homeostat\[monitor\]'"):
        check_machine(tmp_path, Launch())


def test_a_folder_that_cannot_be_made_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderUnusable, match="--folder"):
        check_machine(tmp_path / "file" / "below", Launch())


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches, "_FREE_BYTES", 1 << 62)
    with pytest.raises(FolderUnusable, match="MiB free"):
        check_machine(tmp_path, Launch())


def test_a_secret_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    assert secret(tmp_path, "key") == secret(tmp_path, "key")
    assert secret(tmp_path, "key") != secret(tmp_path, "other")
    assert mode(tmp_path / "secrets" / "key") == 0o600
    assert mode(tmp_path / "secrets") == 0o700


def told(service: str, folder: Path, settings: dict[str, str]) -> Mapping[str, str]:
    return service_command(
        service,
        launch=Launch(settings=settings),
        data_folder=folder,
        kafka="127.0.0.1:9",
        addresses=dict.fromkeys(SERVICES, "127.0.0.1:1"),
        database_urls={},
    ).environment


@pytest.mark.parametrize("service", ["registry", "monitor", "retrainer"])
def test_who_knows_no_clients_is_not_told_the_clients_secret(tmp_path: Path, service: str) -> None:
    assert not any("SECRET" in name for name in told(service, tmp_path, {}))
    assert any("SECRET" in name for name in told("inference", tmp_path, {}))


def test_a_service_is_not_told_what_was_set_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMEOSTAT_REGISTRY_PASSWORD", "hush")
    environment = told("ledger", tmp_path, {"REGISTRY_TOKEN": "hush", "LEDGER_X": "1"})
    assert "hush" not in environment.values()
    assert environment["HOMEOSTAT_LEDGER_X"] == "1"


def test_a_service_is_told_where_everything_is(tmp_path: Path) -> None:
    command = service_command(
        "ledger",
        launch=Launch(settings={"LEDGER_X": "1"}),
        data_folder=tmp_path,
        kafka="127.0.0.1:9",
        addresses={"ledger": "127.0.0.1:1", "registry": "127.0.0.1:2"},
        database_urls={"ledger": "postgresql://ledger@127.0.0.1:3/ledger"},
    )
    environment = command.environment
    assert environment["HOMEOSTAT_LEDGER_KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:9"
    assert environment["HOMEOSTAT_LEDGER_GRPC_ADDRESS"] == "127.0.0.1:1"
    assert environment["HOMEOSTAT_LEDGER_REGISTRY_ADDRESS"] == "127.0.0.1:2"
    assert environment["HOMEOSTAT_LEDGER_DATABASE_URL"].endswith("/ledger")
    assert environment["HOMEOSTAT_LEDGER_X"] == "1"
    assert len(environment["HOMEOSTAT_LEDGER_CLIENT_KEY_SECRET"]) == 64
    assert command.arguments[-2:] == ("-m", "homeostat_ledger")


def test_a_log_is_rotated_by_size_when_it_is_opened(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with open_log(tmp_path, "x") as log:
            log.write(text.encode())
    assert log_path(tmp_path, "x").read_text() == "firstsecond"
    os.truncate(log_path(tmp_path, "x"), 17 * 2**20)
    open_log(tmp_path, "x").close()
    assert log_path(tmp_path, "x").stat().st_size == 0
    assert log_path(tmp_path, "x").with_name("x.log.1").stat().st_size == 17 * 2**20


def test_a_log_is_cut_while_its_process_goes_on_writing(tmp_path: Path) -> None:
    path = log_path(tmp_path, "x")
    with open_log(tmp_path, "x") as log:
        for written in range(1, 7):
            os.truncate(path, 17 * 2**20)
            assert cut_log(tmp_path, "x")
            log.write(f"line {written}".encode())
            log.flush()
            assert path.read_text() == f"line {written}"
    assert not cut_log(tmp_path, "x")
    kept = sorted(each.name for each in path.parent.iterdir())
    assert kept == ["x.log", "x.log.1", "x.log.2", "x.log.3"]


def test_a_log_without_room_for_its_copy_is_cut_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("homeostat_local.logs.shutil.copyfile", no_room)
    open_log(tmp_path, "x").close()
    os.truncate(log_path(tmp_path, "x"), 17 * 2**20)
    assert cut_log(tmp_path, "x")
    assert log_path(tmp_path, "x").stat().st_size == 0
    assert [each.name for each in log_path(tmp_path, "x").parent.iterdir()] == ["x.log"]
