"""Models that servers are tested with, beside the small one of ``tests.support.inference``."""

from collections.abc import Collection
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tests.support.inference import StandInRegistry, a_model, a_signature
from tests.support.onnx_models import constant

from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

STRICT, WIDE, KINDS = "strict", "wide", "kinds"
# The datatypes that have typed contents.
TYPED_KINDS = "kinds-typed"
# Every datatype of the protocol, and what ONNX calls it.
DATATYPES = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
TYPED = frozenset(DATATYPES) - {"FP16"}


def every_datatype(names: Collection[str] = DATATYPES) -> bytes:
    """Answers each of its inputs as it came: "in_fp32" comes out as "out_fp32"."""
    kinds = {name.lower(): kind for name, kind in DATATYPES.items() if name in names}
    return _serialized(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in kinds],
        [_value(f"in_{name}", kind, 1) for name, kind in kinds.items()],
        [_value(f"out_{name}", kind, 1) for name, kind in kinds.items()],
    )


def every_datatypes_signature(names: Collection[str] = DATATYPES) -> Signature:
    """Of ``every_datatype``; no input may be null."""
    return Signature(
        task=TASK_REGRESSION,
        inputs=[_spec(f"in_{each.lower()}", each, 1) for each in DATATYPES if each in names],
        outputs=[_spec(f"out_{each.lower()}", each, 1) for each in DATATYPES if each in names],
        score_output="out_fp32",
    )


def wide() -> bytes:
    """The sum of four numbers in one input."""
    return _serialized(
        [helper.make_node("ReduceSum", ["x", "axis"], ["total"], keepdims=1)],
        [_value("x", TensorProto.FLOAT, 4)],
        [_value("total", TensorProto.FLOAT, 1)],
        [constant("axis", np.array([1], np.int64))],
    )


def wide_signature() -> Signature:
    """Of ``wide``."""
    return Signature(
        task=TASK_REGRESSION,
        inputs=[_spec("x", "FP32", 4)],
        outputs=[_spec("total", "FP32", 1)],
        score_output="total",
    )


def strict_signature() -> Signature:
    """Of ``a_model``, without nulls."""
    signature = a_signature()
    for each in signature.inputs:
        each.is_nullable = False
    return signature


def add_them_all(registry: StandInRegistry) -> None:
    """Promotes the models of this file, version 1 of each."""
    for name, content, signature in (
        (STRICT, a_model(), strict_signature()),
        (WIDE, wide(), wide_signature()),
        (KINDS, every_datatype(), every_datatypes_signature()),
        (TYPED_KINDS, every_datatype(TYPED), every_datatypes_signature(TYPED)),
    ):
        registry.add(1, content, signature, model_name=name)
        registry.promote(1, model_name=name)


def _value(name: str, kind: int, width: int) -> Any:
    return helper.make_tensor_value_info(name, kind, [None, width])


def _spec(name: str, datatype: str, width: int) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=[-1, width])


def _serialized(nodes: Any, inputs: Any, outputs: Any, constants: Any = ()) -> bytes:
    graph = helper.make_graph(nodes, "test", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content
