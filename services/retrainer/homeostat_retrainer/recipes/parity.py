"""Whether the ONNX file says what the source model says, also where data are missing or new."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.model_file import feeds
from homeostat.registry.v1.registry_pb2 import Signature
from homeostat_retrainer.recipes.contract import CannotTrain, TrainedModel

# FP32 against FP64 arithmetic over a hundred trees stays well below.
TOLERANCE = 1e-5
_BATCH_ROWS = 8192
_PROBE_ROWS = 64
_UNSEEN = "\x01never seen before"


def run_model(content: bytes, table: pa.Table, signature: Signature) -> NDArray[np.float64]:
    """The score output for each row, shape (rows, classes) or (rows, 1)."""
    import onnxruntime as ort  # noqa: PLC0415 - heavy; only workers run models

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    parts = [
        session.run([signature.score_output], feeds(table.slice(start, _BATCH_ROWS), signature))[0]
        for start in range(0, table.num_rows, _BATCH_ROWS)
    ]
    rows: NDArray[np.float64] = np.concatenate(
        [np.asarray(part, dtype=np.float64).reshape(len(part), -1) for part in parts]
    )
    return rows


def require_parity(model: TrainedModel, table: pa.Table, signature: Signature) -> float:
    """The greatest difference on ``table`` and on probes with nulls and unseen texts.

    CannotTrain if it exceeds the tolerance (relative to the values' size for a regression).
    """
    probes = _probes(table, signature)
    rows = pa.concat_tables([table.select(probes.column_names), probes])
    source = np.asarray(model.predict(rows), dtype=np.float64).reshape(rows.num_rows, -1)
    served = run_model(model.onnx, rows, signature)
    if served.shape != source.shape:
        raise CannotTrain(f"the ONNX output has shape {served.shape}, the model's {source.shape}")
    scale = max(1.0, float(np.abs(source).max())) if signature.task == TASK_REGRESSION else 1.0
    difference = float(np.abs(served - source).max()) / scale
    if not difference <= TOLERANCE:
        raise CannotTrain(
            f"the ONNX file differs from the model by {difference:.2g} (limit {TOLERANCE:g})"
        )
    return difference


def _probes(table: pa.Table, signature: Signature) -> pa.Table:
    """Copies of some rows: without each nullable input, and with a new text in each text."""
    names = [spec.name for spec in signature.inputs]
    some = table.select(names).slice(0, _PROBE_ROWS)
    probes: list[Any] = []
    for place, spec in enumerate(signature.inputs):
        kind = some.schema.field(spec.name).type
        changed = []
        if spec.is_nullable:
            changed.append(pa.nulls(some.num_rows, kind))
        if spec.datatype == "BYTES":
            changed.append(pa.array([_UNSEEN] * some.num_rows, pa.string()).cast(kind))
        probes += [some.set_column(place, spec.name, column) for column in changed]
    return pa.concat_tables(probes) if probes else some.slice(0, 0)
