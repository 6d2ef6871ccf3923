"""A model's traffic is shared out over gRPC, told with every event, and follows the stages."""

import json
from typing import Any

from tests.integration.registry.harness import (
    Registry,
    RegistryProcess,
    header,
    new_file,
    sha256,
)
from tests.integration.registry.test_registry_life import Code, _events, refused
from tests.support import onnx_models

from homeostat.events.v1 import version_changed_pb2 as vc
from homeostat.events.v1.serving_pb2 import Batching, Canary, Serving
from homeostat.registry.v1 import registry_pb2 as pb


async def share(registry: Registry, name: str, serving: Serving, **more: Any) -> pb.Model:
    etag = (await registry.model(name)).etag
    said: dict[str, Any] = {"etag": etag, "actor": "ann", "reason": "a trial"}
    request = pb.SetServingRequest(model_name=name, serving=serving, **(said | more))
    return (await registry.api.SetServing(request, timeout=10)).model


async def with_versions(registry: Registry, name: str, count: int) -> None:
    """The first is champion, all others wait to be promoted by hand."""
    await registry.a_model(name)
    for _ in range(count):
        await registry.push(name)


async def promote(registry: Registry, name: str, version: int) -> pb.Version:
    request = pb.PromoteVersionRequest(
        model_name=name,
        version=version,
        etag=(await registry.model(name)).etag,
        actor="bob",
        reason="it is time",
    )
    return (await registry.api.PromoteVersion(request, timeout=10)).version


async def test_everything_is_set_at_once_told_and_audited(
    registry: Registry, registry_process: RegistryProcess, name: str
) -> None:
    await with_versions(registry, name, 4)
    wanted = Serving(
        shadow_versions=[2, 3],
        canary=Canary(version=4, share=0.25, is_random=True),
        fallback_version=2,
        batching=Batching(max_rows=64, max_delay_seconds=0.002, preferred_rows=[8, 64]),
    )
    before = await registry.model(name)
    after = await share(registry, name, wanted)
    assert after.serving == wanted
    assert after.revision == before.revision + 1
    assert after.etag != before.etag
    assert (await registry.model(name)).serving == wanted
    listed = (await registry.api.ListModels(pb.ListModelsRequest(), timeout=10)).models
    assert [each.serving for each in listed if each.name == name] == [wanted]
    snapshot = await registry.api.GetSnapshot(pb.GetSnapshotRequest(), timeout=10)
    assert [each.serving for each in snapshot.models if each.name == name] == [wanted]
    others = [each for each in snapshot.others if each.model_name == name]
    assert [each.version for each in others] == [2, 3, 4]
    assert all(each.signature.inputs for each in others)
    told = (await _events(registry_process, name, 5))[-1]
    assert (told.change, told.version, told.champion_version) == (vc.VERSION_CHANGE_SERVING, 1, 1)
    assert told.revision == after.revision
    assert told.serving == wanted
    assert told.reasons[-1] == "Shared out by ann: a trial"
    entry = [each for each in await registry.audit() if each.model_name == name][-1]
    assert (entry.action, entry.actor) == ("set_serving", "ann")
    detail = json.loads(entry.detail)
    assert detail["to"]["canary"] == {"version": 4, "share": 0.25, "is_random": True}
    assert detail["from"]["canary"] is None


