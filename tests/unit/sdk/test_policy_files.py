"""Policies as files: every mistake at its line, and what is written is read again."""

import pytest
from typer.testing import CliRunner

from homeostat import policy_files
from homeostat.cli.main import app
from homeostat.cli.policies import show_backtest
from homeostat.cli.shared import console
from homeostat.events.v1 import alert_pb2
from homeostat.monitor.v1 import policy_pb2 as pb
from homeostat.monitor.v1.monitor_pb2 import BacktestResult
from homeostat.policy_files import BadPolicyFile

WHOLE = """\
false_alarms_per_month = 2.0
mode = "time_ordered"
throttle_seconds = 3600.0
disabled_rules = ["duplicates", "stuck"]
ignored_features = ["tail"]

[[segments]]
name = "evening"
expression = 'carrier == "EV" and `dep "x"` >= 1080'

[[rules]]
name = "worse"
metric = "loss"
segment = "evening"
comparison = "relative_above"
warning = 0.1
critical = 0.2
windows = 2
least_rows = 100

[[webhooks]]
name = "pager"
url = "https://hooks.example.com/a"
secret_name = "pager"
least_severity = "critical"
segments = ["evening"]
"""


def read(text: str) -> pb.Policy:
    return policy_files.read(text, name="p.toml", model_name="delays")


def test_what_is_written_is_read_again() -> None:
    policy = read(WHOLE)
    assert policy.mode == alert_pb2.DETECTION_MODE_TIME_ORDERED
    assert policy.rules[0].comparison == pb.COMPARISON_RELATIVE_ABOVE
    assert policy.webhooks[0].least_severity == alert_pb2.SEVERITY_CRITICAL
    assert read(policy_files.write(policy)) == policy


@pytest.mark.parametrize("text", ['a "b"', "it's", "both ' and \"", "tab\there", "\\", "é\x00"])
def test_any_text_comes_back(text: str) -> None:
    policy = pb.Policy(model_name="delays", segments=[pb.Segment(name="s", expression=text)])
    assert read(policy_files.write(policy)).segments[0].expression == text


def test_every_mistake_is_told_at_its_line_with_a_cure() -> None:
    text = WHOLE.replace("2.0", '"2"').replace("metric", "metrik").replace('"stuck"', '"stuc"')
    with pytest.raises(BadPolicyFile) as caught:
        read(text)
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "p.toml:1:",
        "p.toml:4:",
        "p.toml:13:",
    ]
    assert "did you mean 'stuck'?" in str(caught.value)
    assert "did you mean 'metric'?" in str(caught.value)


def test_what_the_monitor_says_is_told_at_its_line() -> None:
    details = "rules[0].critical: too low; cure: 3\nwebhooks[0].url: no\nrules[0].feature: none"
    told = policy_files.told(WHOLE, "p.toml", policy_files.mistakes_of(details))
    assert [int(line.split(":")[1]) for line in told.splitlines()] == [17, 23, 11]


@pytest.mark.parametrize("text", ["a = ", "rules = 3", "[rules]\nname = 'a'", "rules = [1]"])
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(BadPolicyFile):
        read(text)


def test_a_backtest_says_how_often_it_would_have_fired() -> None:
    alerts = [alert_pb2.Alert(alert_id=str(each), summary="rose") for each in range(3)]
    with console.capture() as said:
        show_backtest(BacktestResult(alerts=alerts, rows=10), 90.0)
    assert said.get().startswith("would have fired 3 times in 90 days")
    with console.capture() as said:
        show_backtest(BacktestResult(rows=10), 3.0)
    assert said.get().startswith("would never have fired in 3 days")


@pytest.mark.parametrize("arguments", [["delays"], ["list", "delays"], ["--open", "delays"]])
def test_a_model_alone_lists_its_alerts_as_ever(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["alerts", *arguments, "--folder", "/nonexistent"])
    assert "no monitor to talk to" in str(result.exception)


@pytest.mark.parametrize("lasting", ["8", "h", "-1h", "1w"])
def test_a_mute_needs_a_span_of_time(lasting: str) -> None:
    result = CliRunner().invoke(app, ["alerts", "mute", "delays", "--for", lasting])
    assert "write it as 30m, 8h or 7d" in str(result.exception)
