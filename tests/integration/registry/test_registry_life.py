"""The whole life of versions, over gRPC and on a real database."""

import asyncio
import json
from typing import Any

import asyncpg
import grpc
import pytest
from tests.integration.registry.harness import (
    HOLDOUT_FROM_US,
    REFERENCE,
    TRAINED_TO_US,
    Registry,
    RegistryProcess,
    header,
    new_file,
    sha256,
    upload,
)
from tests.support.broker import TestBroker
from tests.support.waiting import eventually

from homeostat import audit
from homeostat.events.v1 import version_changed_pb2 as vc
from homeostat.progress.v1.progress_pb2 import GetProgressRequest
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat.registry.v1 import registry_pb2 as pb
from homeostat.topics import VERSIONS
from homeostat_kit.kafka import Batch, Bus, consume, from_the_start

Code = grpc.StatusCode


def refused(code: grpc.StatusCode, *words: str) -> Any:
    """Expects a refusal with that code and these words."""

    class _Refused:
        def __enter__(self) -> "_Refused":
            return self

        def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
            assert isinstance(error, grpc.aio.AioRpcError), error or "it was not refused"
            assert error.code() == code, (error.code(), error.details())
            for word in words:
                assert word in (error.details() or ""), error.details()
            return True

    return _Refused()


async def test_the_first_version_serves_at_once(registry: Registry, name: str) -> None:
    await registry.a_model(name, pb.AUTONOMY_APPROVE)
    content = new_file()
    version = await registry.push(name, content)
    assert (version.version, version.stage) == (1, pb.STAGE_CHAMPION)
    assert list(version.aliases) == ["champion"]
    model = await registry.model(name)
    assert (model.champion_version, model.revision) == (1, 2)
    chunks = [
        each.chunk
        async for each in registry.api.DownloadArtifact(
            pb.DownloadArtifactRequest(sha256=version.model_sha256), timeout=10
        )
    ]
    assert b"".join(chunks) == content


@pytest.mark.parametrize("autonomy", [pb.AUTONOMY_OBSERVE, pb.AUTONOMY_RECOMMEND])
async def test_where_the_gate_may_not_act_the_first_version_waits(
    registry: Registry, name: str, autonomy: int
) -> None:
    await registry.a_model(name, autonomy)
    version = await registry.push(name)
    assert version.stage == pb.STAGE_REGISTERED
    model = await registry.model(name)
    assert not model.HasField("champion_version")
    with refused(Code.NOT_FOUND, "no champion"):
        await registry.version(name, 0)
    promoted = await registry.api.PromoteVersion(
        pb.PromoteVersionRequest(
            model_name=name, version=1, etag=model.etag, actor="bob", reason="looks good"
        ),
        timeout=10,
    )
    assert promoted.version.stage == pb.STAGE_CHAMPION


async def test_a_model_waits_for_approval_unless_told_otherwise(
    registry: Registry, name: str
) -> None:
    model = await registry.a_model(name, pb.AUTONOMY_UNSPECIFIED)
    assert model.autonomy == pb.AUTONOMY_APPROVE
    with refused(Code.ALREADY_EXISTS, name):
        await registry.a_model(name)


