"""The past played again: what live traffic told, and what another policy would have told."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from tests.integration.monitor.test_monitor_deepening import a_world, play, urls
from tests.integration.monitor.test_monitor_policies import say
from tests.support.broker import TestBroker
from tests.support.monitor import DAY_US, MODEL, Days, RunningMonitor, days
from tests.support.waiting import eventually

from homeostat.events.v1 import alert_pb2 as pb

__all__ = ["urls"]

CALM = days(6, first_day=100, seed=11)
BROKEN = days(3, first_day=106, seed=12, null_rate=0.4, loss_rate=0.7)
AFTER = days(4, first_day=109, seed=13)
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
    async def is_done() -> bool:
        assert monitor.process.poll() is None, monitor.log()[-3000:]
        answer = await monitor.progress()
        return (
            answer is not None
            and answer.watermark_us == at_us
            and not answer.open_work_count
            and not answer.unsent_count
        )

    await eventually(is_done, seconds=60, what=f"all judged; {monitor.log()[-3000:]}")


async def test_the_past_played_again_tells_exactly_what_live_traffic_told(
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
        assert told["alerts_of_present_policy"] == len(told["alerts"])
        again = {}
        from google.protobuf.json_format import ParseDict

        for each in told["alerts"]:
            alert = ParseDict(each, pb.Alert())
            again[alert.alert_id] = bare(alert)
        assert again == live
        assert int(told["rows"]) == CALM.rows + BROKEN.rows + AFTER.rows
