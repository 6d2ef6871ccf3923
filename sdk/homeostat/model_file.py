"""What a model file says of itself, and what it says of rows. Needs the extra homeostat[push]."""

import math
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from homeostat.columns import DTYPES
from homeostat.events.v1.column_pb2 import (
    TASK_BINARY,
    TASK_MULTICLASS,
    TASK_REGRESSION,
    Task,
)
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_BATCH_ROWS = 8192


class BadModelFile(ValueError):
    """The file can't be served as it is; the message names the cure."""


class _Argument(Protocol):
    name: str
    type: str
    shape: Sequence[int | str | None]


class ModelFile:
    """An ONNX model in memory, run on one thread."""

    def __init__(self, source: Path | bytes) -> None:
        """Loads a file, or its content; BadModelFile where onnxruntime does not take it."""
        name = str(source) if isinstance(source, Path) else "the model"
        try:
            import onnxruntime as ort  # noqa: PLC0415 - an extra; most commands do without
        except ImportError as error:
            raise BadModelFile(
                "reading a model needs onnxruntime: pip install 'homeostat[push]'"
            ) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.content = source.read_bytes() if isinstance(source, Path) else source
        if not self.content:
            raise BadModelFile(f"{name} is empty; export the model again")
        try:
            self._session = ort.InferenceSession(
                self.content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise BadModelFile(f"onnxruntime does not load {name}: {error}") from error

    def inputs(
        self, nullable: Set[str], widths: Mapping[str, int] | None = None
    ) -> list[TensorSpec]:
        """The model's inputs; those in ``nullable`` may be missing. ``widths`` says how many values
        a row has where the file leaves it open."""
        specs = [
            _spec(each, is_nullable=each.name in nullable) for each in self._session.get_inputs()
        ]
        for spec in specs:
            if len(spec.shape) == 2 and spec.shape[1] < 0:
                spec.shape[1] = (widths or {}).get(spec.name, -1)
        return specs

    def outputs(self) -> list[TensorSpec]:
        """The model's outputs."""
        return [_spec(each, is_nullable=False) for each in self._session.get_outputs()]

    def scores(self, table: pa.Table, signature: Signature) -> NDArray[Any]:
        """The score output for each row of ``table`` (columns by input name)."""
        parts = [
            self._session.run(
                [signature.score_output], feeds(table.slice(start, _BATCH_ROWS), signature)
            )[0]
            for start in range(0, table.num_rows, _BATCH_ROWS)
        ]
        return np.concatenate([np.asarray(part).reshape(len(part), -1) for part in parts])


def feeds(table: pa.Table, signature: Signature) -> Mapping[str, NDArray[Any]]:
    """Input arrays as the model wants them; nulls become NaN or ""."""
    return {
        spec.name: to_rows(table[spec.name], spec).reshape(
            table.num_rows, *(max(1, size) for size in spec.shape[1:])
        )
        for spec in signature.inputs
    }


def width_of(spec: TensorSpec) -> int:
    """How many values a row has."""
    return math.prod(max(1, size) for size in spec.shape[1:])


def to_rows(column: pa.ChunkedArray, spec: TensorSpec) -> NDArray[Any]:
    """An input's column, shape (rows,) or, from lists, (rows, width); BadModelFile where it does
    not fit the input."""
    width = width_of(spec)
    if width == 1 and not is_list(column.type):
        return to_array(column, spec.datatype)
    if not is_list(column.type):
        raise BadModelFile(
            f"the model takes {width} values per row and the column holds one; give one named "
            f"input per column (export the model so), or a list column of {width}"
        )
    lengths = pc.fill_null(pc.list_value_length(column), 0)
    if len(column) and pc.min_max(lengths).as_py() != {"min": width, "max": width}:
        raise BadModelFile(f"the model takes {width} values per row; not every list has as many")
    return to_array(pc.list_flatten(column), spec.datatype).reshape(-1, width)


def is_list(datatype: pa.DataType) -> bool:
    """Whether a column of this type holds several values per row."""
    return bool(
        pa.types.is_list(datatype)
        or pa.types.is_large_list(datatype)
        or pa.types.is_fixed_size_list(datatype)
    )


def to_array(column: pa.ChunkedArray, datatype: str) -> NDArray[Any]:
    """A column in the protocol's datatype; nulls become NaN or "". BadModelFile where it can't be:
    nulls or NaN elsewhere, fractions or too large numbers for integers."""
    try:
        return _strings(column) if datatype == "BYTES" else _numbers(column, DTYPES[datatype])
    except pa.ArrowException as error:
        raise BadModelFile(f"{column.type} values don't fit a {datatype} input: {error}") from error


def _strings(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    strings = column.cast(pa.string()).fill_null("")
    return np.asarray(strings.to_numpy(zero_copy_only=False), dtype=object)


def _numbers(column: pa.ChunkedArray, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        column = column.cast(pa.float64()).fill_null(float("nan"))
        return np.asarray(column.to_numpy(zero_copy_only=False)).astype(dtype)
    nulls = column.null_count
    if pa.types.is_floating(column.type):
        nulls += int(pc.sum(pc.is_nan(column)).as_py() or 0)
    if nulls:
        raise BadModelFile(
            f"an input of the kind {dtype.name} can't hold the {nulls} nulls it gets; "
            "leave those rows out, or export the model with a float input"
        )
    # Safe: Arrow refuses what would be cut off.
    column = column.cast(pa.from_numpy_dtype(dtype))
    return np.asarray(column.to_numpy(zero_copy_only=False)).astype(dtype)


def _spec(argument: _Argument, *, is_nullable: bool) -> TensorSpec:
    datatype = _DATATYPES.get(argument.type)
    if datatype is None:
        raise BadModelFile(
            f"{argument.name!r} is a {argument.type}; only tensors can be served "
            "(scikit-learn converters: turn ZipMap off)"
        )
    shape = [size if isinstance(size, int) and size > 0 else -1 for size in argument.shape or [-1]]
    return TensorSpec(
        name=argument.name, datatype=datatype, shape=[-1, *shape[1:]], is_nullable=is_nullable
    )


def task_of(classes: Sequence[str]) -> "Task.ValueType":
    """Regression without classes, binary with two, multiclass with more."""
    if not classes:
        return TASK_REGRESSION
    return TASK_BINARY if len(classes) == 2 else TASK_MULTICLASS


def signature_of(
    model: ModelFile,
    *,
    classes: Sequence[str],
    nullable: Set[str],
    widths: Mapping[str, int] | None = None,
    score_output: str | None = None,
    decision_threshold: float = 0.5,
) -> Signature:
    """The signature that the file and the user's words give; BadModelFile where they don't fit."""
    outputs = model.outputs()
    return Signature(
        task=task_of(classes),
        inputs=model.inputs(nullable, widths),
        outputs=outputs,
        classes=classes,
        score_output=score_output or _find_score_output(outputs, len(classes)),
        decision_threshold=decision_threshold if len(classes) == 2 else 0.0,
    )


def _find_score_output(outputs: Sequence[TensorSpec], class_count: int) -> str:
    widths = {class_count, 1, -1} if class_count == 2 else {max(1, class_count), -1}
    floats = [
        each
        for each in outputs
        if each.datatype in ("FP32", "FP64", "FP16")
        and (each.shape[1] if len(each.shape) > 1 else 1) in widths
    ]
    exact = [each for each in floats if len(each.shape) > 1 and each.shape[1] == class_count]
    found = exact or floats
    if len(found) != 1:
        names = ", ".join(each.name for each in outputs)
        raise BadModelFile(
            f"can't tell which output holds the {'probabilities' if class_count else 'value'}; "
            f"name one with --score-output (outputs: {names})"
        )
    return found[0].name
