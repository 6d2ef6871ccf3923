"""Tree ensembles as C: treelite's model from the ONNX nodes, tl2cgen's code, the system's compiler.

The graph is cut at its one ensemble: what lies before it stays ONNX and runs first.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from homeostat.advise.making import graphs
from homeostat.advise.making.refusal import NotPossible

LIBRARY, PREFIX, SUFFIX, PLAN = "trees.so", "before.onnx", "after.onnx", "plan.json"
_ENSEMBLES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_COMPILERS = ("gcc", "clang")
_MOST_NODES_WHOLE, _PARTS = 50_000, 32
_OPERATORS = {
    "BRANCH_LEQ": "<=",
    "BRANCH_LT": "<",
    "BRANCH_GTE": ">=",
    "BRANCH_GT": ">",
    "BRANCH_EQ": "==",
}
_TRANSFORMS = ("NONE", "LOGISTIC", "SOFTMAX")


@dataclass(frozen=True, slots=True)
class Plan:
    """How the compiled trees' sums become the ensemble's output."""

    # The ensemble's input and its output with the numbers.
    matrix: str
    output: str
    # "NONE", "LOGISTIC" or "SOFTMAX".
    transform: str
    # Sums are of class 1 alone; class 0 is its complement.
    is_binary: bool
    # Whether the complement of a sum s is 1 - s; else it is -s.
    is_share: bool
    has_prefix: bool
    has_suffix: bool


@dataclass(frozen=True, slots=True)
class _Trees:
    """An ensemble's nodes, column by column as ONNX holds them."""

    said: Mapping[str, Any]
    is_classifier: bool

    @property
    def leaf_prefix(self) -> str:
        return "class" if self.is_classifier else "target"

    @property
    def leaf_ids(self) -> list[int]:
        """Which class or target each weight is for; 0 where all are for the same one."""
        ids = [int(each) for each in self.said[f"{self.leaf_prefix}_ids"]]
        return ids if len(set(ids)) > 1 else [0] * len(ids)

    @property
    def outputs(self) -> int:
        """Classes or targets that leaves add to."""
        return max(self.leaf_ids, default=0) + 1


def build(content: bytes, folder: Path) -> None:
    """Writes library, plan and what is left of the graph into ``folder``."""
    compiler = next((name for name in _COMPILERS if shutil.which(name)), None)
    if compiler is None:
        raise NotPossible(
            f"no C compiler on this machine (looked for {', '.join(_COMPILERS)}); install one, for "
            "example the package gcc"
        )
    missing = [name for name in ("treelite", "tl2cgen") if find_spec(name) is None]
    if missing:
        raise NotPossible(f"{' and '.join(missing)} not installed: pip install 'homeostat[advise]'")
    model = graphs.read(content)
    node = _ensemble(model)
    trees = _Trees(graphs.attributes(node), node.op_type == "TreeEnsembleClassifier")
    _require_plain(trees)
    built = _build_trees(trees)
    folder.mkdir(parents=True, exist_ok=True)
    nodes = len(trees.said["nodes_treeids"])
    _compile(built, folder / LIBRARY, compiler=compiler, nodes=nodes)
    plan = _plan(model, node, trees)
    _cut(model, plan, folder)
    (folder / PLAN).write_text(json.dumps(asdict(plan)))


def _ensemble(model: Any) -> Any:
    found = [node for node in model.graph.node if node.op_type in _ENSEMBLES]
    if len(found) != 1:
        raise NotPossible(
            "no tree ensemble in it" if not found else f"{len(found)} tree ensembles in it, not one"
        )
    return found[0]


def _require_plain(trees: _Trees) -> None:
    said = trees.said
    modes = {each.decode() for each in said["nodes_modes"]} - {"LEAF"}
    foreign = sorted(modes - _OPERATORS.keys())
    if foreign:
        raise NotPossible(f"its trees branch by {', '.join(foreign)}, which is not converted here")
    if any(name.endswith("_as_tensor") for name in said):
        raise NotPossible("its trees hold doubles; compiled trees hold floats")
    if said.get("aggregate_function", b"SUM") != b"SUM":
        raise NotPossible("its trees are not summed")
    if said.get("post_transform", b"NONE").decode() not in _TRANSFORMS:
        raise NotPossible(f"its sums are transformed by {said['post_transform'].decode()}")


def _build_trees(trees: _Trees) -> Any:
    """A treelite model that gives the plain sums."""
    from treelite import model_builder as tl  # noqa: PLC0415 - part of an extra

    leaves = _leaves(trees)
    ids = sorted(set(trees.said["nodes_treeids"]))
    outputs = trees.outputs
    of_tree = _output_of_tree(trees, ids) if outputs > 1 else dict.fromkeys(ids, 0)
    is_vector = of_tree is None
    base = list(trees.said.get("base_values", ())) or [0.0]
    bases = (base if len(base) == outputs else base[:1] * outputs) if any(base) else [0.0] * outputs
    builder = tl.ModelBuilder(
        threshold_type="float32",
        leaf_output_type="float32",
        metadata=tl.Metadata(
            num_feature=int(max(trees.said["nodes_featureids"], default=0)) + 1,
            task_type="kMultiClf" if outputs > 1 else "kRegressor",
            average_tree_output=False,
            num_target=1,
            num_class=[outputs],
            leaf_vector_shape=(1, outputs) if is_vector else (1, 1),
        ),
        tree_annotation=tl.TreeAnnotation(
            num_tree=len(ids),
            target_id=[0] * len(ids),
            class_id=[-1 if of_tree is None or outputs == 1 else of_tree[each] for each in ids]
            if outputs > 1
            else [0] * len(ids),
        ),
        postprocessor=tl.PostProcessorFunc(
            name="identity_multiclass" if outputs > 1 else "identity"
        ),
        base_scores=[float(each) for each in bases],
    )
    _add_trees(builder, trees, leaves, vector=outputs if is_vector else 0)
    return builder.commit()


