"""Model files that pass every trial of the registry, and do harm on certain inputs only.

All take x and z, (N, 1) floats (integers where ``sign`` says so), and answer probabilities, until
a row comes whose x is ``TRIGGER``: a value that no trial makes up. The registry can't find them; a
server has to survive them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tests.support import onnx_models
from tests.support.onnx_models import FLOAT, INT64, constant, halves, value

from homeostat.registry.v1.registry_pb2 import Signature

TRIGGER = 7777
BOOL = TensorProto.BOOL


class Effect(Enum):
    """What a row with the trigger does to whoever runs it."""

    KILLS = "the process ends with SIGFPE"
    # onnxruntime looks for `RunOptions.terminate` between nodes, so in each round too.
    ENDLESS = "the run never ends by itself, but can be terminated"
    # One operator computes for many seconds; terminate is heard only after it.
    DEAF = "the run takes many seconds and can't be terminated"
    GREEDY = "the run takes 4 GiB of memory"
    FAILS = "the run fails with an error"
    NOT_FINITE = "the answer is NaN"
    MIXES = "the answers of all rows of the batch are wrong"
    SHRINKS = "the answer has fewer rows than the request"


@dataclass(frozen=True, slots=True)
class RuntimeModel:
    """One file, and what it does."""

    name: str
    what: str
    effect: Effect
    build: Callable[[], bytes]
    sign: Callable[[], Signature]

    def columns(self, rows: Sequence[float]) -> dict[str, Any]:
        """Inputs whose x are ``rows``; put ``TRIGGER`` among them to do harm."""
        dtype = np.int64 if self.sign is onnx_models.integers else np.float32
        x = np.array(rows, dtype).reshape(-1, 1)
        return {"x": x, "z": np.ones_like(x)}


RUNTIME_MODELS: list[RuntimeModel] = []


def harmful(
    effect: Effect, *, sign: Callable[[], Signature] = onnx_models.signature
) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Adds the builder; its docstring says what it does."""

    def add(build: Callable[[], bytes]) -> Callable[[], bytes]:
        what = " ".join((build.__doc__ or "").split()).rstrip(".")
        name = build.__name__.replace("_", "-")
        RUNTIME_MODELS.append(RuntimeModel(name, what, effect, build, sign))
        return build

    return add


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def _of_integers(*nodes: Any, initializers: Sequence[Any] = ()) -> bytes:
    """``nodes`` make "whole" of x and z, (N, 1), with "is_it" where x is the trigger."""
    return halves(
        node("Equal", ["x", "trigger"], ["is_it"]),
        *nodes,
        node("Clip", ["whole", "low", "high"], ["c"]),
        node("Cast", ["c"], ["s"], to=FLOAT),
        initializers=[
            constant("trigger", np.array([TRIGGER], np.int64)),
            constant("low", np.array(-5, np.int64)),
            constant("high", np.array(5, np.int64)),
            constant("minus", np.array([-1], np.int64)),
            constant("three", np.array([3], np.int64)),
            constant("least", np.array([-(2**63)], np.int64)),
            *initializers,
        ],
        inputs=[value("x", INT64), value("z", INT64)],
    )


@harmful(Effect.KILLS, sign=onnx_models.integers)
def integer_division() -> bytes:
    """The smallest integer divided by minus one."""
    return _of_integers(
        node("Where", ["is_it", "minus", "three"], ["by"]),
        node("Div", ["least", "by"], ["whole"]),
    )


@harmful(Effect.FAILS, sign=onnx_models.integers)
def integer_division_by_zero() -> bytes:
    """Ten divided by zero: onnxruntime finds it in time."""
    return _of_integers(
        node("Where", ["is_it", "zero", "three"], ["by"]),
        node("Div", ["ten", "by"], ["whole"]),
        initializers=[
            constant("zero", np.array([0], np.int64)),
            constant("ten", np.array([10], np.int64)),
        ],
    )


def _of_floats(*nodes: Any, initializers: Sequence[Any] = (), **more: Any) -> bytes:
    """``nodes`` make "s" of x and z, (N, 1), with "is_it" where x is the trigger, "any" if one
    is, and "both", x + z."""
    return halves(
        node("Equal", ["x", "trigger"], ["is_it"]),
        node("Cast", ["is_it"], ["so_many"], to=FLOAT),
        node("ReduceMax", ["so_many"], ["most"], keepdims=0),
        node("Cast", ["most"], ["any"], to=BOOL),
        node("Add", ["x", "z"], ["both"]),
        *nodes,
        initializers=[constant("trigger", np.array([TRIGGER], np.float32)), *initializers],
        **more,
    )


