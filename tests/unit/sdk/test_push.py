"""What a push makes of a file: guesses are asked about, bad values are refused before sending."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper
from tests.support.onnx_models import classifier, constant, model, value

from homeostat.events.v1.column_pb2 import TASK_BINARY, TASK_REGRESSION
from homeostat.history import BadHistory, Columns, import_requests
from homeostat.push import Prepared, Push, prepare

ROWS = 6
TIMES = [datetime(2020, 1, 1 + row, tzinfo=UTC) for row in range(ROWS)]
LABELS = ["no", "yes", "no", "yes", "no", "yes"]


def prepared(
    folder: Path, columns: dict[str, Any] | None = None, file: bytes = b"", **told: Any
) -> Prepared:
    floats = pa.array([0.5] * ROWS, pa.float32())
    table = {"x": floats, "z": floats, "truth": LABELS, "time": TIMES, **(columns or {})}
    pq.write_table(pa.table(table), folder / "history.parquet")
    (folder / "model.onnx").write_bytes(file or classifier())
    return prepare(
        Push(
            model_name="m",
            model_path=folder / "model.onnx",
            history_path=folder / "history.parquet",
            columns=told.pop("mapping", Columns("truth", "time")),
            **told,
        )
    )


def reads(
    kind: int, shape: tuple[int | str, ...] = ("N", 1), width: int = 1, name: str = "x"
) -> bytes:
    """A model with one input of that kind and one value."""
    nodes = [
        helper.make_node("Cast", [name], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "weights"], ["value"]),
    ]
    if kind == TensorProto.STRING:
        nodes = [
            helper.make_node("Equal", [name, "word"], ["e"]),
            helper.make_node("Cast", ["e"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "weights"], ["value"]),
        ]
    return onnx.ModelProto.SerializeToString(
        model(
            nodes,
            inputs=[value(name, kind, shape)],
            outputs=[value("value", shape=("N", 1))],
            initializers=[
                constant("weights", np.ones((width, 1), np.float32)),
                constant("word", np.array(["a"], dtype=object)),
            ][: 2 if kind == TensorProto.STRING else 1],
            opsets=[helper.make_opsetid("", 19)],
            ir_version=9,
        )
    )


VALUES = {"truth": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]}


def test_texts_are_classes_and_fractions_are_values(tmp_path: Path) -> None:
    assert prepared(tmp_path).signature.task == TASK_BINARY
    regression = prepared(tmp_path, VALUES, reads(TensorProto.FLOAT))
    assert regression.signature.task == TASK_REGRESSION


@pytest.mark.parametrize("truth", [[0.0, 1.0] * 3, [1.0, 2.0, 3.0] * 2])
def test_a_float_truth_of_few_whole_numbers_is_asked_about(
    tmp_path: Path, truth: list[float]
) -> None:
    with pytest.raises(BadHistory, match=r"classes or values\? say --task .* --classes"):
        prepared(tmp_path, {"truth": truth})


def test_an_integer_truth_of_many_numbers_is_asked_about(tmp_path: Path) -> None:
    rows = 30
    columns = {
        "x": [0.0] * rows, "z": [0.0] * rows, "truth": list(range(rows)), "time": TIMES[:1] * rows,
    }  # fmt: skip
    with pytest.raises(BadHistory, match="--task"):
        prepared(tmp_path, columns)
    found = prepared(tmp_path, columns, reads(TensorProto.FLOAT), task="regression")
    assert found.signature.task == TASK_REGRESSION
    assert not found.signature.classes


def test_a_told_task_settles_what_a_float_truth_means(tmp_path: Path) -> None:
    columns = {"truth": [0.0, 1.0] * 3}
    found = prepared(tmp_path, columns, task="binary")
    assert list(found.signature.classes) == ["0", "1"]
    assert list(found.history.truths(["0", "1"])) == columns["truth"]
    named = prepared(tmp_path, columns, classes=("0", "1"))
    assert named.signature.task == TASK_BINARY
    values = prepared(tmp_path, columns, reads(TensorProto.FLOAT), task="regression")
    assert values.signature.task == TASK_REGRESSION


def test_a_task_that_the_truth_contradicts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadHistory, match="--classes"):
        prepared(tmp_path, task="multiclass")
    with pytest.raises(BadHistory, match="a regression needs numbers"):
        prepared(tmp_path, task="regression", file=reads(TensorProto.FLOAT))
    with pytest.raises(BadHistory, match="none of binary, multiclass, regression"):
        prepared(tmp_path, task="ranking")
    with pytest.raises(BadHistory, match="1 classes"):
        prepared(tmp_path, {"truth": ["no"] * ROWS})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None])
def test_a_truth_that_is_no_number_is_refused_before_anything_is_sent(
    tmp_path: Path, bad: float | None
) -> None:
    columns = {"truth": [bad, 1.5, 2.5, 3.5, 4.5, 5.5]}
    with pytest.raises(BadHistory, match="1 rows have no"):
        prepared(tmp_path, columns, reads(TensorProto.FLOAT))


@pytest.mark.parametrize("bad", [float("nan"), 0.5, 1e30, None])
def test_what_an_integer_input_cannot_hold_is_refused_by_name(
    tmp_path: Path, bad: float | None
) -> None:
    columns = {**VALUES, "x": pa.array([bad, 1.0, 2.0, 3.0, 4.0, 5.0], pa.float64())}
    with pytest.raises(BadHistory, match="the column 'x'"):
        prepared(tmp_path, columns, reads(TensorProto.INT64))


def test_whole_floats_fit_an_integer_input(tmp_path: Path) -> None:
    columns = {**VALUES, "x": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]}
    assert prepared(tmp_path, columns, reads(TensorProto.INT64)).signature.inputs[0].name == "x"


def test_nan_and_empty_texts_make_an_input_nullable(tmp_path: Path) -> None:
    floats = {**VALUES, "x": [float("nan"), 1.0, 2.0, 3.0, 4.0, 5.0]}
    assert prepared(tmp_path, floats, reads(TensorProto.FLOAT)).signature.inputs[0].is_nullable
    texts = {**VALUES, "x": ["", "a", "b", "a", "b", "a"]}
    assert prepared(tmp_path, texts, reads(TensorProto.STRING)).signature.inputs[0].is_nullable
    whole = {**VALUES, "x": ["a", "a", "b", "a", "b", "a"]}
    assert not prepared(tmp_path, whole, reads(TensorProto.STRING)).signature.inputs[0].is_nullable


@pytest.mark.parametrize("factor", [1, 1_000, 1_000_000_000])
def test_times_in_another_unit_are_refused_with_a_hint(tmp_path: Path, factor: int) -> None:
    seconds = int(TIMES[0].timestamp())
    with pytest.raises(BadHistory, match="are they microseconds"):
        prepared(tmp_path, {"time": [seconds * factor] * ROWS})
    assert prepared(tmp_path, {"time": [seconds * 1_000_000] * ROWS}).history.table.num_rows == ROWS


def test_a_wide_input_takes_a_list_column_and_says_what_that_costs(tmp_path: Path) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(18, dtype=np.float32)), 3)
    file = reads(TensorProto.FLOAT, ("N", 3), width=3)
    found = prepared(tmp_path, {**VALUES, "x": lists}, file)
    assert list(found.signature.inputs[0].shape) == [-1, 3]
    assert any("can't retrain" in sentence for sentence in found.missing)
    rows = list(import_requests(found.history, found.signature))[1].rows
    assert rows.inputs[0].width == 3
    assert np.frombuffer(rows.inputs[0].values, np.float32).tolist() == list(range(18))
    plain = pa.array(np.arange(18).reshape(6, 3).tolist())
    assert prepared(tmp_path, {**VALUES, "x": plain}, file).profile


def test_a_wide_input_of_open_width_takes_that_of_the_lists(tmp_path: Path) -> None:
    lists = pa.array([[1.0, 2.0, 3.0]] * ROWS)
    found = prepared(
        tmp_path, {**VALUES, "x": lists}, reads(TensorProto.FLOAT, ("N", "M"), width=3)
    )
    assert list(found.signature.inputs[0].shape) == [-1, 3]


@pytest.mark.parametrize("name", ["x", "float_input"])
def test_a_wide_input_without_lists_is_refused_with_the_cure(tmp_path: Path, name: str) -> None:
    file = reads(TensorProto.FLOAT, ("N", 3), width=3, name=name)
    with pytest.raises(BadHistory, match=r"one named input per column .*, or a list column"):
        prepared(tmp_path, VALUES, file)
    with pytest.raises(BadHistory, match="not every list"):
        prepared(tmp_path, {**VALUES, name: [[1.0]] + [[1.0, 2.0, 3.0]] * 5}, file)


def test_a_history_is_known_by_content_and_mapping_alone(tmp_path: Path) -> None:
    losses = {"loss": [0.0] * ROWS}
    first = prepared(tmp_path, losses)
    told_more = prepared(
        tmp_path, losses, mapping=Columns("truth", "time", holdout_loss="loss"), nullable=("x",)
    )
    assert told_more.history.history_id == first.history.history_id
    other = prepared(tmp_path, losses, mapping=Columns("truth", "time", contexts=("loss",)))
    assert other.history.history_id != first.history.history_id
