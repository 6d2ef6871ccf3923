"""Settings, clocks, logs and telemetry."""

import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import pytest
from opentelemetry import trace
from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from homeostat.events.v1.outcome_block_pb2 import OutcomeBlock
from homeostat.topics import OUTCOMES
from homeostat_kit import logs, telemetry
from homeostat_kit.clock import FixedClock, SystemClock
from homeostat_kit.kafka.records import Received, RecordTooLarge, Unreadable, read, require_fit
from homeostat_kit.settings import ServiceSettings


class SomeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="HOMEOSTAT_SOME_")
    grpc_address: str = "127.0.0.1:7"


def test_settings_come_from_the_environment_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMEOSTAT_SOME_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("HOMEOSTAT_SOME_DATA_FOLDER", "there")
    monkeypatch.setenv("HOMEOSTAT_SOME_DATABASE_URL", "postgresql://u:secret@h/d")
    settings = SomeSettings()
    assert settings.kafka_bootstrap_servers == "127.0.0.1:1"
    assert settings.data_folder == Path("there")
    assert settings.grpc_address == "127.0.0.1:7"
    assert "secret" not in repr(settings)
    with pytest.raises(ValidationError):
        settings.log_level = "DEBUG"


def test_clocks_count_microseconds() -> None:
    assert abs(SystemClock().now_us() - time.time() * 1e6) < 5e6
    clock = FixedClock(5)
    clock.advance(2)
    assert clock.now_us() == 7


def test_a_log_line_is_json_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().handlers[:]
    try:
        logs.configure("test")
        try:
            raise ValueError("why")
        except ValueError:
            logs.get_logger("here").exception("thing_failed", model_name="ü", count=3)
    finally:
        logging.getLogger().handlers[:] = before
    line = json.loads(capsys.readouterr().out.strip())
    assert (line["event"], line["level"], line["service"]) == ("thing_failed", "error", "test")
    assert (line["model_name"], line["count"]) == ("ü", 3)
    assert "ValueError: why" in line["exception"]


def test_without_an_endpoint_there_is_no_sdk() -> None:
    code = (
        "import sys; from homeostat_kit import telemetry; t = telemetry.setup('x', None);"
        "t.meter.create_counter('c').add(1); t.tracer.start_span('s').end(); t.close();"
        "assert not t.is_on; sys.exit(any(m.startswith('opentelemetry.sdk') for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_dead_collector_does_not_hold_up_the_leaving() -> None:
    code = (
        "import time; from homeostat_kit import logs, telemetry;"
        "t = telemetry.setup('x', 'http://127.0.0.1:9');"
        "t.meter.create_counter('c').add(1); t.tracer.start_span('s').end();"
        "logs.get_logger('l').error('e'); began = time.monotonic(); t.close();"
        "print(time.monotonic() - began)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    # The exporters alone would take half a minute; one second is meant.
    assert float(done.stdout) < 4
    assert time.monotonic() - began < 20


def test_a_traceparent_survives_the_way() -> None:
    text = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    context = telemetry.span_context(text)
    assert context is not None
    assert telemetry.traceparent_of(context) == text
    for wrong in (None, "", "garbage", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", text + "x"):
        assert telemetry.span_context(wrong) is None


def test_links_are_made_once_per_span() -> None:
    good = ("00-" + "a" * 32 + "-" + "b" * 16 + "-01").encode()
    found = telemetry.links(
        [{"traceparent": good}, {"traceparent": good}, {"traceparent": b"\xff"}, {}]
    )
    assert [type(each) for each in found] == [trace.Link]


def test_the_current_span_has_a_traceparent_only_inside_one() -> None:
    assert telemetry.traceparent() is None


def a_record(value: bytes, **headers: bytes) -> Received:
    return Received(OUTCOMES.name, 0, 0, None, value, headers)


def test_a_record_is_read_by_its_topic() -> None:
    block = OutcomeBlock(model_name="m")
    good = a_record(block.SerializeToString(), ce_type=b"homeostat.OutcomeBlock.v1")
    assert read(OUTCOMES, good) == block
    for bad in (
        a_record(b""),
        a_record(b"\xff\xff"),
        a_record(good.value, ce_type=b"homeostat.Alert.v1"),
    ):
        assert isinstance(read(OUTCOMES, bad), Unreadable)


def test_no_value_stands_in_a_reason() -> None:
    unreadable = read(OUTCOMES, a_record(b"secret \xff", ce_type=b"secret"))
    assert isinstance(unreadable, Unreadable)
    assert "secret" not in unreadable.reason


def test_a_record_that_no_broker_takes_is_refused() -> None:
    require_fit("t", bytes(1024))
    with pytest.raises(RecordTooLarge):
        require_fit("t", bytes(16 * 1024 * 1024))