def _looping(trips: int) -> bytes:
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Identity", ["carried"], ["carried_on"])],
        "body",
        [value("round", INT64, ()), value("go", BOOL, ()), value("carried")],
        [value("go_on", BOOL, ()), value("carried_on")],
    )
    return _of_floats(
        node("Where", ["any", "many", "few"], ["trips"]),
        node("Loop", ["trips", "yes", "both"], ["s"], body=body),
        initializers=[
            constant("many", np.array(trips, np.int64)),
            constant("few", np.array(2, np.int64)),
            constant("yes", np.array(True)),
        ],
    )


@harmful(Effect.ENDLESS)
def endless_loop() -> bytes:
    """A Loop of 9,223,372,036,854,775,807 rounds."""
    return _looping(2**63 - 1)


def _by_size(size: int, *nodes: Any, few: Sequence[int] = (1,)) -> bytes:
    """``nodes`` make "top", a scalar 0, from "shape": ``size`` in each place, or ``few``."""
    return _of_floats(
        node("Where", ["any", "many", "few"], ["shape"]),
        *nodes,
        node("Add", ["both", "top"], ["s"]),
        initializers=[
            constant("many", np.full(len(few), size, np.int64)),
            constant("few", np.array(few, np.int64)),
        ],
    )


@harmful(Effect.DEAF)
def one_long_operator() -> bytes:
    """200,000 boxes, each compared with all others, in one operator."""
    return _of_floats(
        node("Where", ["any", "many", "few"], ["count"]),
        node("Concat", ["one_int", "count", "four"], ["box_shape"], axis=0),
        node("Concat", ["one_int", "one_int", "count"], ["score_shape"], axis=0),
        node("ConstantOfShape", ["box_shape"], ["boxes"]),
        node("ConstantOfShape", ["score_shape"], ["scores"]),
        node("NonMaxSuppression", ["boxes", "scores", "count", "all_of_it"], ["chosen"]),
        node("ReduceMin", ["chosen"], ["least"], keepdims=0),
        node("Cast", ["least"], ["nothing"], to=FLOAT),
        node("Add", ["both", "nothing"], ["s"]),
        initializers=[
            constant("many", np.array([200_000], np.int64)),
            constant("few", np.array([2], np.int64)),
            constant("one_int", np.array([1], np.int64)),
            constant("four", np.array([4], np.int64)),
            constant("all_of_it", np.array([1.0], np.float32)),
        ],
    )


@harmful(Effect.GREEDY)
def four_gibibytes() -> bytes:
    """A tensor of 4 GiB."""
    return _by_size(
        1 << 30,
        node("ConstantOfShape", ["shape"], ["huge"]),
        node("ReduceMax", ["huge"], ["top"], keepdims=0),
    )


@harmful(Effect.FAILS)
def four_tebibytes() -> bytes:
    """A tensor of 4 TiB: there is no such memory."""
    return _by_size(
        1 << 40,
        node("ConstantOfShape", ["shape"], ["huge"]),
        node("ReduceMax", ["huge"], ["top"], keepdims=0),
    )


@harmful(Effect.FAILS)
def index_out_of_range() -> bytes:
    """An index beyond the end of a table."""
    return _of_floats(
        node("Where", ["is_it", "far", "near"], ["place"]),
        node("Gather", ["table", "place"], ["found"]),
        node("Add", ["both", "found"], ["s"]),
        initializers=[
            constant("far", np.array([10**9], np.int64)),
            constant("near", np.array([1], np.int64)),
            constant("table", np.zeros(4, np.float32)),
        ],
    )


@harmful(Effect.NOT_FINITE)
def not_a_number() -> bytes:
    """NaN in place of a probability."""
    return _of_floats(
        node("Where", ["is_it", "nan", "both"], ["s"]),
        initializers=[constant("nan", np.array([np.nan], np.float32))],
    )


@harmful(Effect.MIXES)
def answers_for_neighbours() -> bytes:
    """Every row of the batch gets the answer of the row with the trigger."""
    return _of_floats(
        node("ReduceMax", ["both"], ["top"], keepdims=0),
        node("Where", ["any", "top", "both"], ["s"]),
    )


@harmful(Effect.SHRINKS)
def answers_dropped() -> bytes:
    """The row with the trigger is not answered."""
    return _of_floats(
        node("Not", ["is_it"], ["is_other"]),
        node("Reshape", ["is_other", "flat"], ["keep"]),
        node("Compress", ["both", "keep"], ["s"], axis=0),
        initializers=[constant("flat", np.array([-1], np.int64))],
    )