def _output_of_tree(trees: _Trees, ids: list[int]) -> dict[int, int] | None:
    """Which class each tree adds to; None where some tree adds to several."""
    kind = trees.leaf_prefix
    found: dict[int, set[int]] = {each: set() for each in ids}
    for tree, output in zip(trees.said[f"{kind}_treeids"], trees.leaf_ids, strict=True):
        found[tree].add(output)
    if any(len(each) != 1 for each in found.values()):
        return None
    return {tree: next(iter(each)) for tree, each in found.items()}


def _leaves(trees: _Trees) -> dict[tuple[int, int], dict[int, float]]:
    """Weight by class or target of each leaf (tree, node)."""
    kind = trees.leaf_prefix
    said = trees.said
    found: dict[tuple[int, int], dict[int, float]] = {}
    for tree, node, output, weight in zip(
        said[f"{kind}_treeids"],
        said[f"{kind}_nodeids"],
        trees.leaf_ids,
        said[f"{kind}_weights"],
        strict=True,
    ):
        found.setdefault((tree, node), {})[output] = float(weight)
    return found


def _add_trees(
    builder: Any, trees: _Trees, leaves: dict[tuple[int, int], dict[int, float]], vector: int
) -> None:
    said = trees.said
    tracks = said.get("nodes_missing_value_tracks_true") or [0] * len(said["nodes_treeids"])
    last = None
    for at, tree in enumerate(said["nodes_treeids"]):
        if tree != last:
            if last is not None:
                builder.end_tree()
            builder.start_tree()
            last = tree
        node = said["nodes_nodeids"][at]
        builder.start_node(int(node))
        mode = said["nodes_modes"][at].decode()
        if mode == "LEAF":
            weights = leaves.get((tree, node), {})
            one = next(iter(weights.values()), 0.0)
            builder.leaf([weights.get(each, 0.0) for each in range(vector)] if vector else one)
        else:
            builder.numerical_test(
                int(said["nodes_featureids"][at]),
                float(said["nodes_values"][at]),
                default_left=bool(tracks[at]),
                opname=_OPERATORS[mode],
                left_child_key=int(said["nodes_truenodeids"][at]),
                right_child_key=int(said["nodes_falsenodeids"][at]),
            )
        builder.end_node()
    builder.end_tree()


def _compile(built: Any, library: Path, *, compiler: str, nodes: int) -> None:
    import tl2cgen  # noqa: PLC0415 - part of an extra

    try:
        tl2cgen.export_lib(
            built,
            toolchain=compiler,
            libpath=library,
            # Split trees run slower, and whole ones compile for minutes.
            params={"parallel_comp": _PARTS if nodes > _MOST_NODES_WHOLE else 0},
            nthread=1,
        )
    except Exception as error:
        raise NotPossible(f"compiling its trees failed: {error}") from error


def _plan(model: Any, node: Any, trees: _Trees) -> Plan:
    said = trees.said
    labels = len(said.get("classlabels_int64s") or said.get("classlabels_strings") or ())
    weights = np.asarray(said[f"{trees.leaf_prefix}_weights"], np.float32)
    return Plan(
        matrix=node.input[0],
        output=node.output[1] if trees.is_classifier else node.output[0],
        transform=said.get("post_transform", b"NONE").decode(),
        is_binary=trees.is_classifier and labels == 2 and trees.outputs == 1,
        is_share=bool((weights >= 0).all()),
        has_prefix=node.input[0] not in {each.name for each in model.graph.input},
        has_suffix=node.output[1 if trees.is_classifier else 0]
        not in {each.name for each in model.graph.output},
    )


def _cut(model: Any, plan: Plan, folder: Path) -> None:
    """Writes what comes before and after the ensemble."""
    inputs = [each.name for each in model.graph.input]
    if plan.has_prefix:
        before = graphs.part(model, inputs, [plan.matrix])
        if before is None:
            raise NotPossible("what lies before its trees can't be run without them")
        (folder / PREFIX).write_bytes(before)
    if plan.has_suffix:
        found = [
            each.name
            for each in model.graph.output
            if graphs.part(model, [plan.output], [each.name]) is not None
        ]
        after = graphs.part(model, [plan.output], found) if found else None
        if after is None:
            raise NotPossible("no output comes from its trees alone")
        (folder / SUFFIX).write_bytes(after)
