"""ONNX files made when a test runs: a good one, and all the bad ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from homeostat.events.v1.column_pb2 import TASK_BINARY
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64
INPUTS = ("x", "z")


def signature(*, nullable: bool = False) -> Signature:
    """Two floats in, two probabilities out."""
    return Signature(
        task=TASK_BINARY,
        inputs=[
            TensorSpec(name=name, datatype="FP32", shape=[-1, 1], is_nullable=nullable)
            for name in INPUTS
        ],
        outputs=[TensorSpec(name="probabilities", datatype="FP32", shape=[-1, 2])],
        classes=["no", "yes"],
        score_output="probabilities",
        decision_threshold=0.5,
    )


def classifier(weight: float = 1.0) -> bytes:
    """A logistic regression that fits ``signature``; another weight makes another file."""
    return model(
        [
            helper.make_node("Concat", ["x", "z"], ["row"], axis=1),
            helper.make_node("MatMul", ["row", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        initializers=[constant("weights", np.array([[weight, 0], [0, 1]], np.float32))],
    ).SerializeToString()


def constant(name: str, value: Any) -> TensorProto:
    """An initialiser."""
    return numpy_helper.from_array(np.asarray(value), name)


def value(name: str, kind: int = FLOAT, shape: Sequence[int | str] = ("N", 1)) -> Any:
    """A named input or output."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def model(
    nodes: Sequence[Any],
    *,
    inputs: Sequence[Any] | None = None,
    outputs: Sequence[Any] | None = None,
    initializers: Sequence[TensorProto] = (),
    opsets: Sequence[Any] | None = None,
    functions: Sequence[Any] = (),
    ir_version: int = 8,
) -> ModelProto:
    """A model with the inputs and the output of ``signature`` unless told otherwise."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        list(inputs or [value(name) for name in INPUTS]),
        list(outputs or [value("probabilities", shape=("N", 2))]),
        list(initializers),
    )
    return helper.make_model(
        graph,
        opset_imports=list(opsets or [helper.make_opsetid("", 17)]),
        functions=list(functions),
        ir_version=ir_version,
    )


def halves(*before: Any, initializers: Sequence[TensorProto] = (), **more: Any) -> bytes:
    """``before`` makes "s" (N, 1) from x; the answer is [sigmoid(s), 1 - sigmoid(s)]."""
    return model(
        [
            *before,
            helper.make_node("Sigmoid", ["s"], ["p"]),
            helper.make_node("Sub", ["one", "p"], ["q"]),
            helper.make_node("Concat", ["q", "p"], ["probabilities"], axis=1),
        ],
        initializers=[constant("one", np.ones((1,), np.float32)), *initializers],
        **more,
    ).SerializeToString()


def endless() -> bytes:
    """A Loop whose condition never turns false."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["carried"], ["carried_on"]),
        ],
        "body",
        [
            value("round", INT64, ()),
            value("go", TensorProto.BOOL, ()),
            value("carried"),
        ],
        [value("go_on", TensorProto.BOOL, ()), value("carried_on")],
    )
    return halves(
        helper.make_node("Add", ["x", "z"], ["both"]),
        helper.make_node("Loop", ["", "yes", "both"], ["s"], body=body),
        initializers=[constant("yes", np.array(True))],
    )


def shape_bomb() -> bytes:
    """Asks for 4 TB at the first run."""
    size = constant("size", np.array([1 << 20, 1 << 20], np.int64))
    return halves(
        helper.make_node("ConstantOfShape", ["size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["total"], keepdims=0),
        helper.make_node("Add", ["x", "total"], ["x2"]),
        helper.make_node("Add", ["x2", "z"], ["s"]),
        initializers=[size],
    )


def false_initializer() -> bytes:
    """An initialiser that says it is huge and holds four bytes."""
    bomb = TensorProto(name="huge", data_type=FLOAT, dims=[1 << 31, 1 << 31], raw_data=b"\0\0\0\0")
    return halves(helper.make_node("Add", ["x", "huge"], ["s"]), initializers=[bomb])


def external_data() -> bytes:
    """A weight that lies in another file."""
    weight = TensorProto(name="w", data_type=FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    return halves(helper.make_node("Add", ["x", "w"], ["s"]), initializers=[weight])


def local_function() -> bytes:
    """A function of its own, in a domain of its own."""
    twice = helper.make_function(
        "own",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    return halves(
        helper.make_node("Twice", ["x"], ["s"], domain="own"),
        opsets=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
        functions=[twice],
    )


def unknown_operator() -> bytes:
    """An operator that no standard has."""
    return halves(helper.make_node("Frobnicate", ["x"], ["s"]))


def foreign_domain() -> bytes:
    """An operator that onnxruntime knows but the standard does not."""
    return halves(
        helper.make_node("Gelu", ["x"], ["s"], domain="com.microsoft"),
        opsets=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)],
    )


def across_rows() -> bytes:
    """Each answer depends on the mean of its batch."""
    return halves(
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["s"]),
    )


def random_answers() -> bytes:
    """Noise in the answers."""
    return halves(
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Add", ["x", "noise"], ["s"]),
    )


def integer_division() -> bytes:
    """Kills its process for the smallest integer divided by minus one."""
    return halves(
        # Never zero: minus one for z = 0.
        helper.make_node("Add", ["z", "z"], ["even"]),
        helper.make_node("Add", ["even", "minus_one"], ["odd"]),
        helper.make_node("Div", ["x", "odd"], ["d"]),
        helper.make_node("Clip", ["d", "low", "high"], ["c"]),
        helper.make_node("Cast", ["c"], ["s"], to=FLOAT),
        initializers=[
            constant("minus_one", np.array([-1], np.int64)),
            constant("low", np.array(-5, np.int64)),
            constant("high", np.array(5, np.int64)),
        ],
        inputs=[value("x", INT64), value("z", INT64)],
    )


def integers() -> Signature:
    """The signature of ``integer_division``."""
    said = signature()
    for each in said.inputs:
        each.datatype = "INT64"
    return said


def integer_sum() -> bytes:
    """Integers in, nothing that could kill: fits ``integers``."""
    return halves(
        helper.make_node("Clip", ["x", "low", "high"], ["c"]),
        helper.make_node("Cast", ["c"], ["cf"], to=FLOAT),
        helper.make_node("Clip", ["z", "low", "high"], ["d"]),
        helper.make_node("Cast", ["d"], ["df"], to=FLOAT),
        helper.make_node("Add", ["cf", "df"], ["s"]),
        initializers=[
            constant("low", np.array(-5, np.int64)),
            constant("high", np.array(5, np.int64)),
        ],
        inputs=[value("x", INT64), value("z", INT64)],
    )
