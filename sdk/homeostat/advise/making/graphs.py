"""Reading ONNX graphs: products with constant weights, constants, domains."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, version_converter

from homeostat.advise.making.refusal import NotPossible

PRODUCTS = ("MatMul", "Gemm", "Conv")
# Quantisation per channel needs the operators of this version.
_LEAST_OPSET = 13
# What the registry takes.
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")


def read(content: bytes) -> Any:
    """The model."""
    return onnx.ModelProto.FromString(content)


def require_products(model: Any) -> None:
    """NotPossible where there is no product with constant weights, which is where smaller numbers
    would save time."""
    known = constants(model)
    if any(
        node.op_type in PRODUCTS and any(name in known for name in node.input)
        for node in model.graph.node
    ):
        return
    kinds = sorted({node.op_type for node in model.graph.node})
    raise NotPossible(
        "no matrix product or convolution with constant weights in it, and nothing else gains from "
        f"smaller numbers (its operators: {', '.join(kinds[:8])}{' …' if len(kinds) > 8 else ''})"
    )


def constants(model: Any) -> Mapping[str, Any]:
    """Initialisers and the values of Constant nodes, by name."""
    found = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            found[node.output[0]] = node.attribute[0].t
    return found


def array(tensor: Any) -> NDArray[Any]:
    """A constant's numbers."""
    return np.asarray(numpy_helper.to_array(tensor))


def with_opset(model: Any) -> Any:
    """The model in an operator set that quantisation can use; NotPossible if it can't be raised."""
    version = next((each.version for each in model.opset_import if not each.domain), _LEAST_OPSET)
    if version >= _LEAST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, _LEAST_OPSET)
    except Exception as error:
        raise NotPossible(
            f"its operator set is {version}, {_LEAST_OPSET} is needed and onnx can't convert it: "
            "export it with a newer target_opset"
        ) from error


def finished(model: Any) -> bytes:
    """The file as the registry takes it: nodes in order, operators of the standard alone, whole.
    NotPossible where it can't be."""
    foreign = {node.domain for node in model.graph.node} - set(_DOMAINS)
    if foreign:
        raise NotPossible(f"its operators would be of {', '.join(sorted(foreign))}, not standard")
    ordered = [copied(node) for node in _in_order(model.graph)]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0][:300]
        raise NotPossible(f"onnx.checker finds what was made broken: {first}") from None
    content: bytes = model.SerializeToString()
    return content


def _in_order(graph: Any) -> list[Any]:
    """Each node after those that it needs; converters append theirs at the end."""
    makers = {name: at for at, node in enumerate(graph.node) for name in node.output if name}
    needs = [{makers[name] for name in _names(node) if name in makers} for node in graph.node]
    done: dict[int, None] = {}
    for at in range(len(needs)):
        open_nodes = [at]
        while open_nodes:
            missing = [each for each in needs[open_nodes[-1]] if each not in done]
            if missing and len(open_nodes) <= len(needs):
                open_nodes.extend(missing)
            else:
                done[open_nodes.pop()] = None
    return [graph.node[at] for at in done]


def _names(node: Any) -> Iterator[str]:
    """What a node reads, bodies of loops and branches included."""
    yield from node.input
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                yield from _names(inner)


def copied(node: Any) -> Any:
    """A node of its own: those of a list that is emptied lose their content."""
    made = type(node)()
    made.CopyFrom(node)
    return made


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def part(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> bytes | None:
    """The nodes that lead from ``inputs`` to ``outputs`` as a model of their own; None where they
    need anything else. Values that the model does not declare are taken as floats."""
    maker = {name: node for node in model.graph.node for name in node.output}
    constant = {each.name for each in model.graph.initializer}
    needed: set[int] = set()
    open_names = list(outputs)
    while open_names:
        name = open_names.pop()
        if not name or name in inputs or name in constant:
            continue
        node = maker.get(name)
        if node is None:
            return None
        if id(node) not in needed:
            needed.add(id(node))
            open_names.extend(node.input)
    nodes = [node for node in model.graph.node if id(node) in needed]
    if not any(name in inputs for node in nodes for name in node.input):
        return None
    graph = onnx.helper.make_graph(
        nodes,
        "part",
        [_declared(model, name) for name in inputs],
        [_declared(model, name) for name in outputs],
        list(model.graph.initializer),
    )
    made: bytes = onnx.helper.make_model(
        graph, opset_imports=list(model.opset_import), ir_version=model.ir_version
    ).SerializeToString()
    return made


def _declared(model: Any, name: str) -> Any:
    for each in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if each.name == name:
            return each
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def float_weights(model: Any) -> Iterator[Any]:
    """FP32 initialisers."""
    return (each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT)
