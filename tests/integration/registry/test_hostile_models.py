"""One registry takes every hostile model, says no to each in time, and judges a good one after."""

import json
import time
from collections import Counter

import grpc
import pytest
from tests.hostile.models import HOSTILE_MODELS, MIB, OK, HostileModel
from tests.hostile.runtime_models import RUNTIME_MODELS, RuntimeModel
from tests.integration.registry.harness import Registry, header

from homeostat.registry.v1 import registry_pb2 as pb

WALL_SECONDS = 6
# Sending 50 MB and starting a judge count too, on a machine that others use.
SLACK_SECONDS = 14


async def answer(registry: Registry, name: str, each: HostileModel) -> tuple[str, str]:
    """Code and text."""
    content = each.build()
    said = header(name, content, signature=each.sign())
    try:
        await registry.register(said, content)
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return OK, ""


async def is_serving(registry: Registry) -> bool:
    return bool((await registry.api.ListModels(pb.ListModelsRequest(), timeout=5)).models)


@pytest.mark.timeout(600)
async def test_every_hostile_model_gets_its_documented_answer_in_time(
    registry: Registry, name: str
) -> None:
    assert len(HOSTILE_MODELS) >= 80
    process = registry.of.process
    assert process is not None
    wrong = []
    for each in HOSTILE_MODELS:
        model = f"{name[:30]}-{each.name}"
        await registry.a_model(model)
        began = time.monotonic()
        code, text = await answer(registry, model, each)
        seconds = time.monotonic() - began
        if code != each.code or each.words not in text:
            wrong.append((each.name, code, text))
        if seconds > WALL_SECONDS + SLACK_SECONDS:
            wrong.append((each.name, f"took {seconds:.1f} s"))
        if len(text) > 2_000 or not text.isprintable():
            wrong.append((each.name, "a text that logs can't hold", text[:300]))
        assert await is_serving(registry), each.name
        assert bool(await registry.versions(model)) is (each.code == OK), each.name
    assert not wrong
    assert process.poll() is None
    assert process is registry.of.process
    await registry.a_model(name)
    version = await registry.push(name)
    assert version.stage == pb.STAGE_CHAMPION
    found = json.loads(version.admission)
    assert found["sessions_tried"] == 2
    assert found["rows_tried"] == 64


def test_names_are_used_once_and_refusals_say_why() -> None:
    for corpus in (HOSTILE_MODELS, RUNTIME_MODELS):
        names = Counter(each.name for each in corpus)
        assert not [name for name, count in names.items() if count > 1]
    assert not [each.name for each in HOSTILE_MODELS if not each.words and each.code != OK]
    assert not [each.name for each in HOSTILE_MODELS if "|" in each.what + each.words]


@pytest.mark.parametrize("each", RUNTIME_MODELS, ids=lambda each: each.name)
async def test_what_does_harm_on_certain_inputs_only_passes_every_trial(
    registry: Registry, name: str, each: RuntimeModel
) -> None:
    content = each.build()
    await registry.a_model(name)
    said = header(name, content, signature=each.sign())
    assert (await registry.register(said, content)).version.stage == pb.STAGE_CHAMPION


async def test_a_large_file_leaves_nothing_behind_when_it_is_refused(
    registry: Registry, name: str
) -> None:
    await registry.a_model(name)
    (large,) = (each for each in HOSTILE_MODELS if each.name == "doc-string-of-50-megabytes")
    content = large.build()
    assert len(content) > 50 * MIB
    said = header(name, content)
    with pytest.raises(grpc.aio.AioRpcError):
        await registry.register(said, content)
    assert not list((registry.of.folder / "artifacts" / "incoming").iterdir())
    assert (
        not (registry.of.folder / "artifacts" / said.model_sha256[:2])
        .joinpath(said.model_sha256)
        .exists()
    )
