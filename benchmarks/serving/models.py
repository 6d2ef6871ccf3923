"""The models that every server gets, the requests, and what onnxruntime itself answers."""

import json
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import TASK_BINARY
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

INPUT, LABEL, SCORES = "input", "label", "probabilities"
TREES, LOGISTIC = "trees", "logistic"
WIDTHS = {TREES: 30, LOGISTIC: 20}
# Distinct rows that are asked for in turn: enough that no cache of a server or CPU knows them.
ROWS = 8192
_ID = b"0" * 20
_SEED = 7


@dataclass(frozen=True, slots=True)
class BenchModel:
    """An ONNX file with one FP32 input, rows for it, and the answers of onnxruntime."""

    name: str
    content: bytes
    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    scores: NDArray[np.float32]

    @property
    def width(self) -> int:
        """Features of a row."""
        return int(self.rows.shape[1])

    def signature(self) -> Signature:
        """What a registry says of it."""
        return Signature(
            task=TASK_BINARY,
            inputs=[TensorSpec(name=INPUT, datatype="FP32", shape=[-1, self.width])],
            outputs=[
                TensorSpec(name=LABEL, datatype="INT64", shape=[-1]),
                TensorSpec(name=SCORES, datatype="FP32", shape=[-1, 2]),
            ],
            classes=["no", "yes"],
            score_output=SCORES,
            decision_threshold=0.5,
            request_id_is_client_id=True,
        )

    def variant(self, number: int) -> bytes:
        """The same model as another file: another version's bytes."""
        proto = onnx.load_from_string(self.content)
        proto.doc_string = f"variant {number}"
        content: bytes = proto.SerializeToString()
        return content


def session(content: bytes) -> ort.InferenceSession:
    """One thread, no spinning: what every server is told to use."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def load_models(folder: Path) -> dict[str, BenchModel]:
    """Trains both once and keeps their files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, train in ((TREES, _train_trees), (LOGISTIC, _train_logistic)):
        file = folder / f"{name}.onnx"
        if not file.exists():
            file.write_bytes(train(WIDTHS[name]))
        found[name] = _with_answers(name, file.read_bytes())
    return found


def _with_answers(name: str, content: bytes) -> BenchModel:
    rng = np.random.default_rng(_SEED + 1)
    rows = rng.normal(size=(ROWS, WIDTHS[name])).astype(np.float32)
    labels, scores = session(content).run([LABEL, SCORES], {INPUT: rows})
    return BenchModel(name, content, rows, labels, scores)


def _training_data(width: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(_SEED)
    rows = rng.normal(size=(20_000, width)).astype(np.float32)
    logit = rows[:, 0] + np.sin(2 * rows[:, 1]) + rows[:, 2] * rows[:, 3] + rows[:, 4:].mean(1)
    truth = (logit + rng.normal(size=len(rows)) > 0).astype(np.int64)
    return rows, truth


def _train_trees(width: int) -> bytes:
    from lightgbm import LGBMClassifier  # noqa: PLC0415 - heavy, and needed once
    from onnxmltools import convert_lightgbm  # noqa: PLC0415
    from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415

    rows, truth = _training_data(width)
    model = LGBMClassifier(n_estimators=150, n_jobs=1, random_state=_SEED, verbose=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, truth)
        proto = convert_lightgbm(
            model, initial_types=[(INPUT, FloatTensorType([None, width]))], zipmap=False
        )
    return _renamed(proto)


def _train_logistic(width: int) -> bytes:
    from skl2onnx import to_onnx  # noqa: PLC0415
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    rows, truth = _training_data(width)
    model = LogisticRegression(max_iter=500).fit(rows, truth)
    return _renamed(to_onnx(model, rows[:1], options={"zipmap": False}))


def _renamed(proto: Any) -> bytes:
    """The same names in both files."""
    names = dict(zip((each.name for each in proto.graph.output), (LABEL, SCORES), strict=True))
    names[proto.graph.input[0].name] = INPUT
    for node in proto.graph.node:
        for side in (node.input, node.output):
            side[:] = [names.get(each, each) for each in side]
    for each in (*proto.graph.input, *proto.graph.output):
        each.name = names[each.name]
    # The converter says one row where it means any number: onnxruntime warns at every run.
    proto.graph.output[0].type.tensor_type.shape.dim[0].Clear()
    content: bytes = proto.SerializeToString()
    return content


@dataclass(frozen=True, slots=True)
class Bodies:
    """A file of requests for the load generator, and which rows each of them holds."""

    path: Path
    model: BenchModel
    rows_per_request: int
    has_ids: bool

    @property
    def count(self) -> int:
        """How many requests the file holds."""
        return len(self.model.rows) // self.rows_per_request


def write_bodies(model: BenchModel, rows: int, *, has_ids: bool, folder: Path) -> Bodies:
    """Every request another ``rows`` rows; ids are filled in by the generator."""
    path = folder / f"{model.name}-{rows}-{'ids' if has_ids else 'plain'}.bodies"
    bodies = Bodies(path, model, rows, has_ids)
    with path.open("wb") as file:
        for index in range(bodies.count):
            message = one_request(model, index * rows, rows, has_ids=has_ids)
            place = message.index(_ID) if has_ids else -1
            file.write(struct.pack("<Ii", len(message), place) + message)
    return bodies


def one_request(model: BenchModel, first: int, rows: int, *, has_ids: bool) -> bytes:
    """A serialised V2 request with raw contents, as tritonclient sends it."""
    values = model.rows[first : first + rows]
    request = ModelInferRequest(model_name=model.name, id=_ID.decode() if has_ids else "")
    request.inputs.add(name=INPUT, datatype="FP32", shape=values.shape)
    request.outputs.add(name=LABEL)
    request.outputs.add(name=SCORES)
    request.raw_input_contents.append(values.tobytes())
    message: bytes = request.SerializeToString()
    return message


def describe(models: dict[str, BenchModel]) -> str:
    """For the report."""
    return json.dumps({each.name: [each.width, len(each.content)] for each in models.values()})
