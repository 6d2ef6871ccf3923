"""Boosted trees by LightGBM: numbers as they come, texts as codes by frequency, nulls as nulls."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import TASK_BINARY, TASK_MULTICLASS
from homeostat.model_file import to_array
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat_retrainer.recipes.contract import (
    CannotTrain,
    Floats,
    TrainedModel,
    require_trainable,
    settings,
)

# Careful trees: chosen on several public streams, see docs/decisions on the retraining policy.
DEFAULTS: dict[str, Any] = {
    "trees": 80,
    "num_leaves": 31,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.9,
    "lambda_l2": 0.0,
}
# Rare texts gain nothing and make the file large.
_MAX_CATEGORIES = 10_000
_UNKNOWN = -1
_THRESHOLDS = re.compile(r"^threshold=(.*)$", re.MULTILINE)
_TREE_SIZES = re.compile(r"^tree_sizes=.*\n", re.MULTILINE)

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Column:
    """How one input becomes a number."""

    spec: TensorSpec
    # Known texts, most frequent first; None for numbers.
    texts: Sequence[str] | None
    # What stands for a null if training saw none; None where trees know nulls by themselves.
    filler: float | None

    def values(self, table: pa.Table) -> Matrix:
        raw = to_array(table[self.spec.name], self.spec.datatype).reshape(-1)
        if self.texts is None:
            numbers = raw.astype(np.float32)
            if self.filler is not None:
                numbers = np.where(np.isnan(numbers), np.float32(self.filler), numbers)
            return numbers
        places = {text: place for place, text in enumerate(self.texts)}
        return np.fromiter(
            (places.get(text, _UNKNOWN) for text in raw), dtype=np.float32, count=len(raw)
        )


class LightGbm:
    """The recipe. Parameters: those of ``DEFAULTS``."""

    name = "lightgbm"

    def train(
        self,
        frame: pa.Table,
        truth: Floats,
        signature: Signature,
        parameters: str = "{}",
        seed: int = 0,
    ) -> TrainedModel:
        """One booster on one thread, and its ONNX file."""
        import lightgbm as lgb  # noqa: PLC0415 - seconds to import; only workers and users train

        require_trainable(frame, truth, signature)
        chosen = settings(parameters, DEFAULTS)
        trees = int(chosen.pop("trees"))
        columns = [_column(frame, spec) for spec in signature.inputs]
        data = lgb.Dataset(_matrix(columns, frame), truth, free_raw_data=True)
        # Without a fixed layout LightGBM times both and its sums, so its trees, vary by run.
        fixed = {
            "verbose": -1,
            "num_threads": 1,
            "seed": seed,
            "deterministic": True,
            "force_col_wise": True,
        }
        booster = lgb.train({**chosen, **_objective(signature), **fixed}, data, trees)
        booster = lgb.Booster(model_str=_floored(booster.model_to_string()))

        def predict(table: pa.Table) -> NDArray[Any]:
            raw = booster.predict(_matrix(columns, table), num_threads=1)
            return _probabilities(raw, signature)

        return TrainedModel(_to_onnx(booster, columns, signature), predict)


RECIPE = LightGbm()


def train(
    frame: pa.Table,
    truth: Floats,
    signature: Signature,
    parameters: str = "{}",
    seed: int = 0,
) -> TrainedModel:
    """The recipe as a function, for those who train a first model themselves."""
    return RECIPE.train(frame, truth, signature, parameters, seed)


def _objective(signature: Signature) -> dict[str, Any]:
    if signature.task == TASK_BINARY:
        return {"objective": "binary"}
    if signature.task == TASK_MULTICLASS:
        return {"objective": "multiclass", "num_class": len(signature.classes)}
    return {"objective": "regression"}


def _column(frame: pa.Table, spec: TensorSpec) -> _Column:
    if spec.datatype == "BYTES":
        counts = frame[spec.name].cast(pa.string()).combine_chunks().value_counts()
        pairs = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
        known = sorted((-count, text) for text, count in pairs if text)
        return _Column(spec, [text for _, text in known[:_MAX_CATEGORIES]], None)
    numbers = to_array(frame[spec.name], spec.datatype).reshape(-1).astype(np.float32)
    missing = np.isnan(numbers)
    if not spec.is_nullable or (missing.any() and not missing.all()):
        return _Column(spec, None, None)
    # LightGBM takes a null for 0 where training had none; the median is the better guess.
    return _Column(spec, None, 0.0 if missing.all() else float(np.median(numbers)))


def _matrix(columns: Sequence[_Column], table: pa.Table) -> Matrix:
    matrix = np.empty((table.num_rows, len(columns)), dtype=np.float32)
    for place, column in enumerate(columns):
        matrix[:, place] = column.values(table)
    return matrix


def _floored(model: str) -> str:
    """Thresholds as the greatest FP32 not above them: for FP32 values the same trees, and the same
    after the file has rounded them.
    """

    def floor(match: re.Match[str]) -> str:
        exact = np.array(match[1].split(), dtype=np.float64)
        with np.errstate(over="ignore"):
            rounded = exact.astype(np.float32)
        lower = np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded)
        return "threshold=" + " ".join(repr(float(each)) for each in lower)

    return _TREE_SIZES.sub("", _THRESHOLDS.sub(floor, model))


def _probabilities(raw: NDArray[Any], signature: Signature) -> NDArray[Any]:
    if signature.task == TASK_BINARY:
        return np.column_stack([1 - raw, raw])
    return np.asarray(raw).reshape(len(raw), -1)


def _to_onnx(booster: Any, columns: Sequence[_Column], signature: Signature) -> bytes:
    from onnxmltools.convert import convert_lightgbm  # noqa: PLC0415 - as above
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    from homeostat_retrainer.recipes.graph import Graph  # noqa: PLC0415

    trees = convert_lightgbm(
        booster,
        initial_types=[("features", FloatTensorType([None, len(columns)]))],
        zipmap=False,
        target_opset=15,
    ).graph
    graph = Graph()
    graph.add("Concat", [_as_number(graph, each) for each in columns], output="features", axis=1)
    (ensemble,) = [node for node in trees.node if node.op_type.startswith("TreeEnsemble")]
    # A classifier's first output is the label.
    ensemble.output[-1] = signature.score_output
    graph.append(ensemble)
    try:
        return graph.model(signature, len(signature.classes) or 1)
    except Exception as error:
        raise CannotTrain(f"the trees could not become an ONNX file: {error}") from error


def _as_number(graph: Any, column: _Column) -> str:
    if column.texts is not None:
        return str(graph.codes(column.spec, column.texts, unknown=_UNKNOWN))
    name = str(graph.as_float(column.spec))
    return name if column.filler is None else str(graph.fill(name, column.filler))
