"""The whole loop on real parts: drift goes in, a proven new version serves, and nothing is lost."""

from pathlib import Path

import numpy as np
import pytest
from tests.support.kafka import JARS
from tests.support.loop import Played, a_stack, audit_entries, play
from tests.support.world import a_world, first_push

from homeostat.audit import verify
from homeostat.events.v1.alert_pb2 import ALERT_RULE_PERFORMANCE, ALERT_STATE_RESOLVED
from homeostat.events.v1.retraining_run_pb2 import RUN_STATE_ENDED
from homeostat.registry.v1.registry_pb2 import STAGE_CHAMPION, STAGE_RETIRED

LANES = ["embedded", pytest.param("kafka", marks=pytest.mark.kafka)]


def assert_exact(played: Played) -> None:
    """Every request answered, every prediction archived once, every truth joined once."""
    rows = len(played.flights)
    statistics = played.story.statistics
    assert played.tally.failures == []
    assert played.tally.predictions == rows
    assert statistics.predictions == rows
    assert statistics.predictions_joined == played.tally.outcomes_sent == rows
    assert statistics.joined_checksum == played.checksum
    assert statistics.outcomes_parked == 0


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize("lane", LANES)
async def test_drift_goes_in_and_a_proven_version_comes_out(lane: str, tmp_path: Path) -> None:
    if lane == "kafka" and not any(JARS.glob("*.jar")):
        pytest.skip("no real Kafka: run `make kafka` (Java 17, Maven)")
    world = a_world()
    with a_stack(tmp_path, lane) as stack:
        played = await play(stack, first_push(world, tmp_path / "model"), world.played)
        entries = await audit_entries(stack)
    assert_exact(played)
    story = played.story
    performance = [each for each in story.alerts if each.rule == ALERT_RULE_PERFORMANCE]
    assert performance, "the change of the concept raised no alert"
    assert {run.state for run in story.runs} == {RUN_STATE_ENDED}
    promoted = story.promoted
    assert promoted, [list(run.reasons) for run in story.runs]
    assert promoted[-1].stage == STAGE_CHAMPION
    assert all(each.stage == STAGE_RETIRED for each in promoted[:-1])
    assert played.tally.versions[-1] == promoted[-1].version
    assert {each.state for each in performance if each.version == 1} == {ALERT_STATE_RESOLVED}
    last_days = slice(-800, None)
    right = (played.tally.answers >= 0.5) == world.played.late
    assert right[last_days].mean() > 0.75
    assert np.isin(played.tally.versions, [1, *(each.version for each in promoted)]).all()
    assert verify(entries) == len(entries) > 0


@pytest.mark.slow
@pytest.mark.timeout(500)
async def test_two_runs_tell_the_same_story(tmp_path: Path) -> None:
    world = a_world(days=11)
    stories = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        with a_stack(tmp_path / name) as stack:
            played = await play(stack, first_push(world, tmp_path / name / "model"), world.played)
        assert_exact(played)
        stories.append(played)
    one, two = stories
    assert [each.model_sha256 for each in one.story.versions] == [
        each.model_sha256 for each in two.story.versions
    ]
    assert sorted(each.alert_id for each in one.story.alerts) == sorted(
        each.alert_id for each in two.story.alerts
    )
    assert (one.tally.versions == two.tally.versions).all()
    assert one.tally.answers.tobytes() == two.tally.answers.tobytes()


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_calm_world_is_left_alone(tmp_path: Path) -> None:
    world = a_world(shift_day=None, days=6)
    with a_stack(tmp_path) as stack:
        played = await play(stack, first_push(world, tmp_path / "model"), world.played)
    assert_exact(played)
    assert list(played.story.alerts) == []
    assert played.story.promoted == []
