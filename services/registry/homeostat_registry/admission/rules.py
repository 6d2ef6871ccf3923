"""What the file itself must be: one whole ONNX file of known operators, without code of its own."""

from collections.abc import Iterator
from typing import Any

import onnx
import onnx.checker
import onnx.defs

from homeostat_registry.admission.refusal import Refused

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_MIN_OPSET = 7
_MIN_IR = 3
_MAX_NODES = 200_000
_MAX_DEPTH = 16


def read(content: bytes) -> Any:
    """The model; Refused unless every rule holds."""
    model = _parse(content)
    _require_versions(model)
    if model.functions:
        raise Refused(
            f"The model defines local functions ({model.functions[0].name}); inline them "
            "(onnx.inliner.inline_local_functions) and export again."
        )
    if model.training_info:
        raise Refused("The model holds training_info; export it for inference only.")
    opsets = {_domain(each.domain): each.version for each in model.opset_import}
    for count, node in enumerate(_nodes(model.graph, 0), 1):
        if count > _MAX_NODES:
            raise Refused(f"The graph has more than {_MAX_NODES} nodes; simplify the model.")
        _require_known(node, opsets)
    for tensor in _tensors(model.graph):
        _require_internal(tensor)
    _check(model)
    return model


def _parse(content: bytes) -> Any:
    if not content:
        raise Refused("The model file is empty; export it again.")
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:
        raise Refused(
            "The file can't be read as ONNX: it is cut or of another format; export it again "
            "with skl2onnx, onnxmltools or torch.onnx."
        ) from None
    if not model.ir_version or not model.HasField("graph") or not model.graph.node:
        raise Refused(
            "The file is not an ONNX model: it has no graph; export the model to ONNX first."
        )
    return model


def _require_versions(model: Any) -> None:
    if not _MIN_IR <= model.ir_version <= onnx.IR_VERSION:
        raise Refused(
            f"The model's IR version is {model.ir_version}; {_MIN_IR} to {onnx.IR_VERSION} are "
            "served: export it with another version of onnx."
        )
    newest = {
        "": onnx.defs.onnx_opset_version(),
        "ai.onnx.ml": onnx.defs.onnx_ml_opset_version(),
    }
    for each in model.opset_import:
        domain = _domain(each.domain)
        if domain not in newest:
            raise Refused(
                f"The model uses the operator domain {each.domain!r}; only ai.onnx and ai.onnx.ml "
                "are served: export it without custom operators."
            )
        oldest = _MIN_OPSET if domain == "" else 1
        if not oldest <= each.version <= newest[domain]:
            raise Refused(
                f"The model's opset of {domain or 'ai.onnx'} is {each.version}; {oldest} to "
                f"{newest[domain]} are served: set target_opset when exporting."
            )


def _domain(name: str) -> str:
    return "" if name == "ai.onnx" else name


def _nodes(graph: Any, depth: int) -> Iterator[Any]:
    if depth > _MAX_DEPTH:
        raise Refused(f"Subgraphs are nested more than {_MAX_DEPTH} deep; flatten the model.")
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner, depth + 1)


def _require_known(node: Any, opsets: dict[str, int]) -> None:
    domain = _domain(node.domain)
    if node.domain not in _DOMAINS:
        raise Refused(
            f"The operator {node.op_type} is of the domain {node.domain!r}; only ai.onnx and "
            "ai.onnx.ml are served: export it without custom operators."
        )
    if domain not in opsets:
        raise Refused(
            f"The operator {node.op_type} needs an opset_import of {domain or 'ai.onnx'}; add it."
        )
    try:
        onnx.defs.get_schema(node.op_type, opsets[domain], domain)
    except onnx.defs.SchemaError:
        raise Refused(
            f"Unknown operator {node.op_type} in {domain or 'ai.onnx'} opset {opsets[domain]}: "
            "export with operators of the standard, or a newer target_opset."
        ) from None


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _require_internal(tensor: Any) -> None:
    if tensor.external_data or tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise Refused(
            f"The tensor {tensor.name!r} lies in another file (external data); save the model as "
            "one file (onnx.save with save_as_external_data=False)."
        )


def _check(model: Any) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0][:300]
        raise Refused(f"onnx.checker finds the model broken: {first} Export it again.") from None
