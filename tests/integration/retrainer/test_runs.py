"""From an alert to a proven version, once, whatever dies on the way."""

import asyncio
import itertools

import grpc
import psutil
import pytest
from tests.integration.retrainer.harness import DAY_US, START_US, Client, rows
from tests.support.waiting import eventually

from homeostat.events.v1 import alert_pb2 as alerts
from homeostat.events.v1 import retraining_run_pb2 as runs
from homeostat.events.v1.joined_block_pb2 import JoinedBlock
from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.registry.v1 import registry_pb2 as pb
from homeostat.retrainer.v1 import retrainer_pb2 as rpc
from homeostat.topics import JOINED, VERSIONS

pytestmark = pytest.mark.timeout(400)

# Marks rise over the whole file, since the services are shared.
_days = itertools.count(20, 10)


async def a_changed_world(client: Client, **push: object) -> int:
    """A pushed model, and three days since in which another column drives the truth."""
    await client.push(rows(0, 10), **push)  # type: ignore[arg-type]
    day = next(_days)
    await client.learn(rows(day - 3, 3, driver="x2"))
    await client.mark(day)
    return day


async def test_an_alert_leads_to_a_proven_version(client: Client) -> None:
    day = await a_changed_world(client)
    alert = await client.alarm(day)
    (run,) = await client.ended()
    assert run.outcome == runs.RUN_OUTCOME_PROMOTED, list(run.reasons)
    assert run.trigger == runs.RUN_TRIGGER_ALERT
    assert run.alert_id == alert.alert_id
    assert run.cut_known_at_us == START_US + day * DAY_US - 1
    assert [each.window for each in run.candidates] == ["everything", "reference", "quarter"]
    assert run.fit_count == 3
    first, second = await client.versions()
    assert second.version == run.candidate_version
    assert second.stage == pb.STAGE_CHAMPION
    assert second.lineage.run_id == run.run_id
    assert second.lineage.alert_id == alert.alert_id
    assert second.lineage.parent_version == first.version
    assert second.lineage.data_set_sha256 == run.data_set_sha256
    evidence = second.evidence
    assert evidence.champion_sha256 == first.model_sha256
    assert evidence.holdout_from_us > max(first.lineage.trained_to_us, second.lineage.trained_to_us)
    assert evidence.candidate_loss < evidence.champion_loss
    events = await client.told(2)
    assert [each.state for each in events] == [runs.RUN_STATE_STARTED, runs.RUN_STATE_ENDED]
    assert events[-1] == run
    assert (await client.progress()).open_work_count == 0


async def test_the_same_alert_again_is_no_second_run(client: Client) -> None:
    day = await a_changed_world(client)
    await client.alarm(day)
    (before,) = await client.ended()
    await client.alarm(day)
    await client.alarm(day, state=alerts.ALERT_STATE_ESCALATED, revision=2)
    await client.mark(next(_days))
    await eventually(lambda: caught_up(client), what="all is applied")
    assert await client.runs() == [before]
    assert len(await client.versions()) == 2


async def test_a_run_waits_for_what_the_inputs_tell_and_a_break_leads_to_none(
    client: Client,
) -> None:
    day = await a_changed_world(client)
    settled = next(_days)
    alert = await client.alarm(
        day, cause=alerts.CAUSE_CLASS_CONCEPT, settled_at_us=START_US + settled * DAY_US
    )
    await client.mark(settled - 5)
    await eventually(lambda: caught_up(client), what="the alert waits")
    assert await client.runs() == []
    told = {"alert_id": alert.alert_id, "state": alerts.ALERT_STATE_ESCALATED}
    await client.alarm(settled, **told, revision=2, cause=alerts.CAUSE_CLASS_DATA_BREAK)
    await client.mark(settled)
    later = next(_days)
    await client.mark(later)
    await eventually(lambda: caught_up(client), what="the break is known")
    assert await client.runs() == []
    await client.alarm(later, **told, revision=3, cause=alerts.CAUSE_CLASS_CONCEPT)
    (run,) = await client.ended()
    assert run.alert_id == alert.alert_id
    assert run.cut_known_at_us == START_US + later * DAY_US - 1


