"""A small builder of ONNX graphs: raw named inputs to one float matrix, and on to the output."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec

_ML = "ai.onnx.ml"
# Within what every onnxruntime of the last years and the registry's judge take.
_OPSET, _ML_OPSET, _IR = 17, 3, 8

_TENSOR_TYPES = {
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


class Graph:
    """Nodes and constants of one model in the making."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, values: NDArray[Any]) -> str:
        """The name of a new constant."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def add(
        self,
        operator: str,
        inputs: Sequence[str],
        *,
        domain: str = "",
        output: str | None = None,
        **attributes: Any,
    ) -> str:
        """The name of the node's first output."""
        name = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(operator, inputs, [name], domain=domain or None, **attributes)
        )
        return name

    def append(self, node: Any) -> None:
        """Takes a node made elsewhere."""
        self._nodes.append(node)

    def as_float(self, spec: TensorSpec) -> str:
        """A numeric input as FP32."""
        if spec.datatype == "FP32":
            return spec.name
        return self.add("Cast", [spec.name], to=TensorProto.FLOAT)

    def fill(self, name: str, value: float) -> str:
        """Like ``name`` with ``value`` where it is NaN."""
        is_nan = self.add("IsNaN", [name])
        return self.add("Where", [is_nan, self.constant(np.array(value, np.float32)), name])

    def codes(self, spec: TensorSpec, texts: Sequence[str], *, unknown: int) -> str:
        """The place of each text in ``texts`` as FP32; ``unknown`` for all others."""
        return self.add(
            "LabelEncoder",
            [spec.name],
            domain=_ML,
            # An empty list of keys is no valid encoder; the null text is unknown everywhere.
            keys_strings=[*texts, ""] if "" not in texts else list(texts),
            values_floats=[float(i) for i in range(len(texts))]
            + ([float(unknown)] if "" not in texts else []),
            default_float=float(unknown),
        )

    def model(self, signature: Signature, width: int) -> bytes:
        """The whole as a file: the signature's inputs, and its score output (rows, ``width``)."""
        inputs = [
            helper.make_tensor_value_info(spec.name, _TENSOR_TYPES[spec.datatype], [None, 1])
            for spec in signature.inputs
        ]
        output = helper.make_tensor_value_info(
            signature.score_output, TensorProto.FLOAT, [None, width]
        )
        graph = helper.make_graph(
            self._nodes, "model", inputs, [output], initializer=self._constants
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_ML, _ML_OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR, producer_name="homeostat"
        )
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content
