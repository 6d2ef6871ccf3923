"""A linear model by scikit-learn: nulls imputed, numbers scaled, texts one-hot.

Written as ONNX by hand: a weighted sum of numbers and one table look-up per text column.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.model_file import to_array
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat_retrainer.recipes.contract import (
    CannotTrain,
    Floats,
    TrainedModel,
    require_trainable,
    settings,
)

DEFAULTS: dict[str, Any] = {"inverse_penalty": 1.0, "max_iterations": 300, "rarest_rows": 5}
# For a class that the training rows do not have: e^-40 is nothing beside any other.
_NEVER = -40.0


@dataclass(frozen=True, slots=True)
class _Linear:
    """Scores = filled and scaled numbers @ weights + one table row per text + bias."""

    numbers: Sequence[TensorSpec]
    texts: Mapping[str, Sequence[str]]
    medians: Floats
    means: Floats
    scales: Floats
    weights: Floats
    # Per text column: a row per known text and a last one, zeros, for all others.
    tables: Mapping[str, Floats]
    bias: Floats


class SklearnLinear:
    """The recipe: logistic regression, or ridge for values. Parameters: those of ``DEFAULTS``."""

    name = "sklearn"

    def train(
        self,
        frame: pa.Table,
        truth: Floats,
        signature: Signature,
        parameters: str = "{}",
        seed: int = 0,
    ) -> TrainedModel:
        """One linear model on one thread, and its ONNX file."""
        require_trainable(frame, truth, signature)
        chosen = settings(parameters, DEFAULTS)
        numbers = [spec for spec in signature.inputs if spec.datatype != "BYTES"]
        texts = {
            spec.name: _frequent(frame, spec, int(chosen["rarest_rows"]))
            for spec in signature.inputs
            if spec.datatype == "BYTES"
        }
        pipeline = _pipeline(signature, chosen, len(numbers), list(texts.values()), seed)
        with warnings.catch_warnings():
            # Not converging in the given steps still gives a model; the gate judges it.
            warnings.simplefilter("ignore")
            pipeline.fit(_matrix(frame, numbers, texts), truth)
        model = _linear(pipeline, numbers, texts, signature)

        def predict(table: pa.Table) -> NDArray[Any]:
            return _predict(pipeline, _matrix(table, numbers, texts), signature)

        return TrainedModel(_to_onnx(model, signature), predict)


RECIPE = SklearnLinear()


def _frequent(frame: pa.Table, spec: TensorSpec, rarest_rows: int) -> Sequence[str]:
    counts = frame[spec.name].cast(pa.string()).combine_chunks().value_counts()
    pairs = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
    return sorted(text for text, count in pairs if text and count >= rarest_rows)


def _matrix(
    table: pa.Table, numbers: Sequence[TensorSpec], texts: Mapping[str, Sequence[str]]
) -> NDArray[np.float64]:
    """Numbers as they are, then the code of each text, -1 where unknown."""
    columns = [
        to_array(table[spec.name], spec.datatype).reshape(-1).astype(np.float32) for spec in numbers
    ]
    for name, known in texts.items():
        places = {text: place for place, text in enumerate(known)}
        raw = to_array(table[name], "BYTES").reshape(-1)
        columns.append(np.array([places.get(text, -1) for text in raw], dtype=np.float32))
    matrix: NDArray[np.float64] = np.column_stack(columns).astype(np.float64)
    return matrix


def _pipeline(
    signature: Signature,
    chosen: Mapping[str, Any],
    numbers: int,
    texts: Sequence[Sequence[str]],
    seed: int,
) -> Any:
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415 - seconds to import
    from sklearn.impute import SimpleImputer  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression, Ridge  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import OneHotEncoder, StandardScaler  # noqa: PLC0415

    scaled = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()
    )
    one_hot = OneHotEncoder(
        categories=[np.arange(len(known), dtype=np.float64) for known in texts],
        handle_unknown="ignore",
    )
    parts = [("numbers", scaled, list(range(numbers)))] if numbers else []
    if texts:
        parts.append(("texts", one_hot, list(range(numbers, numbers + len(texts)))))
    strength = float(chosen["inverse_penalty"])
    model = (
        Ridge(alpha=1 / strength)
        if signature.task == TASK_REGRESSION
        else LogisticRegression(
            C=strength, max_iter=int(chosen["max_iterations"]), random_state=seed
        )
    )
    return make_pipeline(ColumnTransformer(parts, sparse_threshold=0.0), model)


def _scores(pipeline: Any, signature: Signature) -> tuple[Floats, Floats]:
    """Coefficients (features, outputs) and bias of every class of the signature."""
    model = pipeline[-1]
    coefficients = np.atleast_2d(model.coef_).T
    bias = np.atleast_1d(model.intercept_).astype(np.float64)
    if signature.task == TASK_REGRESSION:
        return coefficients, bias
    if coefficients.shape[1] == 1:
        coefficients = np.hstack([np.zeros_like(coefficients), coefficients])
        bias = np.array([0.0, bias[0]])
    seen = model.classes_.astype(np.int64)
    whole = np.zeros((len(coefficients), len(signature.classes)))
    whole[:, seen] = coefficients
    biases = np.full(len(signature.classes), _NEVER)
    biases[seen] = bias
    return whole, biases


def _linear(
    pipeline: Any,
    numbers: Sequence[TensorSpec],
    texts: Mapping[str, Sequence[str]],
    signature: Signature,
) -> _Linear:
    coefficients, bias = _scores(pipeline, signature)
    medians, means, scales = (np.zeros(0) for _ in range(3))
    if numbers:
        scaled = pipeline[0].named_transformers_["numbers"]
        medians, means, scales = scaled[0].statistics_, scaled[1].mean_, scaled[1].scale_
    tables = {}
    start = len(numbers)
    for name, known in texts.items():
        rows = coefficients[start : start + len(known)]
        tables[name] = np.vstack([rows, np.zeros((1, coefficients.shape[1]))])
        start += len(known)
    weights = coefficients[: len(numbers)]
    return _Linear(numbers, texts, medians, means, scales, weights, tables, bias)


def _predict(pipeline: Any, matrix: Floats, signature: Signature) -> NDArray[Any]:
    if signature.task == TASK_REGRESSION:
        return np.asarray(pipeline.predict(matrix)).reshape(-1, 1)
    given = pipeline.predict_proba(matrix)
    whole = np.zeros((len(given), len(signature.classes)))
    whole[:, pipeline[-1].classes_.astype(np.int64)] = given
    return whole


def _to_onnx(model: _Linear, signature: Signature) -> bytes:
    from onnx import TensorProto  # noqa: PLC0415 - only workers and users train

    from homeostat_retrainer.recipes.graph import Graph  # noqa: PLC0415

    graph = Graph()
    # In FP64: a small spread around a great mean would lose its digits in FP32.
    total = graph.constant(model.bias.reshape(1, -1))
    parts = []
    for place, spec in enumerate(model.numbers):
        filled = graph.fill(graph.as_float(spec), float(model.medians[place]))
        exact = graph.add("Cast", [filled], to=TensorProto.DOUBLE)
        slope = model.weights[place] / model.scales[place]
        centred = graph.add("Sub", [exact, graph.constant(np.array(model.means[place]))])
        parts.append(graph.add("Mul", [centred, graph.constant(slope.reshape(1, -1))]))
    for name, known in model.texts.items():
        spec = next(each for each in signature.inputs if each.name == name)
        code = graph.codes(spec, known, unknown=len(known))
        index = graph.add("Cast", [code], to=TensorProto.INT64)
        flat = graph.add("Squeeze", [index, graph.constant(np.array([1]))])
        parts.append(graph.add("Gather", [graph.constant(model.tables[name]), flat], axis=0))
    for part in parts:
        total = graph.add("Add", [total, part])
    if signature.task != TASK_REGRESSION:
        total = graph.add("Softmax", [total], axis=1)
    graph.add("Cast", [total], output=signature.score_output, to=TensorProto.FLOAT)
    try:
        return graph.model(signature, max(1, len(signature.classes)))
    except Exception as error:
        raise CannotTrain(f"the model could not become an ONNX file: {error}") from error
