"""An 8-bit form in which each row has a range of its own, so that no row depends on another.

onnxruntime's dynamic quantisation takes one range over a whole run: then a row's answer depends on
the rows beside it, which the registry refuses. Only operators of the standard are used here.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from homeostat.advise.making import graphs
from homeostat.advise.making.refusal import NotPossible

_LARGEST = 127
# Processors multiply unsigned by signed bytes; signed by signed is up to ten times slower.
_MIDDLE = 128
# A row of zeros has no range; divided by this it stays zero.
_TINY = 1e-30
# From 18 on the axes of a reduction are an input.
_AXES_AS_INPUT = 18
# Smaller weights fit the fastest cache anyway, and finding ranges costs more than it saves.
_LEAST_WEIGHTS = 1024


@dataclass(frozen=True, slots=True)
class _Product:
    """A node that multiplies rows by constant weights."""

    node: Any
    # (inputs, outputs)
    weights: NDArray[np.float32]
    bias: str | None


def convert(content: bytes) -> bytes:
    """The model with each large product in 8 bits; NotPossible where there is none."""
    model = graphs.with_opset(graphs.read(content))
    graphs.require_products(model)
    products = {id(each.node): each for each in _products(model)}
    if not products:
        raise NotPossible(
            f"no matrix product of rows with at least {_LEAST_WEIGHTS} constant weights in it"
        )
    opset = next(each.version for each in model.opset_import if not each.domain)
    nodes: list[Any] = []
    for number, node in enumerate(model.graph.node):
        product = products.get(id(node))
        if product is None:
            nodes.append(node)
        else:
            made, constants = _replacement(product, f"int8_{number}_", opset)
            nodes.extend(made)
            model.graph.initializer.extend(constants)
    kept = [graphs.copied(each) for each in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    _drop_unused(model)
    return graphs.finished(model)


def _products(model: Any) -> list[_Product]:
    known = graphs.constants(model)
    found = [_product(node, known) for node in model.graph.node]
    return [each for each in found if each is not None and each.weights.size >= _LEAST_WEIGHTS]


def _product(node: Any, known: Any) -> _Product | None:
    if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in known:
        return None
    weights = graphs.array(known[node.input[1]])
    if weights.ndim != 2 or weights.dtype != np.float32:
        return None
    if node.op_type == "MatMul":
        return _Product(node, weights, None)
    said = graphs.attributes(node)
    if said.get("transA", 0) or said.get("alpha", 1.0) != 1.0 or said.get("beta", 1.0) != 1.0:
        return None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    return _Product(node, weights.T if said.get("transB", 0) else weights, bias)


def _replacement(product: _Product, prefix: str, opset: int) -> tuple[list[Any], list[Any]]:
    scales = np.maximum(np.abs(product.weights).max(axis=0), _TINY) / _LARGEST
    small = np.round(product.weights / scales).astype(np.int8)
    constants = [
        numpy_helper.from_array(values, prefix + name)
        for name, values in {
            "weights": np.ascontiguousarray(small),
            "weight_scales": scales.astype(np.float32),
            "largest": np.array(_LARGEST, np.float32),
            "tiny": np.array(_TINY, np.float32),
            "axes": np.array([-1], np.int64),
            "middle": np.array(_MIDDLE, np.uint8),
            "middle_float": np.array(_MIDDLE, np.float32),
        }.items()
    ]
    source, target = product.node.input[0], product.node.output[0]
    return list(_nodes(source, target, product.bias, prefix, opset)), constants


def _nodes(source: str, target: str, bias: str | None, prefix: str, opset: int) -> list[Any]:
    def node(operator: str, inputs: list[str], output: str, **attributes: Any) -> Any:
        return helper.make_node(operator, inputs, [output], **attributes)

    def own(name: str) -> str:
        return prefix + name

    as_input = opset >= _AXES_AS_INPUT
    reduced = [own("absolute"), own("axes")] if as_input else [own("absolute")]
    axes = {} if as_input else {"axes": [-1]}
    return [
        node("Abs", [source], own("absolute")),
        node("ReduceMax", reduced, own("range"), keepdims=1, **axes),
        node("Max", [own("range"), own("tiny")], own("bounded")),
        node("Div", [own("largest"), own("bounded")], own("factor")),
        node("Mul", [source, own("factor")], own("scaled")),
        node("Round", [own("scaled")], own("rounded")),
        node("Add", [own("rounded"), own("middle_float")], own("shifted")),
        node("Cast", [own("shifted")], own("small"), to=TensorProto.UINT8),
        node("MatMulInteger", [own("small"), own("weights"), own("middle")], own("sums")),
        node("Cast", [own("sums")], own("floats"), to=TensorProto.FLOAT),
        node("Div", [own("weight_scales"), own("factor")], own("scales")),
        node("Mul", [own("floats"), own("scales")], own("product") if bias else target),
        *([node("Add", [own("product"), bias], target)] if bias else []),
    ]


def _drop_unused(model: Any) -> None:
    used = {name for node in model.graph.node for name in node.input}
    used.update(each.name for each in model.graph.output)
    kept = [graphs.copied(each) for each in model.graph.initializer if each.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
