"""Models in onnxruntime: loading, warming, measuring."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from homeostat.columns import DTYPES, datatype_of
from homeostat_inference.app.ports import Model
from homeostat_inference.domain.schema import Schema, Tensor
from homeostat_inference.domain.tensors import Array

# Rows of the warming runs: a single request, and what gathers under load.
_ONE, _MANY = 1, 64
_MEASURED_RUNS = 100
# Others are answered beside it: a load that takes long is felt by them.
_MEASURED_SECONDS = 0.01
_ORT_TYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
}


class UnfitModel(Exception):
    """The file is no model that this signature describes."""


class OnnxModel:
    """One session; its run releases the GIL and may be called from several threads."""

    def __init__(self, content: bytes, schema: Schema) -> None:
        """UnfitModel if onnxruntime refuses the file or its inputs and outputs differ."""
        import onnxruntime as ort  # noqa: PLC0415 - 0.3 s that a start without models saves

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise UnfitModel(f"onnxruntime refuses the model: {type(error).__name__}") from error
        self._inputs = [each.name for each in schema.inputs]
        self._outputs = [each.name for each in schema.outputs]
        _compare(self._session.get_inputs(), schema.inputs, "inputs")

    def run(self, inputs: Sequence[Array], options: Any = None) -> list[Array]:
        """All outputs, in the signature's order, for inputs in the signature's order."""
        answered: list[Array] = self._session.run(
            self._outputs, dict(zip(self._inputs, inputs, strict=True)), options
        )
        return answered


def _compare(found: Sequence[Any], expected: Sequence[Tensor], what: str) -> None:
    has = {each.name: _ORT_TYPES.get(each.type[len("tensor(") : -1], each.type) for each in found}
    wants = {each.name: each.datatype for each in expected}
    if has != wants:
        raise UnfitModel(f"the model's {what} are {has}, the signature's {wants}")


def warm(model: Model, schema: Schema) -> Callable[[int], float]:
    """Runs the model on generated rows, and says how long a run of so many rows takes: the 99th
    percentile in seconds of CPU, so that a busy machine makes no model slow. UnfitModel if it fails
    or answers anything but the signature's outputs.
    """
    try:
        _check_outputs(model.run(_rows(schema, _ONE)), schema, _ONE)
        one = _measured(model, _rows(schema, _ONE))
        many = _measured(model, _rows(schema, _MANY))
    except UnfitModel:
        raise
    except Exception as error:
        raise UnfitModel(f"the model fails on generated rows: {type(error).__name__}") from error
    per_row = max(0.0, many - one) / (_MANY - _ONE)
    return lambda rows: one + per_row * (rows - _ONE)


def _measured(model: Model, rows: list[Array]) -> float:
    seconds: list[float] = []
    deadline = time.monotonic() + _MEASURED_SECONDS
    while len(seconds) < _MEASURED_RUNS and time.monotonic() < deadline:
        # Sessions have one thread: the caller's.
        begun = time.thread_time()
        model.run(rows)
        seconds.append(time.thread_time() - begun)
    # The first run finds cold caches and asks for memory.
    return float(np.quantile(seconds[1:] or seconds, 0.99)) if seconds else _MEASURED_SECONDS


def _rows(schema: Schema, rows: int) -> list[Array]:
    return [_generated(each, (rows, *each.shape[1:])) for each in schema.inputs]


def _generated(tensor: Tensor, shape: tuple[int, ...]) -> Array:
    if tensor.datatype == "BYTES":
        texts = np.empty(shape, dtype=object)
        texts[...] = ""
        return texts
    return np.zeros(shape, dtype=DTYPES[tensor.datatype])


def _check_outputs(outputs: list[Array], schema: Schema, rows: int) -> None:
    for values, tensor in zip(outputs, schema.outputs, strict=True):
        got = datatype_of(values) if isinstance(values, np.ndarray) else type(values).__name__
        if got != tensor.datatype or values.ndim == 0 or len(values) != rows:
            raise UnfitModel(
                f"output {tensor.name!r}: expected {rows} rows of {tensor.datatype}, got {got}"
            )
