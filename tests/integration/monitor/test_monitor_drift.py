"""The running monitor on a real broker and a real database: drift gives one alert, calm none."""

import signal
import time
from pathlib import Path

import numpy as np
import pytest
from tests.support.broker import TestBroker
from tests.support.monitor import (
    DAY_US,
    JOINED,
    MODEL,
    PREDICTIONS,
    RUNS,
    VERSIONS,
    RetrainingRun,
    a_monitor,
    a_registry,
    a_stream,
    alert_events,
    between,
    blocks,
    days,
    joined,
    promotion,
)
from tests.support.waiting import eventually

from homeostat.events.v1 import alert_pb2 as pb
from homeostat.events.v1.retraining_run_pb2 import RUN_OUTCOME_NO_CANDIDATE, RUN_STATE_ENDED

PAST = days(20, first_day=70, seed=7)
HOUR_US = DAY_US // 24
CALM = days(3, first_day=100, seed=11)


@pytest.fixture
def world(embedded_broker: TestBroker, postgres_url: str, tmp_path: Path) -> dict[str, object]:
    return {"broker": embedded_broker.address, "database": postgres_url, "folder": tmp_path / "m"}


async def test_calm_days_give_no_alert(world: dict) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.play(CALM)
        await monitor.until_judged(stream)
        assert await monitor.alerts() == []
        health = await monitor.health()
        assert health.predictions == CALM.rows
        # The reference is as good as independent: panes of an hour, 25 rows each.
        assert health.windows == 72
        assert health.window_seconds == 3600
        assert health.losses == (CALM.known_at < CALM.end_us).sum()
        assert abs(health.reference_loss - 0.2) < 0.03


async def test_a_shifted_feature_gives_one_alert_and_its_end(world: dict) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.play(CALM)
        await stream.play(days(3, first_day=103, seed=12, shift=1.5))
        await monitor.until_judged(stream)
        (alert,) = await monitor.alerts()
        assert alert.rule == pb.ALERT_RULE_COVARIATE
        assert alert.state == pb.ALERT_STATE_OPENED
        assert alert.feature == "speed"
        assert alert.since_at.ToMicroseconds() == 103 * DAY_US
        assert alert.watermark_us == 104 * DAY_US
        assert alert.cause == pb.CAUSE_CLASS_COVARIATE
        assert alert.remedies
        # The longest span of 4,000 rows forgets the shift.
        await stream.play(days(15, first_day=106, seed=13))
        await monitor.until_judged(stream)
        (alert,) = await monitor.alerts()
        assert alert.state == pb.ALERT_STATE_RESOLVED
        assert alert.resolution == pb.RESOLUTION_RECOVERED
        events = await alert_events(world["broker"], 2)
        assert [each.revision for _, each in events] == [1, 2]
        assert len({ce_id for ce_id, _ in events}) == 2


async def test_broken_data_and_a_risen_loss_are_told_apart(world: dict) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.play(CALM)
        broken = days(
            4, first_day=103, seed=12, null_rate=0.3, carriers=("AA", "ZZ"), loss_rate=0.5
        )
        await stream.play(broken)
        await monitor.until_judged(stream)
        by_rule = {each.rule: each for each in await monitor.alerts()}
        assert set(by_rule) >= {
            pb.ALERT_RULE_MISSING_VALUES,
            pb.ALERT_RULE_UNSEEN_VALUES,
            pb.ALERT_RULE_PERFORMANCE,
        }
        assert by_rule[pb.ALERT_RULE_MISSING_VALUES].feature == "speed"
        assert by_rule[pb.ALERT_RULE_UNSEEN_VALUES].feature == "carrier"
        performance = by_rule[pb.ALERT_RULE_PERFORMANCE]
        assert performance.cause == pb.CAUSE_CLASS_DATA_BREAK
        assert performance.observed_value > performance.reference_value
        assert performance.since_at.ToMicroseconds() > 101 * DAY_US


async def test_a_stream_that_stops_is_told_of_while_nothing_comes(world: dict) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.play(CALM)
        for hour in range(1, 13):
            await stream.mark(CALM.end_us + hour * HOUR_US)
        await monitor.until_judged(stream)
        (alert,) = await monitor.alerts()
        assert alert.rule == pb.ALERT_RULE_ARRIVAL_RATE
        assert alert.state == pb.ALERT_STATE_OPENED
        assert alert.since_at.ToMicroseconds() == CALM.end_us
        assert CALM.end_us < alert.watermark_us <= CALM.end_us + 8 * HOUR_US


async def test_truths_that_stop_are_missed_while_none_comes(world: dict) -> None:
    known = days(6, first_day=100, seed=11)
    unknown = days(2, first_day=106, seed=12)
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.play(known)
        for midnight in (known.end_us + DAY_US, known.end_us + 2 * DAY_US):
            await stream.predict(between(unknown, midnight - DAY_US, midnight))
            await stream.mark(midnight)
        await monitor.until_judged(stream)
        (alert,) = await monitor.alerts()
        assert alert.rule == pb.ALERT_RULE_LABEL_COVERAGE
        assert alert.watermark_us == known.end_us + DAY_US


