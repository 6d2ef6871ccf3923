"""What `homeostat monitor` and a first `policy show` print: units, no nan, and what to do next."""

import re

import pytest
from typer.testing import CliRunner

from homeostat import policy_files
from homeostat.cli.main import app
from homeostat.cli.monitoring import show_health, show_power
from homeostat.cli.shared import console, span
from homeostat.monitor.v1.monitor_pb2 import GetModelHealthResponse, GetPowerResponse
from homeostat.monitor.v1.policy_pb2 import Policy
from homeostat_monitor.domain.alerts.hosts import AllowedHosts
from homeostat_monitor.domain.policies.checks import Known, require_valid
from homeostat_monitor.messages.policies import policy_of


def printed(found: GetModelHealthResponse | GetPowerResponse) -> str:
    with console.capture() as said:
        if isinstance(found, GetPowerResponse):
            show_power(found)
        else:
            show_health(found)
    return " ".join(said.get().split())


def test_health_without_a_hold_out_shows_no_nan() -> None:
    found = GetModelHealthResponse(
        model_name="m",
        version=2,
        predictions=12_000,
        windows=3,
        window_seconds=600.0,
        label_delay_seconds=90.0,
        label_delay_reference_seconds=7_200.0,
    )
    found.metrics.add(
        name="log_loss",
        value=0.123456789012345,
        low=0.1,
        high=0.2,
        reference_value=float("nan"),
        row_count=1_000,
    )
    found.segments.add(name="aa", expression="a == 1", predictions=40)
    told = printed(found)
    assert "3 windows of 10 min" in told
    assert "log loss 0.1235 0.1 0.2 - 1,000" in told
    assert "label delay: 1.5 min (reference 2 h)" in told
    assert "aa a == 1 40 0 - -" in told
    assert "nan" not in told


def test_a_model_that_nobody_used_yet_is_no_row_of_zeros() -> None:
    assert printed(GetModelHealthResponse(model_name="m")).startswith("m: no version serves yet")
    found = GetModelHealthResponse(model_name="m", version=1)
    assert "no window judged yet" in printed(found)
    found.window_seconds = 7 * 86_400
    assert "no window of 7 d judged yet" in printed(found)


def test_power_is_told_in_deviations_and_per_cent() -> None:
    found = GetPowerResponse(model_name="m", version=1, within_events=2_000)
    found.lines.add(feature="homeostat.score", change="shift", smallest=0.31)
    found.lines.add(feature="x", change="null_rate", smallest=0.0123)
    found.lines.add(feature="x", change="unseen_rate")
    found.lines.add(feature="x", change="shift")
    told = printed(found)
    assert "the scores all rows shift of the mean 0.31 deviations" in told
    assert "x all rows share of nulls more 1.23%" in told
    assert "x all rows shift of the mean -" in told
    assert "never seen" not in told


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.25, "0.25 s"), (90, "1.5 min"), (5400, "1.5 h"), (2 * 86400, "2 d")]
)
def test_spans_are_told_in_the_unit_that_fits(seconds: float, told: str) -> None:
    assert span(seconds) == told


def test_a_first_policy_shows_what_may_stand_in_one_and_all_of_it_is_right() -> None:
    text = policy_files.write(Policy(model_name="m", false_alarms_per_month=1.0))
    assert policy_files.read(text, name="p", model_name="m").false_alarms_per_month == 1.0
    taught = re.sub(r"^#   ", "", text, flags=re.MULTILINE)
    policy = policy_files.read(taught, name="p", model_name="m")
    assert [len(each) for each in (policy.segments, policy.rules, policy.webhooks)] == [1, 1, 1]
    hosts = AllowedHosts.parse("hooks.example.com")
    require_valid(policy_of(policy), Known(hosts=hosts))
    assert "# Nobody" not in policy_files.write(Policy(model_name="m", revision=1))


def test_help_of_power_says_what_within_counts() -> None:
    said = CliRunner().invoke(app, ["monitor", "power", "--help"])
    assert "predictions" in said.output
