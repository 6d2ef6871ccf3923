"""A network large enough that smaller numbers matter, and rows that it tells apart with ease."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from onnx import helper
from tests.support.onnx_models import constant, value

from homeostat.events.v1.column_pb2 import TASK_BINARY, TASK_MULTICLASS, TASK_REGRESSION
from homeostat.history import Columns
from homeostat.push import Push
from homeostat.registry.v1.registry_pb2 import AUTONOMY_AUTO, Autonomy, Signature, TensorSpec

CLASSES = ("no", "yes")
_HOUR_US = 3_600_000_000
# 2020-01-01, a midnight.
_START_US = 1_577_836_800_000_000


@dataclass(frozen=True, slots=True)
class Network:
    """The file, its signature, and rows with their truth."""

    content: bytes
    signature: Signature
    table: pa.Table
    truths: NDArray[np.int64]


def a_network(
    *, inputs: int = 16, hidden: int = 256, classes: int = 2, rows: int = 2000, seed: int = 0
) -> Network:
    """Random features and a readout fitted to clusters far apart; ``classes`` 1: a regression."""
    rng = np.random.default_rng(seed)
    truths = rng.integers(0, max(2, classes), rows)
    centres = rng.normal(size=(max(2, classes), inputs)) * 2
    values = (centres[truths] + rng.normal(size=(rows, inputs)) * 0.5).astype(np.float32)
    layers = [
        (rng.normal(size=shape) * np.sqrt(2 / shape[0])).astype(np.float32)
        for shape in ((inputs, hidden), (hidden, hidden))
    ]
    seen = values
    for layer in layers:
        seen = np.maximum(seen @ layer, 0)
    wanted = np.eye(max(2, classes))[truths] * 8 - 4 if classes > 1 else values[:, :1].astype(float)
    fitted = np.linalg.lstsq(seen.T @ seen + 10 * np.eye(hidden), seen.T @ wanted, rcond=None)[0]
    names = [f"x{number}" for number in range(inputs)]
    return Network(
        _file(names, [*layers, fitted.astype(np.float32)], classes),
        _signature(names, classes),
        pa.table({name: values[:, at] for at, name in enumerate(names)}),
        truths,
    )


def _file(names: list[str], layers: list[NDArray[np.float32]], classes: int) -> bytes:
    nodes = [helper.make_node("Concat", names, ["h0"], axis=1)]
    for at, _ in enumerate(layers):
        nodes.append(helper.make_node("MatMul", [f"h{at}", f"w{at}"], [f"m{at}"]))
        nodes.append(helper.make_node("Add", [f"m{at}", f"b{at}"], [f"a{at}"]))
        if at < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [f"a{at}"], [f"h{at + 1}"]))
    last = f"a{len(layers) - 1}"
    end = (
        helper.make_node("Softmax", [last], ["answer"], axis=1)
        if classes > 1
        else helper.make_node("Identity", [last], ["answer"])
    )
    graph = helper.make_graph(
        [*nodes, end],
        "network",
        [value(name) for name in names],
        [value("answer", shape=("N", max(1, classes)))],
        [constant(f"w{at}", each) for at, each in enumerate(layers)]
        + [
            constant(f"b{at}", np.zeros(each.shape[1], np.float32))
            for at, each in enumerate(layers)
        ],
    )
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return made


def _signature(names: list[str], classes: int) -> Signature:
    tasks = {1: TASK_REGRESSION, 2: TASK_BINARY}
    return Signature(
        task=tasks.get(classes, TASK_MULTICLASS),
        inputs=[TensorSpec(name=name, datatype="FP32", shape=[-1, 1]) for name in names],
        outputs=[TensorSpec(name="answer", datatype="FP32", shape=[-1, max(1, classes)])],
        classes=[f"class {number}" for number in range(classes)] if classes > 1 else [],
        score_output="answer",
        decision_threshold=0.5 if classes == 2 else 0.0,
    )


def as_push(
    network: Network,
    folder: Path,
    *,
    name: str = "network",
    autonomy: "Autonomy.ValueType" = AUTONOMY_AUTO,
) -> Push:
    """Files in ``folder``, and what `homeostat push` would be told of them; one row an hour."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.onnx").write_bytes(network.content)
    times = _START_US + np.arange(network.table.num_rows, dtype=np.int64) * _HOUR_US
    table = network.table.append_column(
        "truth", pa.array([CLASSES[each] for each in network.truths])
    ).append_column("at", pa.array(times))
    pq.write_table(table, folder / "history.parquet")
    return Push(
        model_name=name,
        model_path=folder / f"{name}.onnx",
        history_path=folder / "history.parquet",
        columns=Columns("truth", "at"),
        classes=CLASSES,
        autonomy=autonomy,
        author="tester",
    )
