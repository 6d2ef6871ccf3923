"""A form loaded and ready to answer, in the child process that measures it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from homeostat.advise.forms import Form, Level, Variant
from homeostat.advise.making import compiled


class Running(Protocol):
    """Answers rows."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The score output."""


class Misfit(Exception):
    """The form's inputs or outputs are not the model's; the message says which."""


def load(variant: Variant, path: Path, score_output: str) -> Running:
    """``path``: the file, or the compiled trees' folder."""
    if variant.form is Form.COMPILED:
        return _Compiled(path, score_output)
    return _Onnx(path.read_bytes(), score_output, variant)


def arguments(path: Path) -> dict[str, dict[str, str]]:
    """Names and types of a file's inputs and outputs."""
    session = _session(path.read_bytes(), Level.OFF, 1)
    return {
        "inputs": {each.name: each.type for each in session.get_inputs()},
        "outputs": {each.name: each.type for each in session.get_outputs()},
    }


def _session(content: bytes, level: Level, threads: int) -> Any:
    """As the server makes it, but for level and threads."""
    import onnxruntime as ort  # noqa: PLC0415 - after the limits of this process are set

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = {
        Level.OFF: ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
        Level.BASIC: ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
        Level.EXTENDED: ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
        Level.ALL: ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    }[level]
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class _Onnx:
    def __init__(self, content: bytes, score_output: str, variant: Variant) -> None:
        self._session = _session(content, variant.level, variant.threads)
        self._outputs = [score_output]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        answered: NDArray[Any] = self._session.run(self._outputs, feeds)[0]
        return answered


class _Compiled:
    """What is before the trees in onnxruntime, the trees in C, the end in numpy."""

    def __init__(self, folder: Path, score_output: str) -> None:
        import tl2cgen  # noqa: PLC0415 - part of an extra

        self._plan = compiled.Plan(**json.loads((folder / compiled.PLAN).read_text()))
        self._matrix_of = tl2cgen.DMatrix
        self._trees = tl2cgen.Predictor(folder / compiled.LIBRARY, nthread=1)
        self._before = self._after = None
        if self._plan.has_prefix:
            self._before = _session((folder / compiled.PREFIX).read_bytes(), Level.ALL, 1)
        if self._plan.has_suffix:
            self._after = _session((folder / compiled.SUFFIX).read_bytes(), Level.ALL, 1)
        elif score_output != self._plan.output:
            raise Misfit(f"the score output {score_output!r} does not come from the trees alone")
        self._score_output = score_output

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        matrix = (
            self._before.run([self._plan.matrix], feeds)[0]
            if self._before is not None
            else feeds[self._plan.matrix]
        )
        sums = self._trees.predict(self._matrix_of(np.asarray(matrix, np.float32)))
        answered = _transformed(sums.reshape(len(matrix), -1), self._plan)
        if self._after is None:
            return answered
        last: NDArray[Any] = self._after.run(
            [self._score_output], {self._plan.output: answered.astype(np.float32)}
        )[0]
        return last


def _transformed(sums: NDArray[Any], plan: compiled.Plan) -> NDArray[Any]:
    if plan.transform == "LOGISTIC":
        sums = 1.0 / (1.0 + np.exp(-sums))
    if plan.is_binary:
        share = plan.transform == "LOGISTIC" or plan.is_share
        sums = np.concatenate([1.0 - sums if share else -sums, sums], axis=1)
    if plan.transform == "SOFTMAX":
        powers = np.exp(sums - sums.max(axis=1, keepdims=True))
        sums = powers / powers.sum(axis=1, keepdims=True)
    return sums