async def test_records_of_garbage_stop_nothing(client: Client) -> None:
    day = await a_changed_world(client)
    await client.say(JOINED, JoinedBlock(model_name="m", row_count=3, revisions=b"abc"))
    await client.say(VERSIONS, VersionChanged(model_name="x", version=1, champion_version=1))
    await client.say(VERSIONS, VersionChanged(model_name="x\0", version=1))
    await client.alarm(day, alert_id="of-a-version-that-never-comes", version=99)
    await client.alarm(day)
    await client.ended()
    await eventually(lambda: caught_up(client), what="all is applied")
    assert (await client.progress()).open_work_count == 0


async def caught_up(client: Client) -> bool:
    """The retrainer has applied all that this test has said, and all that the registry has to."""
    registry = await client.progress("registry")
    said = {(each.topic, each.partition): each.next_offset for each in registry.produced}
    progress = await client.progress()
    applied = {(each.topic, each.partition): each.next_offset for each in progress.applied}
    produced = {**client.bus.produced_positions(), **said}
    return (
        not registry.unsent_count
        and registry.epoch == progress.epoch
        and all(applied.get(place, 0) >= at for place, at in produced.items())
    )


async def test_without_a_change_no_candidate_is_better(client: Client) -> None:
    await client.push(rows(0, 10))
    day = next(_days)
    await client.learn(rows(day - 3, 3))
    await client.mark(day)
    await client.alarm(day)
    (run,) = await client.ended()
    assert run.outcome == runs.RUN_OUTCOME_NO_CANDIDATE
    assert "better beyond doubt" in run.reasons[0]
    assert len(await client.versions()) == 1


async def test_too_little_new_truth_is_a_reason_not_a_failure(client: Client) -> None:
    await client.push(rows(0, 10))
    day = next(_days)
    await client.mark(day)
    await client.alarm(day)
    (run,) = await client.ended()
    assert run.outcome == runs.RUN_OUTCOME_NO_CANDIDATE
    assert "newer than the champion's training" in run.reasons[0]


async def test_an_approver_has_the_word_where_the_model_says_so(client: Client) -> None:
    day = await a_changed_world(client, autonomy=pb.AUTONOMY_APPROVE)
    await client.alarm(day)
    (run,) = await client.ended()
    assert run.outcome == runs.RUN_OUTCOME_AWAITS_APPROVAL, list(run.reasons)
    assert (await client.versions())[-1].stage == pb.STAGE_AWAITS_APPROVAL


async def test_the_linear_recipe_goes_the_same_way(client: Client) -> None:
    day = await a_changed_world(client, recipe="sklearn")
    await client.alarm(day)
    (run,) = await client.ended()
    assert run.outcome == runs.RUN_OUTCOME_PROMOTED, list(run.reasons)
    assert {each.recipe for each in run.candidates} == {"sklearn"}


async def test_a_request_is_one_run_however_often_it_is_sent(client: Client) -> None:
    await a_changed_world(client)
    request = rpc.RequestRunRequest(model_name=client.model, request_id="r1", actor="ann")
    await eventually(lambda: known(client), what="the retrainer knows the model")
    answers = [await client.retrainer.RequestRun(request) for _ in range(3)]
    assert len({each.run_id for each in answers}) == 1
    (run,) = await client.ended()
    assert run.trigger == runs.RUN_TRIGGER_REQUEST
    found = await client.retrainer.GetRun(rpc.GetRunRequest(run_id=run.run_id))
    assert found.run == run


async def known(client: Client) -> bool:
    bad = rpc.RequestRunRequest(model_name=client.model, request_id="r1", actor="ann")
    try:
        await client.retrainer.RequestRun(bad)
    except grpc.aio.AioRpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND
        return False
    return True


