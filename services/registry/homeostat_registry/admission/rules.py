"""What the file itself must be: one whole ONNX file of known operators, without code of its own."""

from collections.abc import Iterator
from typing import Any

import onnx
import onnx.checker
import onnx.defs
import onnx.numpy_helper

from homeostat_registry.admission.refusal import Refused, named, short

_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_MIN_OPSET = 7
_MIN_IR = 3
# Loading takes more than linear time; the largest language models have some 20,000.
_MAX_NODES = 50_000
_MAX_DEPTH = 16
# Remarks are read by nobody here, and held by every server: documentation, metadata.
_MAX_REMARK_BYTES = 16 * 1024 * 1024
# No category of anybody's data is longer.
_MAX_STRING_BYTES = 1024 * 1024
_MAX_NAME_LETTERS = 4096
_RANDOM = frozenset(
    {
        "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
        "RandomUniformLike",
    }
)  # fmt: skip


def read(content: bytes) -> Any:
    """The model; Refused unless every rule holds."""
    model = _parse(content)
    if model.functions:
        raise Refused(
            f"The model defines local functions ({named(model.functions[0].name)}); inline them "
            "(onnx.inliner.inline_local_functions) and export again."
        )
    if model.training_info:
        raise Refused("The model holds training_info; export it for inference only.")
    _require_versions(model)
    _require_names(*model.graph.input, *model.graph.output)
    opsets = {_domain(each.domain): each.version for each in model.opset_import}
    for count, node in enumerate(_nodes(model.graph, 0), 1):
        if count > _MAX_NODES:
            raise Refused(f"The graph has more than {_MAX_NODES} nodes; simplify the model.")
        _require_names(node)
        _require_known(node, opsets)
        _require_certain(node)
    for tensor in _tensors(model.graph):
        _require_internal(tensor)
        _require_short_strings(tensor.name, tensor.string_data)
    _require_training_off(model.graph)
    _require_few_remarks(model)
    _check(model)
    return model


def _parse(content: bytes) -> Any:
    if not content:
        raise Refused("The model file is empty; export it again.")
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:
        raise Refused(
            "The file can't be read as ONNX: it is cut or of another format, or its graphs are "
            "nested too deep; export it again with skl2onnx, onnxmltools or torch.onnx."
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
    imported = {(_domain(each.domain), each.version) for each in model.opset_import}
    if len({domain for domain, _ in imported}) != len(imported):
        raise Refused("The model imports two opsets of one domain; name one.")
    for each in model.opset_import:
        domain = _domain(each.domain)
        if domain not in newest:
            raise Refused(
                f"The model uses the operator domain {named(each.domain)}; only ai.onnx and "
                "ai.onnx.ml are served: export it without custom operators."
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
            f"The operator {short(node.op_type)} is of the domain {named(node.domain)}; only "
            "ai.onnx and ai.onnx.ml are served: export it without custom operators."
        )
    if domain not in opsets:
        raise Refused(
            f"The operator {short(node.op_type)} needs an opset_import of "
            f"{domain or 'ai.onnx'}; add it."
        )
    try:
        onnx.defs.get_schema(node.op_type, opsets[domain], domain)
    except onnx.defs.SchemaError:
        raise Refused(
            f"Unknown operator {short(node.op_type)} in {domain or 'ai.onnx'} opset "
            f"{opsets[domain]}: "
            "export with operators of the standard, or a newer target_opset."
        ) from None


def _require_certain(node: Any) -> None:
    if node.op_type in _RANDOM:
        raise Refused(
            f"The operator {node.op_type} answers the same rows differently each time; remove "
            "random operators (noise, sampling) before exporting."
        )


def _require_names(*nodes: Any) -> None:
    """Of nodes, or of inputs and outputs; every name there is shown to people and put into logs."""
    for node in nodes:
        for name in _names(node):
            if isinstance(name, bytes):
                raise Refused(
                    f"The name {name[:80]!r} is not UTF-8: the file is damaged, or no exporter "
                    "made it; export it again."
                )
            if len(name) > _MAX_NAME_LETTERS:
                raise Refused(
                    f"The name {named(name)} has {len(name)} letters; {_MAX_NAME_LETTERS} is the "
                    "limit: shorten it."
                )
            if not name.isprintable():
                raise Refused(
                    f"The name {named(name)} holds control characters; rename it and export again."
                )


def _names(node: Any) -> Iterator[str | bytes]:
    """Those that are not UTF-8 come as bytes."""
    yield node.name
    for each in ("input", "output"):
        yield from getattr(node, each, ())
    for each in ("op_type", "domain"):
        yield getattr(node, each, "")


def _require_training_off(graph: Any) -> None:
    """Dropout that drops is random; in training mode it may drop too rarely for a trial to see."""
    for node in _nodes(graph, 0):
        if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
            continue
        if not _is_false(graph, node.input[2]):
            raise Refused(
                "A Dropout may be in training mode, so that it answers the same rows differently "
                "each time; export the model for inference (model.eval())."
            )


def _is_false(graph: Any, name: str) -> bool:
    """Whether it is a constant of the outermost graph, and false."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return not onnx.numpy_helper.to_array(tensor).any()
    for node in graph.node:
        if node.op_type == "Constant" and name in node.output:
            return not any(onnx.numpy_helper.to_array(each.t).any() for each in node.attribute)
    return False


def _require_few_remarks(model: Any) -> None:
    size = _remarks(model) + _remarks(model.graph) + sum(map(_remarks, _nodes(model.graph, 0)))
    if size > _MAX_REMARK_BYTES:
        raise Refused(
            f"The model's doc_string and metadata have {size} letters; {_MAX_REMARK_BYTES} is the "
            "limit: remove them (onnx.helper.strip_doc_string)."
        )


def _remarks(of: Any) -> int:
    return len(of.doc_string) + sum(len(each.key) + len(each.value) for each in of.metadata_props)


def _require_short_strings(name: str, strings: Any) -> None:
    longest = max(map(len, strings), default=0)
    if longest > _MAX_STRING_BYTES:
        raise Refused(
            f"The tensor {named(name)} holds a string of {longest} bytes; {_MAX_STRING_BYTES} is "
            "the limit: categories are shorter."
        )


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
            f"The tensor {named(tensor.name)} lies in another file (external data); save the "
            "model as one file (onnx.save with save_as_external_data=False)."
        )


def _check(model: Any) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        first = str(error).strip().splitlines()[0][:300]
        raise Refused(f"onnx.checker finds the model broken: {first} Export it again.") from None
