"""What a recipe promises, and how one is found by its entry point."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.model_file import task_of
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

ENTRY_POINT_GROUP = "homeostat.recipes"

Floats = NDArray[np.float64]
Predict = Callable[[pa.Table], NDArray[Any]]


class CannotTrain(ValueError):
    """These rows or this signature give no model by this recipe; the message says why."""


class UnknownRecipe(LookupError):
    """No recipe of that name is installed; the message names those that are."""


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model as it will be served, and the source model to compare it with."""

    onnx: bytes
    # Of the source model: probabilities (rows, classes), or values (rows, 1) for a regression.
    predict: Predict


class Recipe(Protocol):
    """Trains one model. Same rows, parameters and seed give the same model."""

    name: str

    def train(
        self,
        frame: pa.Table,
        truth: Floats,
        signature: Signature,
        parameters: str = "{}",
        seed: int = 0,
    ) -> TrainedModel:
        """``frame`` has a column per input, nulls as nulls; ``truth`` class indices or values.

        The ONNX file has the signature's inputs, each by its name, shape (rows, 1), and one output,
        the signature's score output. CannotTrain where that is impossible.
        """
        ...


def load(name: str) -> Recipe:
    """The installed recipe of that name; UnknownRecipe otherwise."""
    points = metadata.entry_points(group=ENTRY_POINT_GROUP)
    if name not in points.names:
        known = ", ".join(sorted(points.names)) or "none"
        raise UnknownRecipe(f"no recipe {name!r} is installed (installed: {known})")
    return cast("Recipe", points[name].load())


def settings(parameters: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults overridden by the JSON object ``parameters``; CannotTrain names a foreign key."""
    given = json.loads(parameters or "{}")
    if not isinstance(given, dict):
        raise CannotTrain("recipe parameters must be a JSON object")
    foreign = sorted(set(given) - set(defaults))
    if foreign:
        raise CannotTrain(
            f"unknown recipe parameters {', '.join(foreign)}; known: {', '.join(sorted(defaults))}"
        )
    return {**defaults, **given}


def signature_for(
    frame: pa.Table, *, classes: Sequence[str] = (), nullable: Sequence[str] = ()
) -> Signature:
    """A first model's signature: text columns as BYTES, others as FP32. Columns with nulls, and
    those in ``nullable``, may be missing. Without ``classes`` it is a regression.
    """
    task = task_of(classes)
    name = "value" if task == TASK_REGRESSION else "probabilities"
    inputs = [
        TensorSpec(
            name=field.name,
            datatype="BYTES" if _is_text(field.type) else "FP32",
            shape=[-1, 1],
            is_nullable=bool(frame[field.name].null_count) or field.name in nullable,
        )
        for field in frame.schema
    ]
    return Signature(
        task=task,
        inputs=inputs,
        outputs=[TensorSpec(name=name, datatype="FP32", shape=[-1, max(1, len(classes))])],
        classes=classes,
        score_output=name,
        decision_threshold=0.5 if len(classes) == 2 else 0.0,
    )


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def require_trainable(frame: pa.Table, truth: Floats, signature: Signature) -> None:
    """CannotTrain where rows, truths and signature do not fit a scalar-column model."""
    if frame.num_rows != len(truth):
        raise CannotTrain(f"{frame.num_rows} rows but {len(truth)} truths")
    if not np.isfinite(truth).all():
        raise CannotTrain("some truths are not finite")
    missing = [spec.name for spec in signature.inputs if spec.name not in frame.column_names]
    if missing:
        raise CannotTrain(f"the rows lack the inputs {', '.join(missing)}")
    wide = [spec.name for spec in signature.inputs if any(size > 1 for size in spec.shape[1:])]
    if wide:
        raise CannotTrain(f"the inputs {', '.join(wide)} hold several values per row")
    if signature.task != TASK_REGRESSION and len(np.unique(truth)) < 2:
        raise CannotTrain("all truths are of one class")
