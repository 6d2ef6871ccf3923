"""A policy from the command line to the running monitor, and its alerts back to people."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as Verifier
from tests.support.broker import TestBroker
from tests.support.monitor import (
    MODEL,
    RunningMonitor,
    a_monitor,
    a_registry,
    a_stream,
    days,
)
from tests.support.waiting import eventually

from homeostat.events.v1 import alert_pb2 as pb

PAST = days(20, first_day=70, seed=7)
CALM = days(2, first_day=100, seed=11)
WORSE = days(3, first_day=102, seed=12, null_rate=0.3, loss_rate=0.7)
KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHERS = [
    name.removeprefix("ALERT_RULE_").lower()
    for name, _ in pb.AlertRule.items()
    if name not in ("ALERT_RULE_UNSPECIFIED", "ALERT_RULE_POLICY")
]
POLICY = """\
disabled_rules = {rules}

[[segments]]
name = "aa"
expression = 'carrier == "AA"'

[[rules]]
name = "nulls"
metric = "null_rate"
feature = "speed"
segment = "aa"
comparison = "above"
warning = 0.15

[[rules]]
name = "worse"
metric = "loss"
comparison = "relative_above"
critical = 0.5

[[webhooks]]
name = "pager"
url = "{url}"
secret_name = "pager"
"""


@pytest.fixture
async def posts() -> AsyncIterator[tuple[str, list[dict[str, object]]]]:
    """A receiver's URL, and what it took and found genuine."""
    taken: list[dict[str, object]] = []

    async def take(request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        taken.append(Verifier(KEY).verify(await request.read(), headers))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", taken
    await runner.cleanup()


async def say(monitor: RunningMonitor, *arguments: str, code: int = 0) -> str:
    """What the command line prints, both streams."""
    address = monitor.environment["HOMEOSTAT_MONITOR_GRPC_ADDRESS"]
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "homeostat"),
        *arguments,
        env={**os.environ, "HOMEOSTAT_MONITOR_ADDRESS": address, "COLUMNS": "400"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == code, said.decode()
    return said.decode()


async def test_a_policy_from_the_command_line_to_the_pager(
    embedded_broker: TestBroker,
    postgres_url: str,
    tmp_path: Path,
    posts: tuple[str, list[dict[str, object]]],
) -> None:
    url, taken = posts
    file = tmp_path / "policy.toml"
    file.write_text(POLICY.format(rules=json.dumps(OTHERS), url=url))
    folder = tmp_path / "m"
    (folder / "data" / "webhook-secrets").mkdir(parents=True)
    (folder / "data" / "webhook-secrets" / "pager").write_text(KEY)
    async with (
        a_registry(PAST) as registry,
        a_stream(embedded_broker.address) as stream,
        a_monitor(
            broker=embedded_broker.address,
            database=postgres_url,
            folder=folder,
            registry=registry.address,
        ) as monitor,
    ):
        await stream.play(CALM)
        await monitor.until_judged(stream)

        wrong = tmp_path / "wrong.toml"
        wrong.write_text(file.read_text().replace('"speed"', '"sped"').replace("[[web", "\n[[web"))
        told = await say(monitor, "policy", "check", MODEL, str(wrong), code=1)
        assert f"{wrong}:10: rules[0].feature" in told
        assert "did you mean 'speed'?" in told

        assert "can have" in await say(monitor, "policy", "check", MODEL, str(file))
        assert "policy revision 1" in await say(monitor, "policy", "set", MODEL, str(file))
        told = await say(
            monitor, "policy", "set", MODEL, str(file), "--expected-revision", "0", code=1
        )
        assert "aborted" in told
        shown = await say(monitor, "policy", "show", MODEL)
        assert """expression = 'carrier == "AA"'""" in shown
        # Who has set it sees at once that it holds.
        assert (await monitor.health()).policy_revision == 1
        await stream.play(WORSE)
        await monitor.until_judged(stream)

        alerts = {each.policy_rule: each for each in await monitor.alerts()}
        assert sorted(alerts) == ["nulls", "worse"]
        assert {each.rule for each in alerts.values()} == {pb.ALERT_RULE_POLICY}
        assert alerts["nulls"].segment == "aa"
        assert alerts["nulls"].severity == pb.SEVERITY_WARNING
        assert alerts["worse"].severity == pb.SEVERITY_CRITICAL
        await eventually(lambda: len({each["data"]["policy_rule"] for each in taken}) == 2)  # type: ignore[index]

        alert_id = alerts["worse"].alert_id
        assert "seen by ann" in await say(monitor, "alerts", "ack", alert_id, "--by", "ann")
        assert "bob looks" in await say(monitor, "alerts", "assign", alert_id, "bob")
        shown = await say(monitor, "alerts", "show", alert_id)
        assert "ann" in shown
        told = json.loads(await say(monitor, "alerts", "show", alert_id, "--json"))
        assert told[-1]["assigned_to"] == "bob"
        assert [each["revision"] for each in told] == list(range(1, len(told) + 1))
        assert "pager" in await say(monitor, "alerts", "notifications", MODEL)
        assert "muted until" in await say(monitor, "alerts", "mute", MODEL, "--rule", "policy")
        assert "policy" in await say(monitor, "alerts", "mutes", MODEL)
        assert "hear again" in await say(monitor, "alerts", "unmute", MODEL, "--rule", "policy")

        health = await say(monitor, "monitor", "health", MODEL)
        assert "policy revision 1" in health
        assert "mode: iid" in health
        assert "label delay: " in health
        assert "accuracy" in health
        (segment,) = (await monitor.health()).segments
        assert segment.predictions == (WORSE.features["carrier"] == "AA").sum()
        power = json.loads(await say(monitor, "monitor", "power", MODEL, "--json"))
        assert {each["feature"] for each in power["lines"]} >= {"speed", "carrier"}
        assert {each["segment"] for each in power["lines"]} == {"", "aa"}
