"""Other forms of small models: what they are, what they say, and why some have none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from tests.support import onnx_models
from tests.support.wide_models import Network, a_network

from homeostat.advise.forms import Form, Level, Variant, variants
from homeostat.advise.making import NotPossible, compiled, make
from homeostat.advise.making.graphs import finished
from homeostat.advise.running import load
from homeostat.advise.subject import CannotAdvise, Rows, rows_of

QUANTISED = [Form.INT8_STATIC, Form.INT8_BY_ROW, Form.INT8_DYNAMIC, Form.FLOAT16]


@pytest.fixture(scope="module")
def network() -> Network:
    return a_network(rows=600)


def rows(network: Network) -> Rows:
    return rows_of(network.table, network.signature, "made up")


def answers(content: bytes, feeds: Any, output: str = "answer") -> np.ndarray:
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], dict(feeds))[0])


def made(form: Form, content: bytes, folder: Path, calibration: Any = None) -> bytes:
    target = folder / "made.onnx"
    make(form, content, calibration or {}, target)
    return target.read_bytes()


@pytest.mark.parametrize("form", QUANTISED)
def test_a_network_says_nearly_the_same_in_every_form(
    form: Form, network: Network, tmp_path: Path
) -> None:
    taken = rows(network)
    content = made(form, network.content, tmp_path, taken.calibration)
    assert len(content) < 0.6 * len(network.content)
    difference = np.abs(answers(content, taken.judged) - answers(network.content, taken.judged))
    assert difference.max() < 0.02


@pytest.mark.parametrize("form", QUANTISED)
def test_every_form_keeps_inputs_and_outputs_and_is_what_the_registry_takes(
    form: Form, network: Network, tmp_path: Path
) -> None:
    content = made(form, network.content, tmp_path, rows(network).calibration)
    model = onnx.ModelProto.FromString(content)
    onnx.checker.check_model(model)
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx", "ai.onnx.ml"}
    original = onnx.ModelProto.FromString(network.content)
    for kind in ("input", "output"):
        mine, theirs = (
            {each.name: each.type.tensor_type.elem_type for each in getattr(of.graph, kind)}
            for of in (model, original)
        )
        assert mine == theirs


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_rows_keep_their_ranges_in_every_operator_set(
    opset: int, network: Network, tmp_path: Path
) -> None:
    model = onnx.ModelProto.FromString(network.content)
    model.opset_import[0].version = opset
    content = made(Form.INT8_BY_ROW, model.SerializeToString(), tmp_path)
    feeds = dict(rows(network).judged)
    # A row a thousand times as large beside the others changes nothing about them.
    loud = {name: values.copy() for name, values in feeds.items()}
    for values in loud.values():
        values[0] *= 1000
    assert np.array_equal(answers(content, feeds)[1:], answers(content, loud)[1:])


def test_a_product_with_transposed_weights_and_a_bias_is_quantised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 32)).astype(np.float32)
    bias = rng.normal(size=64).astype(np.float32)
    model = onnx_models.model(
        [helper.make_node("Gemm", ["x", "w", "b"], ["answer"], transB=1)],
        inputs=[onnx_models.value("x", shape=("N", 32))],
        outputs=[onnx_models.value("answer", shape=("N", 64))],
        initializers=[onnx_models.constant("w", weights), onnx_models.constant("b", bias)],
    ).SerializeToString()
    x = rng.normal(size=(10, 32)).astype(np.float32)
    x[3] = 0
    found = answers(made(Form.INT8_BY_ROW, model, tmp_path), {"x": x})
    assert np.abs(found - (x @ weights.T + bias)).max() < 0.2
    assert np.allclose(found[3], bias)


def test_where_nothing_gains_from_smaller_numbers_it_is_said(tmp_path: Path) -> None:
    content = onnx_models.halves(helper.make_node("Add", ["x", "z"], ["s"]))
    for form in QUANTISED:
        with pytest.raises(NotPossible, match="no matrix product"):
            made(form, content, tmp_path)
    with pytest.raises(NotPossible, match="at least 1024"):
        made(Form.INT8_BY_ROW, onnx_models.classifier(), tmp_path)


def test_weights_beyond_float16_are_told(tmp_path: Path) -> None:
    with pytest.raises(NotPossible, match="beyond 65504"):
        made(Form.FLOAT16, onnx_models.classifier(1e6), tmp_path)


def test_calibration_rows_without_numbers_make_no_silent_nonsense(
    network: Network, tmp_path: Path
) -> None:
    empty = {
        name: np.full_like(values, np.nan) for name, values in rows(network).calibration.items()
    }
    try:
        content = made(Form.INT8_STATIC, network.content, tmp_path, empty)
    except NotPossible:
        return
    # Made all the same: then the comparison has to see it.
    feeds = rows(network).judged
    assert np.abs(answers(content, feeds) - answers(network.content, feeds)).max() > 0.02


def test_nodes_are_put_in_order() -> None:
    model = onnx.ModelProto.FromString(onnx_models.classifier())
    turned = list(
        reversed([type(each).FromString(each.SerializeToString()) for each in model.graph.node])
    )
    del model.graph.node[:]
    model.graph.node.extend(turned)
    kinds = [each.op_type for each in onnx.ModelProto.FromString(finished(model)).graph.node]
    assert kinds == ["Concat", "MatMul", "Softmax"]


def test_operators_that_no_standard_has_are_refused() -> None:
    model = onnx.ModelProto.FromString(onnx_models.foreign_domain())
    with pytest.raises(NotPossible, match=r"com\.microsoft"):
        finished(model)


def _trees(kind: str, classes: int) -> tuple[bytes, np.ndarray, str]:
    from skl2onnx import to_onnx  # noqa: PLC0415 - slow to import, not needed by most tests
    from sklearn.ensemble import (  # noqa: PLC0415 - as above
        GradientBoostingRegressor,
        RandomForestClassifier,
    )

    rng = np.random.default_rng(0)
    values = rng.normal(size=(400, 5)).astype(np.float32)
    if kind == "regression":
        model = GradientBoostingRegressor(n_estimators=20).fit(values, values[:, 0] * values[:, 1])
        return to_onnx(model, values[:1], target_opset=17).SerializeToString(), values, "variable"
    truths = (np.abs(values[:, 0]) * classes / 3).astype(int).clip(0, classes - 1)
    model = RandomForestClassifier(n_estimators=10, max_depth=5, random_state=0).fit(values, truths)
    made = to_onnx(model, values[:1], options={"zipmap": False}, target_opset=17)
    return made.SerializeToString(), values, "probabilities"


def _boosted(classes: int) -> tuple[bytes, np.ndarray, str]:
    import lightgbm  # noqa: PLC0415 - slow to import
    from onnxmltools import convert_lightgbm  # noqa: PLC0415 - as above
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415 - as above

    rng = np.random.default_rng(0)
    values = rng.normal(size=(600, 5)).astype(np.float32)
    values[rng.random(values.shape) < 0.1] = np.nan
    truths = (np.nan_to_num(np.abs(values[:, 0])) * classes / 2).astype(int).clip(0, classes - 1)
    model = lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1).fit(values, truths)
    made = convert_lightgbm(
        model, initial_types=[("X", FloatTensorType([None, 5]))], zipmap=False, target_opset=15
    )
    return made.SerializeToString(), values, "probabilities"


TREES = {
    "forest of two classes": lambda: _trees("classification", 2),
    "forest of three classes": lambda: _trees("classification", 3),
    "boosted regression": lambda: _trees("regression", 0),
    "boosted, two classes, nulls": lambda: _boosted(2),
    "boosted, three classes, nulls": lambda: _boosted(3),
}


@pytest.mark.parametrize("kind", TREES)
def test_compiled_trees_say_what_onnxruntime_says(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("tl2cgen")
    if not any(compiled.shutil.which(each) for each in ("gcc", "clang")):
        pytest.skip("no C compiler: install gcc")
    content, values, output = TREES[kind]()
    make(Form.COMPILED, content, {}, tmp_path / "trees")
    running = load(Variant("compiled", "", form=Form.COMPILED), tmp_path / "trees", output)
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run([output], {session.get_inputs()[0].name: values})[0])
    found = running.run({session.get_inputs()[0].name: values})
    assert np.allclose(found.reshape(wanted.shape), wanted, atol=1e-5)


def test_without_a_compiler_it_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotPossible, match="no C compiler on this machine"):
        make(Form.COMPILED, onnx_models.classifier(), {}, tmp_path / "trees")


def test_threads_are_tried_up_to_the_cores_there_are() -> None:
    def counts(cores: int) -> list[int]:
        return [each.threads for each in variants(cores) if each.threads > 1]

    assert counts(1) == []
    assert counts(2) == [2]
    assert counts(6) == [2, 4, 6]
    assert counts(8) == [2, 4, 8]
    names = [each.name for each in variants(4)]
    assert len(set(names)) == len(names)
    assert names[0] == "present"
    assert {each.level for each in variants(1)} == set(Level)


def test_no_row_judges_what_it_calibrated(network: Network) -> None:
    taken = rows(network)
    assert taken.calibration_count == 120
    assert taken.count == 480
    first = network.table["x0"].to_numpy()
    assert np.array_equal(taken.calibration["x0"][:, 0], first[:120])
    assert np.array_equal(taken.judged["x0"][:, 0], first[120:])
    again = rows_of(network.table, network.signature, "made up")
    assert again.sha256 == taken.sha256
    other = rows_of(network.table.slice(0, 599), network.signature, "made up")
    assert other.sha256 != taken.sha256


def test_too_few_rows_and_missing_inputs_are_told(network: Network) -> None:
    with pytest.raises(CannotAdvise, match="1 rows are too few"):
        rows_of(network.table.slice(0, 1), network.signature, "the ledger")
    with pytest.raises(CannotAdvise, match="lack the model's inputs x0"):
        rows_of(network.table.drop_columns(["x0"]), network.signature, "the ledger")


def test_a_plan_of_compiled_trees_is_plain_json(tmp_path: Path) -> None:
    pytest.importorskip("tl2cgen")
    if not any(compiled.shutil.which(each) for each in ("gcc", "clang")):
        pytest.skip("no C compiler: install gcc")
    content, _, _ = _trees("regression", 0)
    make(Form.COMPILED, content, {}, tmp_path / "trees")
    said = json.loads((tmp_path / "trees" / compiled.PLAN).read_text())
    assert said["transform"] == "NONE"
    assert not said["has_prefix"]