async def test_under_auto_a_proven_candidate_takes_the_champions_place(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    answer = await registry.propose(name, "run-1")
    assert answer.version.stage == pb.STAGE_CHAMPION
    assert "Proven better" in answer.version.reasons[0]
    first, second = await registry.versions(name)
    assert (first.stage, second.stage) == (pb.STAGE_RETIRED, pb.STAGE_CHAMPION)
    assert (await registry.model(name)).champion_version == 2


async def test_an_unproven_candidate_is_rejected_with_the_reason(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    answer = await registry.propose(name, "run-1", mean_gain=0.001)
    assert answer.version.stage == pb.STAGE_REJECTED
    assert "Not proven better" in answer.version.reasons[0]
    assert (await registry.model(name)).champion_version == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"champion_version": 7}, "Stale"),
        ({"champion_sha256": "0" * 64}, "Stale"),
        ({"champion_etag": "0" * 32}, "Stale"),
        ({"candidate_sha256": "0" * 64}, "another artifact"),
        ({"gain_deviation": -1.0}, "negative"),
        ({"gain_deviation": float("nan")}, "not finite"),
        ({"mean_gain": float("inf")}, "not finite"),
        ({"holdout_rows": 299}, "Too few"),
        ({"holdout_from_us": TRAINED_TO_US - 1}, "Peeking"),
    ],
)
async def test_evidence_that_does_not_fit_is_rejected(
    registry: Registry, name: str, change: dict[str, Any], word: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    answer = await registry.propose(name, "run-1", **change)
    assert answer.version.stage == pb.STAGE_REJECTED
    assert any(word in each for each in answer.version.reasons), answer.version.reasons
    assert (await registry.version(name, 2)).evidence.candidate_count == 3


async def test_a_run_without_evidence_is_rejected_and_a_hand_without_it_waits(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    content = new_file()
    answer = await registry.register(header(name, content, run_id="run-1"), content)
    assert answer.version.stage == pb.STAGE_REJECTED
    assert (await registry.push(name)).stage == pb.STAGE_REGISTERED


async def test_a_run_has_one_effect(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    await registry.push(name)
    first = await registry.propose(name, "run-1")
    again = await registry.propose(name, "run-1", content=new_file())
    assert not first.is_repeat
    assert again.is_repeat
    assert again.version == first.version
    assert len(await registry.versions(name)) == 2


async def test_a_run_that_lost_its_lease_is_refused(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    await registry.push(name)
    await registry.propose(name, "run-2", token=8)
    with refused(Code.FAILED_PRECONDITION, "fencing token 7"):
        await registry.propose(name, "run-1", token=7)
    assert len(await registry.versions(name)) == 2
    await registry.propose(name, "run-3", token=2**64 - 1)
    with refused(Code.FAILED_PRECONDITION, str(2**64 - 1)):
        await registry.propose(name, "run-4", token=8)


async def test_more_registrations_than_fit_are_refused_not_queued(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    content = new_file()
    said = header(name, content)
    release = asyncio.Event()

    async def halting() -> Any:
        yield pb.RegisterVersionRequest(header=said)
        await release.wait()

    calls = [
        asyncio.ensure_future(registry.api.RegisterVersion(halting(), timeout=30))
        for _ in range(33)
    ]
    done, waiting = await asyncio.wait(calls, timeout=20, return_when=asyncio.FIRST_COMPLETED)
    assert len(done) == 1
    with refused(Code.RESOURCE_EXHAUSTED, "try again later"):
        await done.pop()
    release.set()
    await asyncio.wait(waiting)
    for each in waiting:
        with refused(Code.INVALID_ARGUMENT, "cut"):
            await each
    assert (await registry.register(said, content)).version.stage == pb.STAGE_CHAMPION


async def test_the_same_file_twice_by_hand_names_its_version(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    content = new_file()
    await registry.push(name, content)
    with refused(Code.ALREADY_EXISTS, "version 1"):
        await registry.push(name, content)


async def test_approval_needs_somebody_else_and_the_present_etag(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name, pb.AUTONOMY_APPROVE)
    await registry.push(name)
    candidate = (await registry.propose(name, "run-1")).version
    assert candidate.stage == pb.STAGE_AWAITS_APPROVAL
    assert list(candidate.aliases) == ["challenger"]
    etag = (await registry.model(name)).etag

    async def approve(approver: str, etag: str) -> pb.Version:
        answer = await registry.api.ApproveVersion(
            pb.ApproveVersionRequest(
                model_name=name, version=2, approver=approver, is_approved=True, etag=etag
            ),
            timeout=10,
        )
        return answer.version

    with refused(Code.PERMISSION_DENIED, "somebody else"):
        await approve(" Retrainer ", etag)
    with refused(Code.ABORTED, "read it again"):
        await approve("bob", "0" * 32)
    with refused(Code.INVALID_ARGUMENT, "etag"):
        await approve("bob", "")
    assert (await approve("bob", etag)).stage == pb.STAGE_CHAMPION
    with refused(Code.ABORTED):
        await approve("bob", etag)


async def test_what_awaits_approval_is_rejected_when_the_champion_has_moved_on(
    registry: Registry, registry_process: RegistryProcess, name: str
) -> None:
    await registry.a_model(name, pb.AUTONOMY_APPROVE)
    await registry.push(name)
    await registry.propose(name, "run-1")
    await registry.propose(name, "run-2")
    urgent = await registry.push(name)
    await registry.api.PromoteVersion(
        pb.PromoteVersionRequest(
            model_name=name,
            version=urgent.version,
            etag=(await registry.model(name)).etag,
            actor="bob",
            reason="urgent",
        ),
        timeout=10,
    )
    versions = await registry.versions(name)
    assert [each.stage for each in versions] == [
        pb.STAGE_RETIRED,
        pb.STAGE_REJECTED,
        pb.STAGE_REJECTED,
        pb.STAGE_CHAMPION,
    ]
    assert versions[1].reasons[-1] == "Stale: another champion since, 4."
    assert [list(each.aliases) for each in versions] == [[], [], [], ["champion"]]
    events = await _events(registry_process, name, 8)
    assert [(each.version, each.change, each.revision) for each in events[4:]] == [
        (4, vc.VERSION_CHANGE_PROMOTED, 3),
        (1, vc.VERSION_CHANGE_RETIRED, 3),
        (2, vc.VERSION_CHANGE_REJECTED, 3),
        (3, vc.VERSION_CHANGE_REJECTED, 3),
    ]
    assert [
        each.detail
        for each in await registry.audit()
        if each.model_name == name and each.action == "reject_stale"
    ] == ['{"champion":4,"versions":[2,3]}']
    request = pb.ApproveVersionRequest(
        model_name=name,
        version=2,
        approver="bob",
        is_approved=True,
        etag=(await registry.model(name)).etag,
    )
    with refused(Code.FAILED_PRECONDITION, "rejected"):
        await registry.api.ApproveVersion(request, timeout=10)


async def test_promotion_by_hand_needs_etag_actor_and_reason(registry: Registry, name: str) -> None:
    model = await registry.a_model(name)
    await registry.push(name)
    await registry.push(name)
    good = pb.PromoteVersionRequest(
        model_name=name,
        version=2,
        etag=(await registry.model(name)).etag,
        actor="bob",
        reason="the season changed",
    )
    for change, code in (
        ({"etag": model.etag}, Code.ABORTED),
        ({"actor": " "}, Code.INVALID_ARGUMENT),
        ({"reason": ""}, Code.INVALID_ARGUMENT),
        ({"version": 9}, Code.NOT_FOUND),
        ({"version": 1}, Code.FAILED_PRECONDITION),
        ({"model_name": "nobody"}, Code.NOT_FOUND),
    ):
        bad = pb.PromoteVersionRequest()
        bad.CopyFrom(good)
        for key, value in change.items():
            setattr(bad, key, value)
        with refused(code):
            await registry.api.PromoteVersion(bad, timeout=10)
    answer = await registry.api.PromoteVersion(good, timeout=10)
    assert answer.version.stage == pb.STAGE_CHAMPION


async def test_rolling_back_twice_goes_two_back(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    await registry.push(name)
    await registry.propose(name, "run-1")
    await registry.propose(name, "run-2")

    async def roll_back(version: int | None = None) -> int:
        request = pb.RollBackRequest(
            model_name=name,
            version=version,
            etag=(await registry.model(name)).etag,
            actor="bob",
            reason="complaints",
        )
        answer = await registry.api.RollBack(request, timeout=10)
        return int(answer.version.version)

    assert await roll_back() == 2
    assert await roll_back() == 1
    with refused(Code.NOT_FOUND, "before"):
        await roll_back()
    assert await roll_back(3) == 3
    with refused(Code.FAILED_PRECONDITION, "champion already"):
        await roll_back(3)


async def test_a_roll_back_is_not_undone_by_the_next_proven_candidate(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    await registry.propose(name, "run-1")
    model = await registry.model(name)
    back = await registry.api.RollBack(
        pb.RollBackRequest(model_name=name, etag=model.etag, actor="bob", reason="complaints"),
        timeout=10,
    )
    assert "Autonomy lowered from AUTO to APPROVE" in back.version.reasons[-1]
    assert (await registry.model(name)).autonomy == pb.AUTONOMY_APPROVE
    assert (await registry.propose(name, "run-2")).version.stage == pb.STAGE_AWAITS_APPROVAL
    assert (await registry.model(name)).champion_version == 1
    told = json.loads(
        next(
            each.detail
            for each in await registry.audit()
            if each.model_name == name and each.action == "roll_back"
        )
    )
    assert (told["autonomy"], told["autonomy_after"]) == ("AUTO", "APPROVE")


async def test_who_was_champion_at_a_time(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    day = 86_400_000_000
    start = HOLDOUT_FROM_US
    await registry.push(name, occurred_at_us=start)
    content = new_file()
    said = header(name, content, author="retrainer", run_id="r", occurred_at_us=start + day)
    said.evidence.CopyFrom(await registry.evidence(name, content))
    await registry.register(said, content)

    async def at(time_us: int) -> pb.GetChampionAtResponse:
        request = pb.GetChampionAtRequest(model_name=name)
        request.at.FromMicroseconds(time_us)
        return await registry.api.GetChampionAt(request, timeout=10)

    assert not (await at(start - 1)).HasField("version")
    assert (await at(start)).version == 1
    assert (await at(start + day - 1)).version == 1
    found = await at(start + day)
    assert found.version == 2
    assert found.since_at.ToMicroseconds() == start + day
    assert (await at(start + 400 * day)).version == 2


async def test_every_change_is_one_event_in_order(
    registry: Registry, registry_process: RegistryProcess, name: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    await registry.propose(name, "run-1")
    await registry.propose(name, "run-2", mean_gain=0.0)
    events = await _events(registry_process, name, 4)
    assert [(each.version, each.change, each.revision) for each in events] == [
        (1, vc.VERSION_CHANGE_PROMOTED, 2),
        (2, vc.VERSION_CHANGE_PROMOTED, 3),
        (1, vc.VERSION_CHANGE_RETIRED, 3),
        (3, vc.VERSION_CHANGE_REJECTED, 3),
    ]
    promoted = events[1]
    assert (promoted.champion_version, promoted.previous_champion_version) == (2, 1)
    assert promoted.run_id == "run-1"
    assert not events[0].HasField("previous_champion_version")


async def _events(of: RegistryProcess, name: str, count: int) -> list[vc.VersionChanged]:
    """What the topic holds of one model, once it holds that many."""
    found: list[vc.VersionChanged] = []
    stop = asyncio.Event()

    async def handle(batch: Batch) -> None:
        found.extend(
            message
            for _, message in batch.records
            if isinstance(message, vc.VersionChanged) and message.model_name == name
        )

    bus = Bus(of.broker_address, client_id="test")
    # A reader that comes before its topic would wait for ever.
    await bus.ensure_topics([VERSIONS])
    async with bus:
        reading = asyncio.create_task(
            consume(bus, [VERSIONS], offsets=from_the_start, handle=handle, stop=stop)
        )
        try:
            await eventually(lambda: len(found) >= count, what=f"{count} events of {name}")
        finally:
            stop.set()
            await reading
    return found


async def test_versions_come_in_pages_or_by_their_run(registry: Registry, name: str) -> None:
    await registry.a_model(name, pb.AUTONOMY_APPROVE)
    await registry.push(name)
    await registry.propose(name, "run-1")
    await registry.propose(name, "run-2")
    await registry.push(name)

    async def listed(**more: Any) -> list[tuple[int, list[str]]]:
        request = pb.ListVersionsRequest(model_name=name, **more)
        answer = await registry.api.ListVersions(request, timeout=10)
        return [(each.version, list(each.aliases)) for each in answer.versions]

    everything = [(1, ["champion"]), (2, []), (3, ["challenger"]), (4, [])]
    assert await listed() == await listed(limit=2**32 - 1) == everything
    assert await listed(limit=2) == everything[2:]
    assert await listed(limit=2, before_version=3) == everything[:2]
    assert await listed(before_version=2**32 - 1) == everything
    assert await listed(run_id="run-1") == everything[1:2]
    assert await listed(run_id="run-9") == []


async def test_autonomy_changes_under_its_etag(registry: Registry, name: str) -> None:
    model = await registry.a_model(name, pb.AUTONOMY_OBSERVE)
    request = pb.SetAutonomyRequest(
        model_name=name, autonomy=pb.AUTONOMY_AUTO, etag=model.etag, actor="bob"
    )
    changed = (await registry.api.SetAutonomy(request, timeout=10)).model
    assert changed.autonomy == pb.AUTONOMY_AUTO
    assert changed.etag != model.etag
    with refused(Code.ABORTED):
        await registry.api.SetAutonomy(request, timeout=10)


async def test_the_snapshot_holds_models_and_champions(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    await registry.push(name)
    answer = await registry.api.GetSnapshot(pb.GetSnapshotRequest(), timeout=10)
    assert name in {each.name for each in answer.models}
    champion = next(each for each in answer.champions if each.model_name == name)
    assert champion == await registry.version(name)


async def test_the_audit_chain_holds_and_cannot_be_changed(
    registry: Registry, registry_process: RegistryProcess, name: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    await registry.propose(name, "run-1")
    entries = await registry.audit()
    assert audit.verify(entries) == len(entries)
    assert [each.action for each in entries if each.model_name == name] == [
        "create_model",
        "register",
        "register",
    ]
    connection = await asyncpg.connect(registry_process.database_url)
    try:
        for table in ("audit", "version", "reign"):
            for statement in (
                f"DELETE FROM {table}",
                f"TRUNCATE {table} CASCADE",
                f"UPDATE {table} SET model_name = 'other'",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_hundred_promotions_at_once_leave_one_champion(
    registry: Registry, registry_process: RegistryProcess, name: str
) -> None:
    await registry.a_model(name)
    for _ in range(4):
        await registry.push(name)
    etag = (await registry.model(name)).etag

    async def promote(index: int) -> bool:
        request = pb.PromoteVersionRequest(
            model_name=name, version=2 + index % 3, etag=etag, actor="bob", reason="race"
        )
        try:
            await registry.api.PromoteVersion(request, timeout=30)
        except grpc.aio.AioRpcError as error:
            assert error.code() == Code.ABORTED, error.details()
            return False
        return True

    won = await asyncio.gather(*(promote(index) for index in range(100)))
    assert sum(won) == 1
    champions = [each for each in await registry.versions(name) if each.stage == pb.STAGE_CHAMPION]
    assert len(champions) == 1
    entries = await registry.audit()
    assert audit.verify(entries) == len(entries)


async def test_one_run_registered_ten_times_at_once_is_one_version(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    content = new_file()
    said = header(name, content, author="retrainer", run_id="run-1", fencing_token=3)
    said.evidence.CopyFrom(await registry.evidence(name, content))
    answers = await asyncio.gather(*(registry.register(said, content) for _ in range(10)))
    assert sorted(each.is_repeat for each in answers) == [False] + [True] * 9
    assert {each.version.version for each in answers} == {2}


async def test_progress_counts_what_is_sent(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    await registry.push(name)
    stub: Any = ProgressServiceStub(registry.channel)

    async def quiet() -> Any:
        answer = await stub.GetProgress(GetProgressRequest(), timeout=30)
        return answer if answer.produced and not answer.unsent_count else None

    answer = await eventually(quiet)
    assert answer.service == "registry"
    assert answer.produced[0].topic == VERSIONS.name
    assert answer.open_work_count == 0


async def test_kill_during_a_registration_leaves_no_half_version(
    mortal: Registry, name: str
) -> None:
    await mortal.a_model(name)
    await mortal.push(name)
    content = new_file()
    said = header(name, content, author="retrainer", run_id="run-1")
    said.evidence.CopyFrom(await mortal.evidence(name, content))
    incoming = mortal.of.folder / "artifacts" / "incoming"
    under_way = asyncio.Event()

    async def halting() -> Any:
        parts = list(upload(said, content))
        for part in parts[:-1]:
            yield part
        await under_way.wait()

    call = asyncio.ensure_future(mortal.api.RegisterVersion(halting(), timeout=30))
    await eventually(lambda: len(list(incoming.iterdir())) == 2, what="the upload began")
    mortal.of.kill()
    with refused(Code.UNAVAILABLE):
        await call
    mortal.of.start()
    await mortal.wait_ready()
    assert len(await mortal.versions(name)) == 1
    assert list(incoming.iterdir()) == []
    answer = await mortal.register(said, content)
    assert answer.version.stage == pb.STAGE_CHAMPION
    assert not answer.is_repeat


async def test_kill_at_any_moment_leaves_one_effect_per_run(mortal: Registry, name: str) -> None:
    """The caller does not know whether its call had an effect, and simply calls again."""
    await mortal.a_model(name)
    await mortal.push(name)
    for index, delay in enumerate((0.0, 0.03, 0.06, 0.1)):
        content = new_file()
        said = header(name, content, author="retrainer", run_id=f"run-{index}")
        said.evidence.CopyFrom(await mortal.evidence(name, content))
        call = asyncio.ensure_future(mortal.register(said, content))
        await asyncio.wait([call], timeout=delay)
        mortal.of.kill()
        await asyncio.wait([call])
        call.exception()
        mortal.of.start()
        await mortal.wait_ready()
        answer = await mortal.register(said, content)
        assert answer.version.stage == pb.STAGE_CHAMPION
        assert answer.version.version == index + 2
    stages = [each.stage for each in await mortal.versions(name)]
    assert stages == [pb.STAGE_RETIRED] * 4 + [pb.STAGE_CHAMPION]
    entries = await mortal.audit()
    assert audit.verify(entries) == len(entries)


async def test_it_leaves_when_told_and_finds_everything_again(mortal: Registry, name: str) -> None:
    await mortal.a_model(name)
    version = await mortal.push(name)
    assert mortal.of.stop() == 0
    mortal.of.start()
    await mortal.wait_ready()
    assert await mortal.version(name) == version


async def test_it_takes_registrations_while_the_broker_is_away_and_tells_them_later(
    mortal: Registry, embedded_broker: TestBroker, name: str
) -> None:
    await mortal.a_model(name)
    embedded_broker.kill()
    assert (await mortal.push(name)).stage == pb.STAGE_CHAMPION
    embedded_broker.restart()
    events = await _events(mortal.of, name, 1)
    assert [each.champion_version for each in events] == [1]


async def test_a_new_life_of_the_broker_is_told_everything_again(
    mortal: Registry, embedded_broker: TestBroker, name: str
) -> None:
    await mortal.a_model(name)
    await mortal.push(name)
    await mortal.propose(name, "run-1")
    assert len(await _events(mortal.of, name, 3)) == 3
    embedded_broker.restart()
    assert len(await _events(mortal.of, name, 3)) == 3


async def test_an_artifact_damaged_on_disk_is_not_passed_off_as_whole(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    version = await registry.push(name)
    sha = version.model_sha256
    path = registry.of.folder / "artifacts" / sha[:2] / sha
    path.chmod(0o644)
    path.write_bytes(b"!" + path.read_bytes()[1:])
    with refused(Code.DATA_LOSS, "damaged"):
        async for _ in registry.api.DownloadArtifact(
            pb.DownloadArtifactRequest(sha256=sha), timeout=10
        ):
            pass


async def test_words_that_cannot_be_stored_are_refused(registry: Registry, name: str) -> None:
    model = await registry.a_model(name)
    await registry.push(name)
    with refused(Code.INVALID_ARGUMENT, "model name"):
        await registry.model("a\0b")
    with refused(Code.INVALID_ARGUMENT, "model name"):
        await registry.versions("a\0b")
    request = pb.SetAutonomyRequest(
        model_name=name, autonomy=pb.AUTONOMY_AUTO, etag=model.etag, actor="b\0b"
    )
    with refused(Code.INVALID_ARGUMENT, "NUL"):
        await registry.api.SetAutonomy(request, timeout=10)


async def test_the_callers_trace_goes_on_into_the_event(
    registry: Registry, registry_process: RegistryProcess, name: str
) -> None:
    await registry.a_model(name)
    content = new_file()
    traceparent = f"00-{'a' * 32}-{'b' * 16}-01"
    await registry.api.RegisterVersion(
        upload(header(name, content), content), timeout=30, metadata=[("traceparent", traceparent)]
    )
    connection = await asyncpg.connect(registry_process.database_url)
    try:
        told = await connection.fetchval(
            "SELECT traceparent FROM outbox WHERE key = $1", name.encode()
        )
    finally:
        await connection.close()
    assert told == traceparent


async def test_an_upload_that_is_not_what_its_header_says_is_refused(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    content = new_file()
    good = header(name, content)
    for change, words in (
        ({"model_sha256": "0" * 64}, ("sha256",)),
        ({"model_sha256": "nonsense"}, ("64", "hex")),
        ({"model_bytes": len(content) + 1}, ("cut",)),
        ({"model_bytes": len(content) - 1}, ("more than",)),
        ({"model_bytes": 1 << 40}, ("limit",)),
        ({"reference_bytes": 1 << 40}, ("limit",)),
        ({"author": ""}, ("author",)),
        ({"reference_sha256": sha256(b"other")}, ("sha256",)),
    ):
        bad = pb.RegisterVersionHeader()
        bad.CopyFrom(good)
        for key, value in change.items():
            setattr(bad, key, value)
        with refused(Code.INVALID_ARGUMENT, *words):
            await registry.register(bad, content)
    with refused(Code.INVALID_ARGUMENT, "Parquet"):
        await registry.register(header(name, content, reference=b"a,b\n1,2"), content, b"a,b\n1,2")
    assert await registry.versions(name) == []
    with refused(Code.INVALID_ARGUMENT, "header"):
        await registry.api.RegisterVersion(
            iter([pb.RegisterVersionRequest(model_chunk=b"x")]), timeout=10
        )
    with refused(Code.NOT_FOUND, "create it"):
        await registry.register(header("nobody", content), content)
    with refused(Code.INVALID_ARGUMENT, "future"):
        await registry.register(header(name, content, occurred_at_us=10**17), content)


async def test_an_unknown_artifact_is_not_found(registry: Registry) -> None:
    for sha, code in (
        ("0" * 64, Code.NOT_FOUND),
        ("../../etc/passwd", Code.INVALID_ARGUMENT),
    ):
        with refused(code):
            async for _ in registry.api.DownloadArtifact(
                pb.DownloadArtifactRequest(sha256=sha), timeout=10
            ):
                pass


async def test_a_reference_profile_is_an_artifact_too(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    version = await registry.push(name)
    chunks = [
        each.chunk
        async for each in registry.api.DownloadArtifact(
            pb.DownloadArtifactRequest(sha256=version.reference_sha256), timeout=10
        )
    ]
    assert b"".join(chunks) == REFERENCE