async def test_what_does_not_exist_is_not_found(client: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as unknown_run:
        await client.retrainer.GetRun(rpc.GetRunRequest(run_id="nobody"))
    with pytest.raises(grpc.aio.AioRpcError) as unknown_model:
        await client.retrainer.RequestRun(
            rpc.RequestRunRequest(model_name="nobody", request_id="r", actor="ann")
        )
    with pytest.raises(grpc.aio.AioRpcError) as no_actor:
        await client.retrainer.RequestRun(
            rpc.RequestRunRequest(model_name=client.model, request_id="r")
        )
    codes = [each.value.code() for each in (unknown_run, unknown_model, no_actor)]
    assert codes == [
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.INVALID_ARGUMENT,
    ]


async def is_started(client: Client) -> bool:
    return any(run.state == runs.RUN_STATE_STARTED for run in await client.runs())


async def test_kill_9_in_mid_run_gives_one_version_and_one_end(client: Client) -> None:
    day = await a_changed_world(client)
    await client.alarm(day)
    for _ in range(3):
        await eventually(lambda: started_or_ended(client), what="the run begins")
        client.services.retrainer.kill()
        client.services.retrainer.start()
        await client.wait_ready()
    (run,) = await client.ended()
    assert run.outcome == runs.RUN_OUTCOME_PROMOTED, list(run.reasons)
    made = [each for each in await client.versions() if each.lineage.run_id == run.run_id]
    assert len(made) == 1
    ends = [each for each in await client.told(2) if each.state == runs.RUN_STATE_ENDED]
    assert all(each == run for each in ends)


async def started_or_ended(client: Client) -> bool:
    return any(run.state for run in await client.runs())


async def test_a_killed_worker_does_not_end_the_run(client: Client) -> None:
    day = await a_changed_world(client)
    await client.alarm(day)
    await eventually(lambda: is_started(client), what="the run begins")
    assert client.services.retrainer.process is not None
    for child in psutil.Process(client.services.retrainer.process.pid).children():
        child.kill()
    (run,) = await client.ended()
    assert run.outcome in (runs.RUN_OUTCOME_PROMOTED, runs.RUN_OUTCOME_NO_CANDIDATE)
    assert client.services.retrainer.process.poll() is None


async def test_a_run_waits_for_a_registry_that_is_away(client: Client) -> None:
    day = await a_changed_world(client)
    await eventually(lambda: caught_up(client), what="the promotion is known")
    client.services.registry.kill()
    await client.alarm(day)
    await eventually(lambda: is_started(client), what="the run begins")
    assert (await client.progress()).open_work_count == 1
    client.services.registry.start()
    (run,) = await client.ended()
    assert run.outcome == runs.RUN_OUTCOME_PROMOTED, list(run.reasons)


async def test_it_leaves_within_ten_seconds_and_finds_its_runs_again(client: Client) -> None:
    day = await a_changed_world(client)
    await client.alarm(day)
    await client.ended()
    before = await client.runs()
    assert await asyncio.to_thread(client.services.retrainer.stop) == 0
    client.services.retrainer.start()
    await client.wait_ready()
    assert await client.runs() == before


async def test_a_new_life_of_the_broker_is_told_everything_again(client: Client) -> None:
    day = await a_changed_world(client)
    alert = await client.alarm(day)
    (run,) = await client.ended()
    epoch = client.bus.epoch
    await asyncio.to_thread(client.services.broker.restart)
    await eventually(lambda: client.bus.epoch not in ("", epoch), what="the new life is seen")
    again = await client.told(2)
    assert [each.state for each in again] == [runs.RUN_STATE_STARTED, runs.RUN_STATE_ENDED]
    assert again[-1] == run
    await client.alarm(day, alert_id=alert.alert_id)
    await client.mark(day)
    await eventually(lambda: caught_up(client), what="all is applied")
    assert await client.runs() == [run]
