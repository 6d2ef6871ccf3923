"""The past played again: what live traffic told, and what another policy would have told."""

import json
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.json_format import ParseDict
from tests.integration.monitor.test_monitor_deepening import a_world, play, urls
from tests.integration.monitor.test_monitor_policies import say
from tests.support.broker import TestBroker
from tests.support.monitor import MODEL, RunningMonitor, days
from tests.support.waiting import eventually

from homeostat.events.v1 import alert_pb2 as pb
from homeostat.monitor.v1.monitor_pb2 import BacktestPolicyRequest
from homeostat.monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from homeostat.monitor.v1.policy_pb2 import Policy

__all__ = ["urls"]

CALM = days(6, first_day=100, seed=11)
BROKEN = days(3, first_day=106, seed=12, null_rate=0.4, loss_rate=0.7)
AFTER = days(4, first_day=109, seed=13)
LATER = days(1, first_day=113, seed=14)
SEGMENTS = """\
disabled_rules = ["missing_values"]

[[segments]]
name = "aa"
expression = 'carrier == "AA"'
"""
# What looking at the rows adds to an alert that was told.
_DEEPENED = ("state", "revision", "diagnosis", "remedies", "is_muted")


def bare(alert: pb.Alert) -> pb.Alert:
    """Without what the rows behind it told later."""
    copy = pb.Alert()
    copy.CopyFrom(alert)
    for name in _DEEPENED:
        copy.ClearField(name)
    return copy


async def until_all_is_judged(monitor: RunningMonitor, at_us: int) -> None:
    seen: list[bool] = [False]

    async def is_done() -> bool:
        assert monitor.process.poll() is None, monitor.log()[-3000:]
        answer = await monitor.progress()
        if answer is None or answer.watermark_us != at_us:
            return False
        # The mark may have moved while this was answered: what is due since is told by the next.
        was_there, seen[0] = seen[0], True
        return was_there and not answer.open_work_count and not answer.unsent_count

    await eventually(is_done, seconds=60, what=f"all judged; {monitor.log()[-3000:]}")


def parsed(told: dict[str, Any]) -> dict[str, pb.Alert]:
    alerts = [ParseDict(each, pb.Alert()) for each in told["alerts"]]
    return {each.alert_id: bare(each) for each in alerts}


async def states(urls: tuple[str, str]) -> dict[tuple[str, str], bytes]:
    """What the detectors remember, as PostgreSQL has it."""
    connection = await asyncpg.connect(urls[1])
    try:
        rows = await connection.fetch("SELECT segment, name, state FROM detector_state")
    finally:
        await connection.close()
    return {(row["segment"], row["name"]): row["state"] for row in rows}


async def damage(urls: tuple[str, str], which: str) -> None:
    """One bit in the middle of the states, whatever detectors they are of."""
    middle = "length(state) / 2"
    await execute(
        urls,
        f"UPDATE detector_state SET state = "
        f"set_byte(state, {middle}, get_byte(state, {middle}) # 1) WHERE {which}",
    )


async def execute(urls: tuple[str, str], statement: str) -> None:
    connection = await asyncpg.connect(urls[1])
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def nobody_waits(monitor: RunningMonitor) -> None:
    """One whose deadline is over ends, and makes room for the next."""
    stub = MonitorServiceStub(monitor.channel)
    request = BacktestPolicyRequest(policy=Policy(model_name=MODEL))
    with pytest.raises(grpc.aio.AioRpcError) as over:
        async for _ in stub.BacktestPolicy(request, timeout=0.3):
            pass
    assert over.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    async def is_next() -> bool:
        try:
            parts = [each async for each in stub.BacktestPolicy(request, timeout=150)]
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            return False
        assert parts[-2].progress.rows_done == parts[-2].progress.rows_total
        return parts[-1].HasField("result")

    await eventually(is_next, seconds=160, what="the next one may run")


async def until_logged(monitor: RunningMonitor, event: str) -> None:
    async def is_logged() -> bool:
        return bool(monitor.logged(event))

    await eventually(is_logged, what=f"{event} is logged; {monitor.log()[-3000:]}")