async def test_an_empty_batching_and_no_batching_are_two_things(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    assert (await share(registry, name, Serving(batching=Batching()))).serving.HasField("batching")
    assert not (await share(registry, name, Serving())).serving.HasField("batching")


async def test_a_stale_etag_is_aborted_and_nobody_is_not_an_actor(
    registry: Registry, name: str
) -> None:
    await with_versions(registry, name, 2)
    stale = (await registry.model(name)).etag
    await share(registry, name, Serving(shadow_versions=[2]))
    with refused(Code.ABORTED, "changed since"):
        await share(registry, name, Serving(), etag=stale)
    with refused(Code.INVALID_ARGUMENT, "present etag"):
        await share(registry, name, Serving(), etag="")
    with refused(Code.INVALID_ARGUMENT, "actor"):
        await share(registry, name, Serving(), actor=" ")
    assert list((await registry.model(name)).serving.shadow_versions) == [2]


async def test_versions_that_can_not_serve_are_refused(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    with refused(Code.NOT_FOUND, "no version 2"):
        await share(registry, name, Serving(shadow_versions=[2]))
    await registry.push(name)
    with refused(Code.NOT_FOUND, "no version 7"):
        await share(registry, name, Serving(fallback_version=7))
    with refused(Code.INVALID_ARGUMENT, "it is the champion"):
        await share(registry, name, Serving(canary=Canary(version=1, share=0.1)))
    with refused(Code.INVALID_ARGUMENT, "needs a fallback_version"):
        await share(registry, name, Serving(is_on_fallback=True))
    content = onnx_models.integer_sum()
    other = header(name, content, signature=onnx_models.integers())
    await registry.register(other, content)
    with refused(Code.INVALID_ARGUMENT, "'x' is INT64[-1, 1], not FP32[-1, 1]"):
        await share(registry, name, Serving(fallback_version=2))
    with refused(Code.NOT_FOUND, "no model"):
        request = pb.SetServingRequest(model_name=f"{name}-no", etag="x", actor="ann")
        await registry.api.SetServing(request, timeout=10)


async def test_a_promoted_canary_leaves_the_canary_and_the_rest_goes_on(
    registry: Registry, registry_process: RegistryProcess, name: str
) -> None:
    await with_versions(registry, name, 3)
    wanted = Serving(shadow_versions=[2], canary=Canary(version=3, share=0.5), fallback_version=2)
    await share(registry, name, wanted)
    crowned = await promote(registry, name, 3)
    assert "Version 3 is no longer canary." in crowned.reasons
    left = Serving(shadow_versions=[2], fallback_version=2)
    assert (await registry.model(name)).serving == left
    events = await _events(registry_process, name, 6)
    assert [(each.change, each.serving) for each in events[-2:]] == [
        (vc.VERSION_CHANGE_PROMOTED, left),
        (vc.VERSION_CHANGE_RETIRED, left),
    ]


async def test_a_promoted_fallback_ends_the_kill_switch(registry: Registry, name: str) -> None:
    await with_versions(registry, name, 2)
    await share(registry, name, Serving(fallback_version=2, is_on_fallback=True))
    await promote(registry, name, 2)
    assert (await registry.model(name)).serving == Serving()
    await share(registry, name, Serving(fallback_version=1, is_on_fallback=True))
    request = pb.RollBackRequest(
        model_name=name, etag=(await registry.model(name)).etag, actor="bob"
    )
    await registry.api.RollBack(request, timeout=10)
    assert (await registry.model(name)).serving == Serving()


async def test_a_rejected_canary_answers_nobody(registry: Registry, name: str) -> None:
    await registry.a_model(name, pb.AUTONOMY_APPROVE)
    await registry.push(name)
    await registry.propose(name, "run-1")
    await share(registry, name, Serving(canary=Canary(version=2, share=0.5), fallback_version=2))
    request = pb.ApproveVersionRequest(
        model_name=name,
        version=2,
        approver="ann",
        is_approved=False,
        etag=(await registry.model(name)).etag,
    )
    await registry.api.ApproveVersion(request, timeout=10)
    assert (await registry.model(name)).serving == Serving()
    with refused(Code.FAILED_PRECONDITION, "was rejected"):
        await share(registry, name, Serving(fallback_version=2))
    await share(registry, name, Serving(shadow_versions=[2]))


async def test_traffic_shared_out_during_a_comparison_does_not_stale_it(
    registry: Registry, name: str
) -> None:
    await with_versions(registry, name, 2)
    content = new_file()
    said = header(name, content, author="retrainer", run_id="run-1", fencing_token=1)
    said.evidence.CopyFrom(await registry.evidence(name, content))
    before = await registry.model(name)
    after = await share(registry, name, Serving(shadow_versions=[2]))
    assert after.comparison_etag == before.comparison_etag == before.etag
    assert after.etag != before.etag
    answer = await registry.register(said, content)
    assert answer.version.stage == pb.STAGE_CHAMPION
    assert (await registry.model(name)).comparison_etag != before.comparison_etag


async def equivalence_to(registry: Registry, name: str, **more: Any) -> pb.Equivalence:
    said: dict[str, Any] = {
        "parent_sha256": (await registry.version(name)).model_sha256,
        "rows_sha256": sha256(b"rows"),
        "row_count": 1_000,
        "equal_count": 1_000,
        "tolerated_share": 0.999,
        "max_score_difference": 0.01,
        "speed_up": 1.8,
        "method": "int8",
        "machine": "a laptop",
    }
    return pb.Equivalence(**(said | more))


async def test_another_form_of_the_champion_passes_by_its_own_path(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    await registry.push(name)
    content = new_file()
    said = header(name, content, author="advisor")
    said.equivalence.CopyFrom(await equivalence_to(registry, name))
    made = (await registry.register(said, content)).version
    assert made.stage == pb.STAGE_CHAMPION
    assert made.equivalence == said.equivalence
    assert not made.HasField("evidence")
    assert made.reasons[0].startswith("Equivalent to its parent by int8: 1000 of 1000 rows")
    assert (await registry.version(name, 2)).equivalence == said.equivalence
    entry = [each for each in await registry.audit() if each.model_name == name][-1]
    assert json.loads(entry.detail)["equivalence"]["rows_sha256"] == said.equivalence.rows_sha256


async def test_who_made_a_version_that_awaits_approval_does_not_let_it_answer(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name, pb.AUTONOMY_APPROVE)
    await registry.push(name)
    content = new_file()
    said = header(name, content, author="ann")
    said.equivalence.CopyFrom(await equivalence_to(registry, name))
    assert (await registry.register(said, content)).version.stage == pb.STAGE_AWAITS_APPROVAL
    for wanted in (Serving(canary=Canary(version=2, share=0.5)), Serving(fallback_version=2)):
        with refused(Code.PERMISSION_DENIED, "somebody else must let it answer"):
            await share(registry, name, wanted)
    await share(registry, name, Serving(shadow_versions=[2]))


async def test_a_form_that_differs_is_rejected_and_two_proofs_are_refused(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name, pb.AUTONOMY_APPROVE)
    await registry.push(name)
    content = new_file()
    said = header(name, content, author="advisor")
    said.equivalence.CopyFrom(await equivalence_to(registry, name, equal_count=990))
    made = (await registry.register(said, content)).version
    assert made.stage == pb.STAGE_REJECTED
    assert "990 of 1000 rows are equal (99.0000%" in made.reasons[0]
    content = new_file()
    said = header(name, content, author="advisor")
    said.equivalence.CopyFrom(await equivalence_to(registry, name))
    said.evidence.CopyFrom(await registry.evidence(name, content))
    with refused(Code.INVALID_ARGUMENT, "both evidence and equivalence"):
        await registry.register(said, content)
    said.ClearField("evidence")
    made = (await registry.register(said, content)).version
    assert made.stage == pb.STAGE_AWAITS_APPROVAL


async def test_a_version_with_other_classes_is_another_model(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    await registry.push(name)
    said = onnx_models.signature()
    said.classes[:] = ["yes", "no"]
    with refused(Code.INVALID_ARGUMENT, "yes, no, but", "version 1 has no, yes", "another model"):
        await registry.push(name, signature=said)
    assert len(await registry.versions(name)) == 1
