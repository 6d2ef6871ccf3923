"""What is served is what was trained: nulls, unseen texts, gridded numbers, every task."""

import numpy as np
import onnx
import pyarrow as pa
import pytest

from homeostat.registry.v1.registry_pb2 import Signature
from homeostat_retrainer.recipes import CannotTrain, UnknownRecipe, load, signature_for
from homeostat_retrainer.recipes.parity import TOLERANCE, require_parity, run_model

RECIPES = ["lightgbm", "sklearn"]
CLASSES = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"], "regression": []}


def rows(count: int, seed: int = 0, *, nulls: bool = True) -> pa.Table:
    random = np.random.default_rng(seed)
    # Gridded like weather: many values fall exactly on a tree's threshold.
    temperature = np.round(random.normal(50, 10, count) * 5) / 5 + 0.04
    colours = random.choice(["red", "green", "blue", "rare"], count, p=[0.5, 0.3, 0.19, 0.01])
    missing = random.random(count) < (0.1 if nulls else 0.0)
    return pa.table(
        {
            "temperature": pa.array(temperature.astype(np.float32), mask=missing),
            "pressure": pa.array(random.normal(1013, 8, count).astype(np.float32)),
            "colour": pa.array(colours, mask=random.random(count) < 0.05),
        }
    )


def truths(table: pa.Table, task: str) -> np.ndarray:
    heat = np.nan_to_num(table["temperature"].to_numpy(zero_copy_only=False).astype(float), nan=50)
    red = np.array([value == "red" for value in table["colour"].to_pylist()])
    value = (heat - 50) / 10 + red + np.random.default_rng(9).normal(0, 0.5, len(heat))
    if task == "regression":
        return value * 100
    return np.digitize(value, [0.5] if task == "binary" else [0.0, 1.0]).astype(float)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("task", CLASSES)
def test_the_onnx_file_says_what_the_model_says(recipe: str, task: str) -> None:
    table = rows(1500)
    signature = signature_for(table, classes=CLASSES[task], nullable=["pressure"])
    model = load(recipe).train(table, truths(table, task), signature)
    assert require_parity(model, rows(800, seed=1), signature) <= TOLERANCE


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_candidate_learns_something(recipe: str) -> None:
    table, later = rows(1500), rows(1500, seed=1)
    signature = signature_for(table, classes=CLASSES["binary"])
    model = load(recipe).train(table, truths(table, "binary"), signature)
    said = run_model(model.onnx, later, signature)[:, 1] >= 0.5
    assert (said == truths(later, "binary")).mean() > 0.75


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_file_has_raw_named_inputs_and_the_score_output_alone(recipe: str) -> None:
    table = rows(600)
    signature = signature_for(table, classes=CLASSES["binary"])
    graph = onnx.load_from_string(
        load(recipe).train(table, truths(table, "binary"), signature).onnx
    ).graph
    assert [each.name for each in graph.input] == table.column_names
    assert [each.name for each in graph.output] == ["probabilities"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_rows_give_the_same_file(recipe: str) -> None:
    table = rows(900)
    signature = signature_for(table, classes=CLASSES["binary"])
    train = load(recipe).train
    first, second = (train(table, truths(table, "binary"), signature).onnx for _ in range(2))
    assert first == second


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_null_where_training_had_none_is_served_like_the_model_says(recipe: str) -> None:
    table = rows(900, nulls=False)
    signature = signature_for(table, classes=CLASSES["binary"], nullable=["temperature"])
    model = load(recipe).train(table, truths(table, "binary"), signature)
    require_parity(model, rows(300, seed=2), signature)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_class_without_rows_is_never_likely(recipe: str) -> None:
    table = rows(900)
    signature = signature_for(table, classes=CLASSES["multiclass"])
    model = load(recipe).train(table, np.minimum(truths(table, "multiclass"), 1), signature)
    require_parity(model, table, signature)
    assert run_model(model.onnx, table, signature)[:, 2].max() < 1e-3


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("datatype", ["FP64", "INT64", "BOOL"])
def test_other_number_types_are_taken_raw(recipe: str, datatype: str) -> None:
    kind = {"FP64": pa.float64(), "INT64": pa.int64(), "BOOL": pa.bool_()}[datatype]
    table = rows(900)
    column = pa.array(np.arange(900) % 2).cast(kind)
    table = table.append_column("flag", column)
    signature = signature_for(table, classes=CLASSES["binary"])
    signature.inputs[-1].datatype = datatype
    model = load(recipe).train(table, truths(table, "binary"), signature)
    require_parity(model, table, signature)


def test_one_class_alone_is_no_training_set() -> None:
    table = rows(400)
    signature = signature_for(table, classes=CLASSES["binary"])
    with pytest.raises(CannotTrain, match="one class"):
        load("lightgbm").train(table, np.zeros(400), signature)


def test_a_foreign_parameter_is_named() -> None:
    table = rows(400)
    signature = signature_for(table, classes=CLASSES["binary"])
    with pytest.raises(CannotTrain, match="tress"):
        load("lightgbm").train(table, truths(table, "binary"), signature, '{"tress": 3}')


def test_an_unknown_recipe_names_those_that_are_installed() -> None:
    with pytest.raises(UnknownRecipe, match="lightgbm, sklearn"):
        load("prophet")


def test_a_missing_input_is_named() -> None:
    table = rows(400)
    signature: Signature = signature_for(table, classes=CLASSES["binary"])
    with pytest.raises(CannotTrain, match="colour"):
        load("lightgbm").train(table.drop_columns(["colour"]), np.arange(400.0) % 2, signature)