async def test_a_loss_that_rises_while_inputs_stay_is_a_changed_concept(world: dict) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.play(CALM)
        await stream.play(days(2, first_day=103, seed=12, loss_rate=0.5))
        await monitor.until_judged(stream)
        by_rule = {each.rule: each for each in await monitor.alerts(open_only=True)}
        assert set(by_rule) == {pb.ALERT_RULE_PERFORMANCE, pb.ALERT_RULE_CONCEPT}
        assert {each.cause for each in by_rule.values()} == {pb.CAUSE_CLASS_CONCEPT}

        await stream.send(VERSIONS, [promotion(2, 1, 105 * DAY_US)])
        await monitor.until_judged(stream)
        ended = await monitor.alerts()
        assert {each.alert_id for each in ended} == {each.alert_id for each in by_rule.values()}
        assert {each.resolution for each in ended} == {pb.RESOLUTION_SUPERSEDED}
        assert {each.occurred_at.ToMicroseconds() for each in ended} == {105 * DAY_US}
        # The newcomer starts from its own hold-out; the old one's truths are not fed.
        await stream.play(days(2, first_day=105, seed=12, loss_rate=0.5), salt="late")
        await stream.play(days(2, first_day=107, seed=14), version=2)
        await monitor.until_judged(stream)
        assert await monitor.alerts(open_only=True) == []
        assert (await monitor.health()).version == 2


async def test_runs_without_a_better_model_make_the_level_normal(world: dict) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, runs_until_accepted=2, **world) as monitor,
    ):
        await stream.play(CALM)
        await stream.play(days(2, first_day=103, seed=12, shift=1.5))
        await monitor.until_judged(stream)
        assert len(await monitor.alerts(open_only=True)) == 1
        # The first knew only truth from before the alert; one is told twice.
        for number in (-1, 0, 1, 1):
            run = RetrainingRun(
                run_id=f"run-{number}",
                model_name=MODEL,
                state=RUN_STATE_ENDED,
                outcome=RUN_OUTCOME_NO_CANDIDATE,
                champion_version=1,
                cut_known_at_us=(104 + number) * DAY_US,
            )
            run.occurred_at.FromMicroseconds((105 + number) * DAY_US)
            await stream.send(RUNS, [run])
        await monitor.until_judged(stream)
        (ended,) = await monitor.alerts()
        assert ended.resolution == pb.RESOLUTION_ACCEPTED
        await stream.play(days(2, first_day=105, seed=15, shift=1.5))
        await monitor.until_judged(stream)
        assert await monitor.alerts(open_only=True) == []


async def test_corrections_and_repeats_are_not_fed(world: dict) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        await stream.predict(CALM)
        await stream.predict(CALM)
        await stream.learn(CALM)
        await stream.learn(CALM)
        await stream.learn(CALM, losses=1 - CALM.losses, revision=2)
        await stream.mark(CALM.end_us + DAY_US)
        await monitor.until_judged(stream)
        health = await monitor.health()
        assert health.predictions == CALM.rows
        assert health.losses == CALM.rows
        assert abs(health.mean_loss - CALM.losses.mean()) < 1e-9
        assert any("corrections" in each for each in health.remarks)
        # After their marks they are late, and still not fed.
        await stream.learn(CALM, salt="again")
        await stream.mark(CALM.end_us + 2 * DAY_US)
        await monitor.until_judged(stream)
        assert (await monitor.health()).losses == CALM.rows


async def test_garbage_is_dead_lettered_and_nothing_is_lost(world: dict) -> None:
    async with (
        a_registry(PAST) as registry,
        a_stream(world["broker"]) as stream,
        a_monitor(registry=registry.address, **world) as monitor,
    ):
        for topic in (PREDICTIONS, JOINED, VERSIONS, RUNS):
            await stream.garbage(topic)
        (crooked, *_) = blocks(CALM, salt="crooked")
        crooked.inputs[0].values = crooked.inputs[0].values[:-1]
        (stranger, *_) = blocks(CALM, salt="stranger", version=9)
        (short, *_) = joined(CALM, salt="short")
        short.losses = short.losses[:-8]
        (nameless, ageless, *_) = blocks(CALM, salt="nameless")
        nameless.model_name = "\0"
        ageless.event_times_us = np.full(100, 2**63 - 1).tobytes()
        await stream.send(PREDICTIONS, [crooked, stranger, nameless, ageless])
        await stream.send(JOINED, [short])
        await stream.send(VERSIONS, [promotion(2**32 - 1, 2**64 - 1, 5)])
        await stream.play(CALM)
        await monitor.until_judged(stream)
        assert (await monitor.health()).predictions == CALM.rows
        assert len(monitor.logged("record_dead_lettered")) == 16


async def test_it_waits_for_the_registry_and_loses_nothing(world: dict) -> None:
    async with a_registry(PAST) as registry:
        address = registry.address
    async with a_stream(world["broker"]) as stream, a_monitor(registry=address, **world) as monitor:
        await stream.play(CALM)
        await eventually(lambda: monitor.logged("batch_failed"), seconds=20)
        async with a_registry(PAST, port=int(address.rpartition(":")[2])):
            await monitor.until_judged(stream)
            assert (await monitor.health()).predictions == CALM.rows


async def test_it_starts_and_leaves_in_time(world: dict) -> None:
    async with a_registry(PAST) as registry:
        begun = time.monotonic()
        async with a_monitor(registry=registry.address, **world) as monitor:
            await monitor.until_serving()
            started = time.monotonic() - begun
            monitor.process.send_signal(signal.SIGTERM)
            await eventually(lambda: monitor.process.poll() is not None, seconds=10)
            assert monitor.process.returncode == 0
    # Two seconds when it has a core to itself.
    assert started < 8
