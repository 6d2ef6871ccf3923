"""Model files that must not become versions, each with the cure; and that the judge stays."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from tests.integration.registry.harness import Registry, header
from tests.support import onnx_models
from tests.support.onnx_models import classifier, halves, model, signature, value
from tests.support.waiting import eventually

from homeostat.registry.v1 import registry_pb2 as pb


async def refusal(
    registry: Registry, name: str, content: bytes, said: pb.Signature | None = None
) -> str:
    """Why it was refused."""
    await registry.a_model(name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await registry.register(header(name, content, signature=said), content)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert await registry.versions(name) == []
    return str(caught.value.details())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: b"", "empty"),
        (lambda: classifier()[:-20], "cut or of another format"),
        (lambda: b"\x89PNG\r\n\x1a\n" + bytes(200), "cut or of another format"),
        (lambda: b"<html>not found</html>", "ONNX"),
        (lambda: model([]).SerializeToString(), "no graph"),
        (onnx_models.external_data, "external data"),
        (onnx_models.unknown_operator, "Unknown operator Frobnicate"),
        (onnx_models.foreign_domain, "com.microsoft"),
        (onnx_models.local_function, "local functions"),
        (onnx_models.false_initializer, "checker"),
        (onnx_models.across_rows, "alone and among others"),
        (onnx_models.random_answers, "differently each time"),
        (onnx_models.shape_bomb, "HOMEOSTAT_REGISTRY_ADMISSION_MEMORY_BYTES"),
        (lambda: halves(helper.make_node("Log", ["x"], ["s"])), "not finite"),
        (lambda: model([helper.make_node("Identity", ["x"], ["x2"])],
                       outputs=[value("x2")]).SerializeToString(), "no output 'probabilities'"),
        (lambda: model(_identity(), opsets=[helper.make_opsetid("", 99)]).SerializeToString(),
         "opset"),
        (lambda: model(_identity(), opsets=[helper.make_opsetid("", 3)]).SerializeToString(),
         "opset"),
        (lambda: model(_identity(), ir_version=99).SerializeToString(), "IR version"),
        (lambda: model(_identity()).SerializeToString(), "outside 0 to 1"),
    ],
)  # fmt: skip
async def test_a_bad_file_is_refused_with_its_cure(
    registry: Registry, name: str, make: Callable[[], bytes], words: str
) -> None:
    assert words in await refusal(registry, name, make())


def _identity() -> list[object]:
    return [helper.make_node("Concat", ["x", "z"], ["probabilities"], axis=1)]


@pytest.mark.parametrize(
    "mortal", [{"HOMEOSTAT_REGISTRY_ADMISSION_WALL_SECONDS": "1.5"}], indirect=True
)
async def test_an_endless_loop_is_killed_by_the_clock(mortal: Registry, name: str) -> None:
    began = time.monotonic()
    why = await refusal(mortal, name, onnx_models.endless())
    assert "did not finish its trial within 1.5 s" in why
    assert time.monotonic() - began < 15
    assert (await mortal.push(name)).stage == pb.STAGE_CHAMPION


async def test_a_model_that_kills_its_process_is_refused(registry: Registry, name: str) -> None:
    why = await refusal(registry, name, onnx_models.integer_division(), onnx_models.integers())
    assert "divides integers" in why
    assert (await registry.push(name)).stage == pb.STAGE_CHAMPION


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda said: setattr(said.inputs[0], "name", "other"), "'other'"),
        (lambda said: setattr(said.inputs[0], "datatype", "FP64"), "FP32 in the model but FP64"),
        (lambda said: said.inputs[0].shape.append(3), "shape"),
        (lambda said: said.inputs[0].shape.__setitem__(1, 4), "shape"),
        (lambda said: said.inputs.pop(), "lacks 'z'"),
        (lambda said: setattr(said.outputs[0], "name", "scores"), "score_output"),
        (lambda said: said.outputs[0].shape.__setitem__(1, 3), "shape"),
        (lambda said: said.classes.append("maybe"), "exactly 2"),
        (lambda said: setattr(said, "task", 0), "task"),
        (lambda said: setattr(said, "decision_threshold", float("nan")), "threshold"),
        (lambda said: said.inputs[0].shape.__setitem__(0, 1), "batch"),
        (lambda said: setattr(said.inputs[0], "name", "homeostat.id"), "homeostat."),
    ],
)
async def test_a_signature_that_is_not_the_models_is_refused(
    registry: Registry, name: str, change: Callable[[pb.Signature], object], words: str
) -> None:
    said = signature()
    change(said)
    assert words in await refusal(registry, name, classifier(), said)


async def test_nulls_are_tried_where_the_signature_allows_them(
    registry: Registry, name: str
) -> None:
    assert "not finite" in await refusal(registry, name, classifier(), signature(nullable=True))


async def test_the_judges_findings_stand_with_the_version(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    version = await registry.push(name)
    assert '"filtered_calls":true' in version.admission
    assert '"no_privileges":true' in version.admission
    assert '"operators":["Concat","MatMul","Softmax"]' in version.admission


async def test_a_scikit_learn_model_passes_and_its_zipmap_is_named(
    registry: Registry, name: str
) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 2)).astype(np.float32)
    fitted = LogisticRegression().fit(rows, (rows[:, 0] > 0).astype(np.int64))
    said = pb.Signature(
        task=1,
        inputs=[pb.TensorSpec(name="X", datatype="FP32", shape=[-1, 2])],
        outputs=[
            pb.TensorSpec(name="label", datatype="INT64", shape=[-1]),
            pb.TensorSpec(name="probabilities", datatype="FP32", shape=[-1, 2]),
        ],
        classes=["0", "1"],
        score_output="probabilities",
        decision_threshold=0.5,
    )
    good = to_onnx(fitted, rows[:1], options={"zipmap": False}, target_opset=17)
    await registry.a_model(name)
    version = (
        await registry.register(
            header(name, good.SerializeToString(), signature=said), good.SerializeToString()
        )
    ).version
    assert version.stage == pb.STAGE_CHAMPION
    zipped = to_onnx(fitted, rows[:1], target_opset=17).SerializeToString()
    said.outputs[1].name = said.score_output = "output_probability"
    said.outputs[0].name = "output_label"
    assert "ZipMap" in await refusal(registry, f"{name}-zipped", zipped, said)


async def test_strings_never_seen_and_missing_are_tried(registry: Registry, name: str) -> None:
    known = halves(
        helper.make_node(
            "LabelEncoder", ["carrier"], ["code"], domain="ai.onnx.ml",
            keys_strings=["AA", "UA"], values_floats=[1.0, 2.0], default_float=0.0,
        ),
        helper.make_node("Add", ["code", "z"], ["s"]),
        inputs=[value("carrier", TensorProto.STRING), value("z")],
        opsets=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)],
    )  # fmt: skip
    said = signature()
    said.inputs[0].name, said.inputs[0].datatype = "carrier", "BYTES"
    said.inputs[0].is_nullable = True
    await registry.a_model(name)
    answer = await registry.register(header(name, known, signature=said), known)
    assert answer.version.stage == pb.STAGE_CHAMPION


async def test_the_judge_comes_back_when_it_was_killed(registry: Registry, name: str) -> None:
    await registry.a_model(name)
    await registry.push(name)
    _judge_of(registry).kill()
    assert (await registry.push(name)).version == 2


async def test_the_judge_leaves_with_its_registry(mortal: Registry, name: str) -> None:
    await mortal.a_model(name)
    await mortal.push(name)
    judge = _judge_of(mortal)
    mortal.of.kill()
    await eventually(judge.is_gone, what="the judge leaves")
    mortal.of.start()
    await mortal.wait_ready()


class _Process:
    def __init__(self, pid: int) -> None:
        self.pid = pid

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def is_gone(self) -> bool:
        return not Path(f"/proc/{self.pid}").exists()


def _judge_of(registry: Registry) -> _Process:
    assert registry.of.process is not None
    parent = registry.of.process.pid
    pids = {
        int(pid)
        for task in Path(f"/proc/{parent}/task").iterdir()
        for pid in (task / "children").read_text().split()
    }
    assert len(pids) == 1, pids
    return _Process(pids.pop())