async def until_rebuilt(monitor: RunningMonitor, count: int) -> None:
    async def is_done() -> bool:
        assert monitor.process.poll() is None, monitor.log()[-3000:]
        done = [each for log in monitor.logged("detectors_rebuilt") for each in log["detectors"]]
        remarks = (await monitor.health()).remarks
        return len(done) >= count and not any(each.startswith("degraded") for each in remarks)

    await eventually(is_done, seconds=60, what=f"rebuilt; {monitor.log()[-3000:]}")


async def test_the_past_played_again_tells_what_live_traffic_told_and_rebuilds_what_it_knew(
    embedded_broker: TestBroker, urls: tuple[str, str], tmp_path: Path
) -> None:
    async with a_world(embedded_broker, urls, tmp_path) as (ledger, monitor):
        await ledger.start()
        await monitor.until_serving()
        await play(ledger, [CALM, BROKEN, AFTER])
        await until_all_is_judged(monitor, AFTER.end_us)
        live = {each.alert_id: bare(each) for each in await monitor.alerts()}
        assert len({each.rule for each in live.values()}) > 1

        file = tmp_path / "policy.toml"
        file.write_text("")
        told = json.loads(await say(monitor, "policy", "backtest", MODEL, str(file), "--json"))
        assert parsed(told) == live
        assert told["alerts_of_present_policy"] == len(live)
        assert int(told["rows"]) == CALM.rows + BROKEN.rows + AFTER.rows

        file.write_text(SEGMENTS)
        told = json.loads(await say(monitor, "policy", "backtest", MODEL, str(file), "--json"))
        rules = {each.rule for each in parsed(told).values()}
        assert pb.ALERT_RULE_MISSING_VALUES not in rules
        assert "aa" in {each.segment for each in parsed(told).values()}
        assert told["alerts_of_present_policy"] == len(live)
        said = await say(monitor, "policy", "backtest", MODEL, str(file), "--days", "5")
        assert "in 5 days (the present policy: " in said
        for arguments, problem in (
            (("nobody", str(file)), "nothing is known of the model 'nobody'"),
            ((MODEL, str(file), "--days", "0"), "days: 0.0 is not above 0"),
            ((MODEL, str(file), "--version", "7"), "no predictions of delays of its version 7"),
        ):
            assert problem in await say(monitor, "policy", "backtest", *arguments, code=1)
        wrong = tmp_path / "wrong.toml"
        wrong.write_text(SEGMENTS.replace("carrier ==", "carier =="))
        said = await say(monitor, "policy", "backtest", MODEL, str(wrong), code=1)
        assert f"{wrong}:5: segments[0].expression" in said
        assert "carrier" in said
        await nobody_waits(monitor)
        # Nothing was saved, and the alerts of live traffic stand as they stood.
        assert (await monitor.health()).policy_revision == 0
        assert {each.alert_id: bare(each) for each in await monitor.alerts()} == live

        before = await states(urls)
        assert len(before) > 4
        await monitor.kill()
        await damage(urls, "true")
        await execute(
            urls,
            "INSERT INTO rebuild_due SELECT model_name, version, segment, name FROM detector_state",
        )
        await ledger.kill()
        monitor.start()
        await monitor.until_serving()
        remarks = (await monitor.health()).remarks
        assert sum(each.startswith("degraded: the detector") for each in remarks) == len(before)
        said = await say(monitor, "policy", "backtest", MODEL, str(file), code=1)
        assert "the ledger says UNAVAILABLE" in said
        await until_logged(monitor, "rebuilding_waits")
        assert await states(urls) != before
        await ledger.start()
        await until_rebuilt(monitor, len(before))
        # To the bit what it was.
        assert await states(urls) == before

        known = (await monitor.health()).losses
        await monitor.kill()
        await damage(urls, "name = 'losses'")
        monitor.start()
        await monitor.until_serving()
        await play(ledger, [LATER])
        await until_all_is_judged(monitor, LATER.end_us)
        await until_rebuilt(monitor, len(before) + 1)
        health = await monitor.health()
        assert health.losses > known
        assert any("losses could not be read" in each for each in health.remarks)
        assert any("losses was rebuilt from" in each for each in health.remarks)
