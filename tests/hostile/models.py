"""Model files made to do harm, each with the answer that RegisterVersion gives.

A builder makes the file's bytes; nothing of it stands in the repository. Where no library would
write such a file, its Protocol Buffers are written by hand (``chunk``, ``number``).
"""

import io
import itertools
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, SparseTensorProto, TensorProto, helper
from tests.support import onnx_models
from tests.support.onnx_models import FLOAT, INT64, classifier, constant, halves, model, value

from homeostat.registry.v1.registry_pb2 import Signature

MIB = 1024 * 1024
BOOL = TensorProto.BOOL
STRING = TensorProto.STRING
ML = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
OK = "OK"
BAD = "INVALID_ARGUMENT"


@dataclass(frozen=True, slots=True)
class HostileModel:
    """One file and its documented answer."""

    name: str
    # What is wrong with it, for a reader.
    what: str
    build: Callable[[], bytes]
    # What the status text has to say.
    words: str
    code: str = BAD
    sign: Callable[[], Signature] = onnx_models.signature


HOSTILE_MODELS: list[HostileModel] = []


def hostile(
    words: str, *, code: str = BAD, sign: Callable[[], Signature] = onnx_models.signature
) -> Callable[[Callable[[], bytes]], Callable[[], bytes]]:
    """Adds the builder to the corpus; its docstring says what is wrong with the file."""

    def add(build: Callable[[], bytes]) -> Callable[[], bytes]:
        what = " ".join((build.__doc__ or "").split()).rstrip(".")
        name = build.__name__.strip("_").replace("_", "-")
        HOSTILE_MODELS.append(HostileModel(name, what, build, words, code, sign))
        return build

    return add


def node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def changed(**fields: Any) -> bytes:
    """A good model with fields of its own."""
    made = ModelProto.FromString(classifier())
    for name, content in fields.items():
        setattr(made, name, content)
    return made.SerializeToString()


def after(*before: Any, floats: Sequence[float] = (), **more: Any) -> bytes:
    """``halves`` whose ``before`` makes "extra", a scalar or (N, 1), that is added to x + z."""
    return halves(
        *before,
        node("Add", ["x", "z"], ["both"]),
        node("Add", ["both", "extra"], ["s"]),
        **more,
    )


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


def varint(size: int) -> bytes:
    out = bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([*out, size])


def chunk(field: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(field << 3 | 2) + varint(len(content)) + content


def number(field: int, content: int) -> bytes:
    return varint(field << 3) + varint(content)


def by_hand(graph: bytes) -> bytes:
    """A ModelProto of such a graph."""
    opset = number(2, 17)
    return number(1, 8) + chunk(7, graph) + chunk(8, opset)


# --- What is no model -------------------------------------------------------------------------


@hostile("empty")
def empty_file() -> bytes:
    """No bytes."""
    return b""


@hostile("ONNX")
def garbage() -> bytes:
    """4 KiB of noise."""
    return np.random.default_rng(1).bytes(4096)


@hostile("cut or of another format")
def truncated() -> bytes:
    """A good file without its last 20 bytes."""
    return classifier()[:-20]


@hostile("ONNX")
def truncated_to_one_byte() -> bytes:
    """The first byte of a good file."""
    return classifier()[:1]


@hostile("ONNX")
def html_page() -> bytes:
    """What a proxy answers in a file's place."""
    return b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


@hostile("ONNX")
def plain_text() -> bytes:
    """A pointer of Git's large file storage."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


@hostile("ONNX")
def a_pickle() -> bytes:
    """Code that runs when it is unpickled."""
    return pickle.dumps({"weights": [1.0, 2.0]}) + b"cposix\nsystem\n(S'true'\ntR."


@hostile("ONNX")
def a_zip() -> bytes:
    """A zip archive, as other frameworks save models."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(10 * MIB))
    return packed.getvalue()


@hostile("ONNX")
def all_zeros() -> bytes:
    """1 MiB of zeros, as a crash leaves in a file."""
    return bytes(MIB)


@hostile("ONNX")
def endless_varint() -> bytes:
    """A number of 10,000 bytes."""
    return b"\x08" + b"\xff" * 10_000


@hostile("ONNX")
def length_of_two_gigabytes() -> bytes:
    """A graph that says that it has 2 GiB and has none."""
    return number(1, 8) + b"\x3a" + varint(2**31) + b"\0" * 100


@hostile("no graph")
def empty_graph() -> bytes:
    """A graph without nodes."""
    return model([]).SerializeToString()


@hostile("no graph")
def no_graph() -> bytes:
    """A version number and nothing else."""
    return ModelProto(ir_version=8).SerializeToString()


@hostile("no graph")
def no_ir_version() -> bytes:
    """A model that does not say by which version of the format."""
    made = ModelProto.FromString(classifier())
    made.ClearField("ir_version")
    return made.SerializeToString()


# --- Versions and domains ---------------------------------------------------------------------


@hostile("IR version")
def ir_too_new() -> bytes:
    """IR version 99."""
    return changed(ir_version=99)


@hostile("IR version")
def ir_too_old() -> bytes:
    """IR version 1."""
    return changed(ir_version=1)


@hostile("IR version")
def ir_negative() -> bytes:
    """IR version -1."""
    return changed(ir_version=-1)


@hostile("opset of ai.onnx is 99")
def opset_too_new() -> bytes:
    """Opset 99."""
    return model(_both(), opsets=[helper.make_opsetid("", 99)]).SerializeToString()


@hostile("opset of ai.onnx is 3")
def opset_too_old() -> bytes:
    """Opset 3."""
    return model(_both(), opsets=[helper.make_opsetid("", 3)]).SerializeToString()


@hostile("needs an opset_import")
def opset_missing() -> bytes:
    """No opset at all."""
    made = ModelProto.FromString(classifier())
    del made.opset_import[:]
    return made.SerializeToString()


@hostile("two opsets of one domain")
def opset_twice() -> bytes:
    """Two opsets of one domain."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("", 9)]
    return model(_both(), opsets=opsets).SerializeToString()


@hostile("operator domain 'com.microsoft'")
def microsoft_operator() -> bytes:
    """An operator that onnxruntime knows and the standard does not."""
    return onnx_models.foreign_domain()


@hostile("operator domain 'ai.onnx.preview.training'")
def training_operator() -> bytes:
    """An operator that trains."""
    domain = "ai.onnx.preview.training"
    return after(
        node("Adam", ["x", "z", "x", "z", "x", "z"], ["extra", "b", "c"], domain=domain),
        opsets=[helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)],
    )


@hostile("operator domain 'evil'")
def custom_operator() -> bytes:
    """An operator of a library that is to be loaded."""
    return after(
        node("Run", ["x"], ["extra"], domain="evil"),
        opsets=[helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)],
    )


@hostile("of the domain 'evil'")
def custom_operator_unannounced() -> bytes:
    """The same without an opset_import."""
    return after(node("Run", ["x"], ["extra"], domain="evil"))


@hostile("Unknown operator Frobnicate")
def unknown_operator() -> bytes:
    """An operator that no standard has."""
    return onnx_models.unknown_operator()


@hostile("has 52428800 letters")
def operator_name_of_50_megabytes() -> bytes:
    """An unknown operator whose name has 50 MB."""
    return after(node("F" * 50 * MIB, ["x"], ["extra"]))


@hostile("local functions")
def local_function() -> bytes:
    """A function of its own."""
    return onnx_models.local_function()


@hostile("local functions")
def nested_functions() -> bytes:
    """Functions that call each other twice: 2 to the power of 40 nodes once they are inlined."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = []
    for level in range(40):
        kind = {"domain": "own"} if level else {}
        called = f"F{level - 1}" if level else "Neg"
        body = [node(called, ["a"], ["b"], **kind), node(called, ["b"], ["c"], **kind)]
        functions.append(helper.make_function("own", f"F{level}", ["a"], ["c"], body, opsets))
    return after(node("F39", ["x"], ["extra"], domain="own"), opsets=opsets, functions=functions)


@hostile("local functions")
def endless_functions() -> bytes:
    """A function that calls itself."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [node("F", ["a"], ["b"], domain="own")]
    return after(
        node("F", ["x"], ["extra"], domain="own"),
        opsets=opsets,
        functions=[helper.make_function("own", "F", ["a"], ["b"], body, opsets)],
    )


@hostile("training_info")
def training_info() -> bytes:
    """A graph that trains, beside the one that answers."""
    made = ModelProto.FromString(classifier())
    made.training_info.add().algorithm.CopyFrom(made.graph)
    return made.SerializeToString()


# --- Files beside the file ---------------------------------------------------------------------


def _external(location: str, **more: str) -> bytes:
    weight = TensorProto(name="extra", data_type=FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    for key, content in {"location": location, **more}.items():
        entry = weight.external_data.add()
        entry.key, entry.value = key, content
    return after(initializers=[weight])


@hostile("external data")
def external_data() -> bytes:
    """A weight in a file beside it."""
    return _external("weights.bin")


@hostile("external data")
def external_traversal() -> bytes:
    """A weight up and away: ../../../etc/passwd."""
    return _external("../../../../../../etc/passwd", offset="0", length="64")


@hostile("external data")
def external_absolute() -> bytes:
    """A weight at an absolute path."""
    return _external("/etc/hostname")


@hostile("external data")
def external_symlink() -> bytes:
    """A weight behind a symbolic link: /proc/self/environ."""
    return _external("/proc/self/environ")


@hostile("external data")
def external_hard_link() -> bytes:
    """A weight in a file by another name: /dev/fd/3."""
    return _external("/dev/fd/3")


@hostile("external data")
def external_fifo() -> bytes:
    """A weight from where nothing ever comes: /dev/stdin."""
    return _external("/dev/stdin")


@hostile("external data")
def external_in_attribute() -> bytes:
    """A Constant's tensor in another file."""
    weight = TensorProto(name="w", data_type=FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    return after(node("Constant", [], ["extra"], value=weight))


@hostile("external data")
def external_in_subgraph() -> bytes:
    """An initialiser of an If's branch in another file."""
    weight = TensorProto(name="w", data_type=FLOAT, dims=[1])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")
    branch = helper.make_graph(
        [node("Identity", ["w"], ["o"])], "branch", [], [value("o", shape=(1,))], [weight]
    )
    return after(
        node("If", ["yes"], ["extra"], then_branch=branch, else_branch=branch),
        initializers=[constant("yes", np.array(True))],
    )


@hostile("external data")
def external_without_mark() -> bytes:
    """Entries of external data in a tensor that says that it has none."""
    weight = TensorProto(name="extra", data_type=FLOAT, dims=[1], raw_data=b"\0\0\0\0")
    weight.external_data.add(key="location", value="/etc/hostname")
    return after(initializers=[weight])


# --- Tensors ------------------------------------------------------------------------------------


@hostile("checker")
def giant_shape_without_data() -> bytes:
    """An initialiser of 2 to the power of 62 numbers that holds four bytes."""
    return onnx_models.false_initializer()


@hostile("checker")
def overflowing_shape() -> bytes:
    """An initialiser whose number of elements overflows to 0."""
    bomb = TensorProto(name="extra", data_type=FLOAT, dims=[1 << 32, 1 << 32])
    return after(initializers=[bomb])


@hostile("Negative dimension")
def negative_shape() -> bytes:
    """An initialiser with a negative size."""
    bad = TensorProto(name="extra", data_type=FLOAT, dims=[-1], raw_data=b"\0\0\0\0")
    return after(initializers=[bad])


@hostile("checker")
def wrong_byte_length() -> bytes:
    """An initialiser of four numbers with five bytes."""
    bad = TensorProto(name="extra", data_type=FLOAT, dims=[4], raw_data=b"\0\0\0\0\0")
    return after(initializers=[bad])


@hostile("checker")
def two_kinds_of_data() -> bytes:
    """An initialiser with raw bytes and numbers."""
    bad = TensorProto(name="extra", data_type=FLOAT, dims=[1], raw_data=b"\0\0\0\0")
    bad.float_data.append(1.0)
    return after(initializers=[bad])


@hostile("onnxruntime does not load")
def unknown_datatype() -> bytes:
    """An initialiser of the datatype 99."""
    bad = TensorProto(name="extra", data_type=99, dims=[1], raw_data=b"\0\0\0\0")
    return after(initializers=[bad])


@hostile("a string of 52428800 bytes")
def string_of_50_megabytes() -> bytes:
    """A category of 50 MB."""
    return after(
        node("Equal", ["huge", "huge"], ["e"]),
        node("Cast", ["e"], ["extra"], to=FLOAT),
        initializers=[helper.make_tensor("huge", STRING, [1], [b"x" * 50 * MIB])],
        opsets=[helper.make_opsetid("", 19)],
    )


def _sparse(dims: Sequence[int], indices: Sequence[int]) -> bytes:
    made = ModelProto.FromString(after())
    sparse = SparseTensorProto(dims=dims)
    sparse.values.CopyFrom(constant("extra", np.ones(len(indices), np.float32)))
    sparse.indices.CopyFrom(constant("", ints(*indices)))
    made.graph.sparse_initializer.append(sparse)
    return made.SerializeToString()


@hostile("onnxruntime does not load")
def sparse_giant() -> bytes:
    """A sparse initialiser of 4 TiB once it is dense."""
    return _sparse([1 << 40], [0])


@hostile("checker")
def sparse_out_of_range() -> bytes:
    """A sparse initialiser with an index beyond its end."""
    return _sparse([4], [1000])


@hostile("checker")
def sparse_negative() -> bytes:
    """A sparse initialiser with a negative index."""
    return _sparse([4], [-5])


# --- Graphs -------------------------------------------------------------------------------------


def _both() -> list[Any]:
    return [node("Concat", ["x", "z"], ["probabilities"], axis=1)]


@hostile("checker")
def duplicate_names() -> bytes:
    """Two nodes make one value."""
    return after(node("Neg", ["x"], ["extra"]), node("Abs", ["x"], ["extra"]))


@hostile("checker")
def duplicate_inputs() -> bytes:
    """Two inputs with one name."""
    return model(_both(), inputs=[value("x"), value("x"), value("z")]).SerializeToString()


@hostile("checker")
def cycle() -> bytes:
    """Two nodes that wait for each other."""
    return after(node("Neg", ["extra"], ["a"]), node("Neg", ["a"], ["extra"]))


@hostile("checker")
def undefined_input() -> bytes:
    """A node that takes what nobody makes."""
    return after(node("Neg", ["nothing"], ["extra"]))


@hostile("is not an output of any node")
def missing_output() -> bytes:
    """An output that nobody makes."""
    return model([node("Neg", ["x"], ["other"])]).SerializeToString()


@hostile("no output 'probabilities'")
def other_output() -> bytes:
    """The signature's output by another name."""
    return model(
        [node("Concat", ["x", "z"], ["p"], axis=1)], outputs=[value("p", shape=("N", 2))]
    ).SerializeToString()


@hostile("the model has no 'x', 'z'")
def zero_inputs() -> bytes:
    """A model without inputs."""
    made = ModelProto.FromString(
        model(
            [node("Identity", ["p"], ["probabilities"])],
            outputs=[value("probabilities", shape=(1, 2))],
            initializers=[constant("p", np.array([[0.5, 0.5]], np.float32))],
        ).SerializeToString()
    )
    del made.graph.input[:]
    return made.SerializeToString()


@hostile("FP64 in the model but FP32")
def wrong_input_datatype() -> bytes:
    """Doubles where the signature says floats."""
    kinds = [value(name, TensorProto.DOUBLE) for name in ("x", "z")]
    outputs = [value("probabilities", TensorProto.DOUBLE, ("N", 2))]
    return model(_both(), inputs=kinds, outputs=outputs).SerializeToString()


@hostile("INT64 in the model but FP32")
def wrong_output_datatype() -> bytes:
    """Whole numbers where the signature says probabilities."""
    return model(
        [*(node("Concat", ["x", "z"], ["c"], axis=1),),
         node("Cast", ["c"], ["probabilities"], to=INT64)],
        outputs=[value("probabilities", INT64, ("N", 2))],
    ).SerializeToString()  # fmt: skip


@hostile("checker")
def lying_output_type() -> bytes:
    """An output that is declared without a shape and comes with another."""
    made = ModelProto.FromString(
        model([node("Concat", ["x", "z", "x"], ["probabilities"], axis=1)]).SerializeToString()
    )
    made.graph.output[0].type.tensor_type.ClearField("shape")
    return made.SerializeToString()


@hostile("shape")
def wrong_rank() -> bytes:
    """Inputs of one dimension where the signature says two."""
    return model(
        [node("Unsqueeze", [name, "one"], [f"{name}2"]) for name in ("x", "z")]
        + [node("Concat", ["x2", "z2"], ["probabilities"], axis=1)],
        inputs=[value("x", shape=("N",)), value("z", shape=("N",))],
        initializers=[constant("one", ints(1))],
    ).SerializeToString()


@hostile("takes exactly 7 rows")
def fixed_batch() -> bytes:
    """Exactly seven rows at once."""
    return model(
        _both(),
        inputs=[value("x", shape=(7, 1)), value("z", shape=(7, 1))],
        outputs=[value("probabilities", shape=(7, 2))],
    ).SerializeToString()


def _wide() -> Signature:
    said = onnx_models.signature()
    said.outputs[0].shape[1] = -1
    return said


@hostile("columns for 2 classes", sign=_wide)
def columns_by_the_data() -> bytes:
    """As many columns as there are rows."""
    return model(
        [
            node("Transpose", ["z"], ["turned"]),
            node("MatMul", ["x", "turned"], ["square"]),
            node("Softmax", ["square"], ["probabilities"], axis=1),
        ],
        outputs=[value("probabilities", shape=("N", "M"))],
    ).SerializeToString()


@hostile("for 64 rows")
def row_count_of_its_own() -> bytes:
    """One answer however many rows come."""
    return halves(
        node("ReduceMean", ["x"], ["own"], axes=[0], keepdims=1),
        node("Identity", ["own"], ["s"]),
    )


@hostile("its first dimension must be the rows")
def fewer_rows() -> bytes:
    """Answers for the rows above zero only."""
    return halves(
        node("Reshape", ["x", "flat"], ["line"]),
        node("Greater", ["line", "zero"], ["is_above"]),
        node("Compress", ["x", "is_above"], ["s"], axis=0),
        initializers=[constant("flat", ints(-1)), constant("zero", np.float32(0))],
    )


@hostile("alone and among others")
def mean_of_the_batch() -> bytes:
    """Each answer depends on the mean of its batch."""
    return onnx_models.across_rows()


@hostile("alone and among others")
def running_sum() -> bytes:
    """Each answer holds the rows before it."""
    return halves(
        node("CumSum", ["x", "rows"], ["sum"]),
        node("Add", ["sum", "z"], ["s"]),
        initializers=[constant("rows", np.array(0, np.int64))],
    )


@hostile("alone and among others")
def sorted_answers() -> bytes:
    """Answers in another order than the rows."""
    return halves(
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "first"], ["rows"], axis=0),
        node("TopK", ["x", "rows"], ["s", "places"], axis=0),
        initializers=[constant("first", ints(0))],
    )


@hostile("alone and among others")
def neighbour_leak() -> bytes:
    """Each row is answered with the features of the row before it: one client reads another's."""
    return halves(
        node("Slice", ["x", "minus", "end", "axis"], ["last"]),
        node("Slice", ["x", "begin", "minus", "axis"], ["rest"]),
        node("Concat", ["last", "rest"], ["s"], axis=0),
        initializers=[
            constant("minus", ints(-1)), constant("begin", ints(0)),
            constant("end", ints(2**31)), constant("axis", ints(0)),
        ],
    )  # fmt: skip


@hostile("alone and among others")
def batch_normalisation_of_the_batch() -> bytes:
    """Normalised by the batch, as in training."""
    return halves(
        node("LpNormalization", ["x"], ["s"], axis=0, p=2),
    )


@hostile("turn ZipMap off")
def zip_map() -> bytes:
    """A sequence of maps where a tensor belongs."""
    made = helper.make_sequence_type_proto(
        helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, None))
    )
    domain = "ai.onnx.ml"
    return model(
        [
            node("Concat", ["x", "z"], ["row"], axis=1),
            node("Softmax", ["row"], ["p"], axis=1),
            node("ZipMap", ["p"], ["probabilities"], domain=domain, classlabels_int64s=[0, 1]),
        ],
        outputs=[helper.make_value_info("probabilities", made)],
        opsets=ML,
    ).SerializeToString()  # fmt: skip


@hostile("only tensors are served")
def sequence_output() -> bytes:
    """A sequence of tensors where a tensor belongs."""
    made = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    return model(
        [node("SequenceConstruct", ["x", "z"], ["probabilities"])],
        outputs=[helper.make_value_info("probabilities", made)],
    ).SerializeToString()


@hostile("only tensors are served")
def optional_output() -> bytes:
    """An optional tensor where a tensor belongs."""
    made = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    return model(
        [node("Concat", ["x", "z"], ["row"], axis=1), node("Optional", ["row"], ["probabilities"])],
        outputs=[helper.make_value_info("probabilities", made)],
        opsets=[helper.make_opsetid("", 18)],
    ).SerializeToString()


def _nested(kind: bytes, attribute: bytes, depth: int) -> bytes:
    """Graphs within graphs, which no library would write."""
    inner = b""
    for _ in range(depth):
        body = chunk(1, attribute) + chunk(6, inner) + number(20, 5)
        inner = chunk(1, chunk(1, b"c") + chunk(2, b"o") + chunk(4, kind) + chunk(5, body))
    return by_hand(inner)


@hostile("nested too deep")
def nested_ifs() -> bytes:
    """3,000 Ifs, each in a branch of the one before."""
    return _nested(b"If", b"then_branch", 3000)


@hostile("nested too deep")
def nested_loops() -> bytes:
    """3,000 Loops, each in the body of the one before."""
    return _nested(b"Loop", b"body", 3000)


@hostile("nested too deep")
def nested_scans() -> bytes:
    """3,000 Scans, each in the body of the one before."""
    return _nested(b"Scan", b"body", 3000)


@hostile("nested more than 16 deep")
def nested_a_little_too_deep() -> bytes:
    """20 Ifs, each in a branch of the one before."""
    return _nested(b"If", b"then_branch", 20)


@hostile("more than 50000 nodes")
def a_hundred_thousand_nodes() -> bytes:
    """A chain of 100,000 nodes."""
    names = ["x", *(f"v{at}" for at in range(100_000))]
    chain = [node("Neg", [one], [two]) for one, two in itertools.pairwise(names)]
    return halves(*chain, node("Add", [names[-1], "z"], ["s"]))


@hostile("more than 50000 nodes")
def a_million_nodes() -> bytes:
    """A million empty nodes."""
    return by_hand(chunk(1, chunk(4, b"Neg")) * 1_000_000)


# --- Texts --------------------------------------------------------------------------------------


@hostile("doc_string and metadata")
def doc_string_of_50_megabytes() -> bytes:
    """A remark of 50 MB."""
    return changed(doc_string="x" * 50 * MIB)


@hostile("doc_string and metadata")
def metadata_of_50_megabytes() -> bytes:
    """50 properties of 1 MB each."""
    made = ModelProto.FromString(classifier())
    for at in range(50):
        made.metadata_props.add(key=f"k{at}", value="x" * MIB)
    return made.SerializeToString()


@hostile("control characters")
def name_with_nul() -> bytes:
    """A value's name with a NUL."""
    return after(node("Neg", ["x"], ["a\0b"]), node("Neg", ["a\0b"], ["extra"]))


@hostile("control characters")
def name_with_newline() -> bytes:
    """A node's name that forges a line of a log."""
    return after(node("Neg", ["x"], ["extra"], name='a\n{"level":"info","event":"promoted"}'))


@hostile("control characters")
def name_with_escape() -> bytes:
    """A name that clears a terminal."""
    return after(node("Neg", ["x"], ["extra"], name="\x1b[2J\x1b[1;1H"))


@hostile("5000 letters")
def name_of_5000_letters() -> bytes:
    """A value's name of 5,000 letters."""
    return after(node("Neg", ["x"], ["n" * 5000]), node("Neg", ["n" * 5000], ["extra"]))


@hostile("", code=OK)
def name_with_path() -> bytes:
    """A value's name that is a path: harmless, since no name is ever one of a file."""
    name = "../../../../tmp/owned"
    return after(node("Neg", ["x"], [name]), node("Neg", [name], ["extra"]))


@hostile("not UTF-8")
def name_not_utf8() -> bytes:
    """A node's name in Latin-1."""
    return classifier().replace(b"logits", b"log\xe9ts")


# --- Answers ------------------------------------------------------------------------------------


@hostile("random operators")
def random_normal() -> bytes:
    """Noise in the answers."""
    return onnx_models.random_answers()


@hostile("random operators")
def random_uniform_seeded() -> bytes:
    """Noise with a seed, the same at each start and another at each request."""
    return after(node("RandomUniform", [], ["extra"], shape=[1], seed=1.0))


@hostile("random operators")
def multinomial() -> bytes:
    """A draw in place of a decision."""
    return after(
        node("Concat", ["x", "z"], ["row"], axis=1),
        node("Multinomial", ["row"], ["drawn"], sample_size=1),
        node("Cast", ["drawn"], ["extra"], to=FLOAT),
    )


@hostile("random operators")
def bernoulli() -> bytes:
    """A coin in place of a probability."""
    return after(node("Sigmoid", ["x"], ["p"]), node("Bernoulli", ["p"], ["extra"]))


@hostile("random operators")
def random_in_a_branch() -> bytes:
    """Noise in one branch of an If."""
    branch = helper.make_graph(
        [node("RandomNormal", [], ["o"], shape=[1])], "branch", [], [value("o", shape=(1,))]
    )
    return after(
        node("If", ["yes"], ["extra"], then_branch=branch, else_branch=branch),
        initializers=[constant("yes", np.array(True))],
    )


@hostile("training mode")
def dropout_in_training() -> bytes:
    """A Dropout that drops one in a million."""
    return halves(
        node("Add", ["x", "z"], ["both"]),
        node("Dropout", ["both", "ratio", "training"], ["s"]),
        initializers=[
            constant("ratio", np.float32(1e-6)), constant("training", np.array(True)),
        ],
    )  # fmt: skip


@hostile("not finite")
def log_of_negatives() -> bytes:
    """NaN for every negative feature."""
    return halves(node("Log", ["x"], ["l"]), node("Add", ["l", "z"], ["s"]))


@hostile("not finite")
def division_by_nothing() -> bytes:
    """Infinities."""
    return model(
        [
            node("Sub", ["x", "x"], ["nothing"]),
            node("Div", ["z", "nothing"], ["d"]),
            node("Concat", ["d", "d"], ["probabilities"], axis=1),
        ]
    ).SerializeToString()


@hostile("outside 0 to 1")
def raw_scores() -> bytes:
    """Scores where probabilities belong."""
    return model(_both()).SerializeToString()


@hostile("don't add up to 1")
def improbable() -> bytes:
    """Probabilities that add up to 2."""
    return model(
        [
            node("Concat", ["x", "z"], ["row"], axis=1),
            node("Mul", ["row", "none"], ["zeros"]),
            node("Add", ["zeros", "all"], ["probabilities"]),
        ],
        initializers=[constant("none", np.float32(0)), constant("all", np.float32(1))],
    ).SerializeToString()


# --- Hogs ---------------------------------------------------------------------------------------

_MEMORY = "HOMEOSTAT_REGISTRY_ADMISSION_MEMORY_BYTES"
_TIME = "did not finish its trial"


@hostile(_TIME)
def endless_loop() -> bytes:
    """A Loop whose condition never turns false."""
    return onnx_models.endless()


def _loop(trips: int) -> bytes:
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Neg", ["carried"], ["carried_on"])],
        "body",
        [value("round", INT64, ()), value("go", BOOL, ()), value("carried")],
        [value("go_on", BOOL, ()), value("carried_on")],
    )
    return halves(
        node("Add", ["x", "z"], ["both"]),
        node("Loop", ["trips", "yes", "both"], ["s"], body=body),
        initializers=[
            constant("trips", np.array(trips, np.int64)),
            constant("yes", np.array(True)),
        ],
    )


@hostile(_TIME)
def huge_trip_count() -> bytes:
    """A Loop of 9,223,372,036,854,775,807 rounds."""
    return _loop(2**63 - 1)


@hostile(_MEMORY)
def growing_loop() -> bytes:
    """A Loop that doubles a tensor in each of its 60 rounds."""
    body = helper.make_graph(
        [
            node("Identity", ["go"], ["go_on"]),
            node("Concat", ["carried", "carried"], ["carried_on"], axis=1),
        ],
        "body",
        [value("round", INT64, ()), value("go", BOOL, ()), value("carried", shape=("N", "M"))],
        [value("go_on", BOOL, ()), value("carried_on", shape=("N", "M"))],
    )
    return halves(
        node("Add", ["x", "z"], ["both"]),
        node("Loop", ["trips", "yes", "both"], ["wide"], body=body),
        node("ReduceMax", ["wide"], ["s"], axes=[1], keepdims=1),
        initializers=[
            constant("trips", np.array(60, np.int64)), constant("yes", np.array(True)),
        ],
    )  # fmt: skip


def _total(*nodes: Any, initializers: Sequence[Any] = ()) -> bytes:
    """The sum of a "huge" tensor in the answers."""
    return after(
        *nodes,
        node("ReduceMax", ["huge"], ["extra"], keepdims=0),
        initializers=list(initializers),
    )


@hostile(_MEMORY)
def constant_of_shape_bomb() -> bytes:
    """ConstantOfShape of 4 TB."""
    return onnx_models.shape_bomb()


@hostile(_MEMORY)
def expand_bomb() -> bytes:
    """Expand to 4 TB."""
    return _total(
        node("Expand", ["one1", "size"], ["huge"]),
        initializers=[
            constant("one1", np.ones(1, np.float32)), constant("size", ints(1 << 20, 1 << 20)),
        ],
    )  # fmt: skip


@hostile("exceeds the supported maximum")
def tile_bomb() -> bytes:
    """Tile by a million millions."""
    return _total(
        node("Tile", ["x", "times"], ["huge"]),
        initializers=[constant("times", ints(1 << 20, 1 << 20))],
    )


@hostile(_MEMORY)
def range_bomb() -> bytes:
    """Range of 4 TB."""
    return _total(
        node("Range", ["from", "to", "by"], ["huge"]),
        initializers=[
            constant("from", np.float32(0)), constant("to", np.float32(1e12)),
            constant("by", np.float32(1)),
        ],
    )  # fmt: skip


@hostile(_MEMORY)
def pad_bomb() -> bytes:
    """Pad by a million millions."""
    return _total(
        node("Pad", ["x", "pads"], ["huge"]),
        initializers=[constant("pads", ints(0, 1 << 40, 0, 1 << 40))],
    )


@hostile("Integer overflow")
def overflowing_pad() -> bytes:
    """Pads whose sum overflows."""
    return _total(
        node("Pad", ["x", "pads"], ["huge"]),
        initializers=[constant("pads", ints(0, 2**62, 0, 2**62))],
    )


@hostile(_MEMORY)
def one_hot_bomb() -> bytes:
    """OneHot of a million million columns."""
    return _total(
        node("Cast", ["x"], ["places"], to=INT64),
        node("OneHot", ["places", "depth", "values"], ["huge"]),
        initializers=[
            constant("depth", ints(1 << 40)), constant("values", np.array([0, 1], np.float32)),
        ],
    )  # fmt: skip


@hostile(_MEMORY)
def einsum_bomb() -> bytes:
    """An Einsum whose result has ten dimensions of 64."""
    return after(
        node("ConstantOfShape", ["size"], ["w"]),
        node("Einsum", ["w", "w", "w", "w", "w"], ["huge"], equation="ab,cd,ef,gh,ij->abcdefghij"),
        node("ReduceMax", ["huge"], ["extra"], keepdims=0),
        initializers=[constant("size", ints(64, 64))],
    )


@hostile(_MEMORY)
def einsum_hog() -> bytes:
    """An Einsum that contracts four matrices of 512 by 512 at once."""
    return after(
        node("ConstantOfShape", ["size"], ["w"]),
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Add", ["w", "most"], ["v"]),
        node("Einsum", ["v", "v", "v", "v"], ["extra"], equation="ab,cd,ac,bd->"),
        initializers=[constant("size", ints(512, 512))],
    )


@hostile(_MEMORY)
def resize_bomb() -> bytes:
    """Resize to a picture of a million by a million."""
    return _total(
        node("Unsqueeze", ["x", "axes"], ["picture"]),
        node("Resize", ["picture", "", "scales"], ["huge"], mode="nearest"),
        initializers=[
            constant("axes", ints(2, 3)),
            constant("scales", np.array([1, 1, 1e6, 1e6], np.float32)),
        ],
    )


@hostile(_MEMORY)
def convolution_bomb() -> bytes:
    """A convolution padded by a thousand million."""
    return _total(
        node("Unsqueeze", ["x", "axes"], ["line"]),
        node("Conv", ["line", "kernel"], ["huge"], pads=[1 << 30, 1 << 30], kernel_shape=[1]),
        initializers=[
            constant("axes", ints(2)), constant("kernel", np.ones((1, 1, 1), np.float32)),
        ],
    )  # fmt: skip


@hostile("must only contain positive values")
def convolution_with_no_step() -> bytes:
    """A convolution whose step is 0."""
    return _total(
        node("Unsqueeze", ["x", "axes"], ["line"]),
        node("Conv", ["line", "kernel"], ["huge"], strides=[0], kernel_shape=[1]),
        initializers=[
            constant("axes", ints(2)), constant("kernel", np.ones((1, 1, 1), np.float32)),
        ],
    )  # fmt: skip


@hostile("must only contain positive values")
def pool_with_no_window() -> bytes:
    """A pooling whose window is 0."""
    return _total(
        node("Unsqueeze", ["x", "axes"], ["line"]),
        node("MaxPool", ["line"], ["huge"], kernel_shape=[0]),
        initializers=[constant("axes", ints(2))],
    )


@hostile(_TIME)
def matrix_hog() -> bytes:
    """Products of matrices of 4,096 by 4,096, forty of them."""
    steps = [node("MatMul", [f"m{at}", "m0"], [f"m{at + 1}"]) for at in range(40)]
    return after(
        node("ConstantOfShape", ["size"], ["nothing"]),
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Add", ["nothing", "most"], ["m0"]),
        *steps,
        node("ReduceMax", ["m40"], ["top"], keepdims=0),
        node("Sigmoid", ["top"], ["extra"]),
        initializers=[constant("size", ints(4096, 4096))],
    )


@hostile(_MEMORY)
def memory_hog() -> bytes:
    """A tensor of 256 MB, and another of eight of them."""
    return after(
        node("ConstantOfShape", ["size"], ["base"]),
        node("ReduceMax", ["x"], ["most"], keepdims=0),
        node("Add", ["base", "most"], ["one_of_them"]),
        node("Concat", ["one_of_them"] * 8, ["huge"], axis=0),
        node("ReduceMax", ["huge"], ["extra"], keepdims=0),
        initializers=[constant("size", ints(8_000, 8_000))],
    )


# --- Operators ------------------------------------------------------------------------------------


@hostile("divides integers", sign=onnx_models.integers)
def integer_overflow_by_inputs() -> bytes:
    """The smallest integer divided by minus one, both from the request: SIGFPE."""
    return onnx_models.integer_division()


@hostile("divides integers")
def integer_overflow_in_constants() -> bytes:
    """The smallest integer divided by minus one, both in the graph: SIGFPE when it is loaded."""
    return after(
        node("Div", ["least", "minus"], ["d"]),
        node("Cast", ["d"], ["extra"], to=FLOAT),
        initializers=[constant("least", ints(-(2**63))), constant("minus", ints(-1))],
    )


@hostile("onnxruntime does not load")
def integer_division_by_zero_in_constants() -> bytes:
    """One divided by zero, both in the graph."""
    return after(
        node("Div", ["some", "nothing"], ["d"]),
        node("Cast", ["d"], ["extra"], to=FLOAT),
        initializers=[constant("some", ints(1)), constant("nothing", ints(0))],
    )


@hostile("Integer modulo by zero")
def modulo_by_zero_in_constants() -> bytes:
    """One modulo zero, both in the graph."""
    return after(
        node("Mod", ["some", "nothing"], ["d"]),
        node("Cast", ["d"], ["extra"], to=FLOAT),
        initializers=[constant("some", ints(1)), constant("nothing", ints(0))],
    )


def _sum_of_integers(*nodes: Any, initializers: Sequence[Any] = ()) -> bytes:
    """``nodes`` make "whole" (N, 1), integers, of x and z."""
    return halves(
        *nodes,
        node("Clip", ["whole", "low", "high"], ["c"]),
        node("Cast", ["c"], ["s"], to=FLOAT),
        initializers=[
            constant("low", np.array(-5, np.int64)), constant("high", np.array(5, np.int64)),
            *initializers,
        ],
        inputs=[value("x", INT64), value("z", INT64)],
    )  # fmt: skip


@hostile("Integer division by zero", sign=onnx_models.integers)
def integer_division_by_inputs() -> bytes:
    """One input divided by the other."""
    return _sum_of_integers(node("Div", ["x", "z"], ["whole"]))


@hostile("Integer modulo by zero", sign=onnx_models.integers)
def modulo_by_inputs() -> bytes:
    """One input modulo the other."""
    return _sum_of_integers(node("Mod", ["x", "z"], ["whole"]))


@hostile("out of data bounds")
def gather_out_of_range() -> bytes:
    """An index beyond the end of a constant."""
    return after(
        node("Gather", ["table", "place"], ["extra"]),
        initializers=[
            constant("table", np.ones(4, np.float32)), constant("place", ints(10**12)),
        ],
    )  # fmt: skip


@hostile("fails on 64 made-up rows")
def gather_elements_out_of_range() -> bytes:
    """Places far before the beginning of what they index."""
    return after(
        node("GatherElements", ["table", "place"], ["extra"]),
        initializers=[
            constant("table", np.ones(4, np.float32)), constant("place", ints(-(10**12))),
        ],
    )  # fmt: skip


@hostile("out of data bounds")
def scatter_out_of_range() -> bytes:
    """A write far beyond the end of a tensor."""
    return after(
        node("ScatterElements", ["table", "place", "news"], ["written"]),
        node("ReduceMax", ["written"], ["extra"], keepdims=0),
        initializers=[
            constant("table", np.ones(4, np.float32)), constant("place", ints(10**12)),
            constant("news", np.ones(1, np.float32)),
        ],
    )  # fmt: skip


@hostile("invalid indice")
def scatter_nd_out_of_range() -> bytes:
    """A write far before the beginning of a tensor."""
    return after(
        node("ScatterND", ["table", "place", "news"], ["written"]),
        node("ReduceMax", ["written"], ["extra"], keepdims=0),
        initializers=[
            constant("table", np.ones(4, np.float32)),
            constant("place", np.array([[-(10**12)]], np.int64)),
            constant("news", np.ones(1, np.float32)),
        ],
    )


@hostile("fails on 64 made-up rows")
def impossible_reshape() -> bytes:
    """A reshape to a number of elements that is never there."""
    return after(
        node("Reshape", ["x", "shape"], ["odd"]),
        node("ReduceMax", ["odd"], ["extra"], keepdims=0),
        initializers=[constant("shape", ints(7, 13))],
    )


@hostile("bound to different types")
def quantised_with_bad_zero_point() -> bytes:
    """A zero point of another datatype than what it belongs to."""
    return after(
        node("QuantizeLinear", ["x", "scale", "zero"], ["code"]),
        node("DequantizeLinear", ["code", "scale", "other"], ["extra"]),
        initializers=[
            constant("scale", np.float32(0.1)), constant("zero", np.uint8(3)),
            constant("other", np.int8(3)),
        ],
    )  # fmt: skip


@hostile("fails on 64 made-up rows")
def quantised_with_too_many_zero_points() -> bytes:
    """More zero points than channels."""
    return after(
        node("QuantizeLinear", ["x", "scale", "zero"], ["code"], axis=1),
        node("DequantizeLinear", ["code", "scale", "zero"], ["extra"], axis=1),
        initializers=[
            constant("scale", np.full(1000, 0.1, np.float32)),
            constant("zero", np.full(1000, 3, np.uint8)),
        ],
    )


@hostile("fails on 64 made-up rows")
def matmul_integer_with_bad_zero_point() -> bytes:
    """MatMulInteger with a zero point per row where there are other rows."""
    return after(
        node("Cast", ["x"], ["a"], to=TensorProto.UINT8),
        node("MatMulInteger", ["a", "b", "zeros"], ["m"]),
        node("Cast", ["m"], ["extra"], to=FLOAT),
        initializers=[
            constant("b", np.ones((1, 1), np.uint8)), constant("zeros", np.ones(77, np.uint8)),
        ],
    )  # fmt: skip


def _labels(**attributes: Any) -> bytes:
    return after(
        node("Cast", ["x"], ["word"], to=STRING),
        node("LabelEncoder", ["word"], ["extra"], domain="ai.onnx.ml", **attributes),
        opsets=ML,
    )


@hostile("onnxruntime does not load")
def label_encoder_with_fewer_values() -> bytes:
    """A LabelEncoder with three keys and one value."""
    return _labels(keys_strings=["a", "b", "c"], values_floats=[1.0])


@hostile("Only one of keys")
def label_encoder_with_two_kinds_of_keys() -> bytes:
    """A LabelEncoder with keys of two datatypes."""
    return _labels(keys_strings=["a"], keys_int64s=[1], values_floats=[1.0])


def _text(kind: str, **attributes: Any) -> bytes:
    return after(
        node("Cast", ["x"], ["word"], to=STRING),
        node(kind, ["word"], ["made"], **attributes),
        node("Cast", ["made"], ["extra"], to=FLOAT),
        opsets=[helper.make_opsetid("", 20)],
    )


@hostile("onnxruntime does not load")
def string_normalizer_with_bad_locale() -> bytes:
    """A locale with a path in it."""
    return _text("StringNormalizer", locale="../../../tmp", case_change_action="LOWER")


@hostile("", code=OK)
def catastrophic_regular_expression() -> bytes:
    """A regular expression that takes others for ever, (a+)+$: the engine here knows no such."""
    return _text("RegexFullMatch", pattern="(a+)+$" * 20)


@hostile("onnxruntime does not load")
def regular_expression_bomb() -> bytes:
    """A regular expression that unfolds to a thousand million states."""
    return _text("RegexFullMatch", pattern="((a{0,999}){0,999}){0,999}")


@hostile("onnxruntime does not load")
def tfidf_with_bad_ranges() -> bytes:
    """A TfIdfVectorizer whose ranges lie beyond its pool."""
    return after(
        node("Cast", ["x"], ["w"], to=INT64),
        node(
            "TfIdfVectorizer", ["w"], ["counts"], mode="TF", min_gram_length=1,
            max_gram_length=1000, max_skip_count=10**9, ngram_counts=[0, 10**9],
            ngram_indexes=[10**12], pool_int64s=[1],
        ),
        node("ReduceMax", ["counts"], ["extra"], axes=[1], keepdims=1),
    )  # fmt: skip


def _trees(**changes: Any) -> bytes:
    """A TreeEnsembleRegressor of one split and two leaves, but for ``changes``."""
    said: dict[str, Any] = {
        "n_targets": 1,
        "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2],
        "nodes_featureids": [0, 0, 0], "nodes_values": [0.5, 0.0, 0.0],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
        "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0],
        "target_treeids": [0, 0], "target_nodeids": [1, 2], "target_ids": [0, 0],
        "target_weights": [0.1, 0.9],
    }  # fmt: skip
    return after(
        node("TreeEnsembleRegressor", ["x"], ["extra"], domain="ai.onnx.ml", **(said | changes)),
        opsets=ML,
    )


@hostile("onnxruntime does not load")
def tree_with_cycle() -> bytes:
    """A tree whose branches lead back to its root."""
    return _trees(
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF"],
        nodes_truenodeids=[1, 0, 0],
        nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0],
        target_nodeids=[2],
        target_ids=[0],
        target_weights=[0.9],
    )


@hostile("onnxruntime does not load")
def tree_that_is_its_own_child() -> bytes:
    """A node that is its own child on both sides."""
    return _trees(nodes_truenodeids=[0, 0, 0], nodes_falsenodeids=[0, 0, 0])


@hostile("onnxruntime does not load")
def tree_with_bad_children() -> bytes:
    """A node whose children are none of the tree's."""
    return _trees(nodes_truenodeids=[1000, 0, 0], nodes_falsenodeids=[-7, 0, 0])


@hostile("fails on 64 made-up rows")
def tree_with_bad_feature() -> bytes:
    """A split by the feature 1,000,000 of one."""
    return _trees(nodes_featureids=[1_000_000, 0, 0])


@hostile("onnxruntime does not load")
def tree_with_bad_target() -> bytes:
    """A leaf for the target 1,000,000 of one."""
    return _trees(target_ids=[0, 1_000_000])


@hostile("onnxruntime does not load")
def tree_with_negative_target() -> bytes:
    """A leaf for the target -1."""
    return _trees(target_ids=[0, -1])


@hostile("onnxruntime does not load")
def tree_with_huge_class_ids() -> bytes:
    """A classifier with the class 2,000,000,000 of two."""
    return model(
        [
            node(
                "TreeEnsembleClassifier", ["x"], ["label", "probabilities"], domain="ai.onnx.ml",
                classlabels_int64s=[0, 1], nodes_treeids=[0], nodes_nodeids=[0],
                nodes_featureids=[0], nodes_values=[0.0], nodes_modes=["LEAF"],
                nodes_truenodeids=[0], nodes_falsenodeids=[0], class_treeids=[0],
                class_nodeids=[0], class_ids=[2_000_000_000], class_weights=[1.0],
            ),
        ],
        opsets=ML,
    ).SerializeToString()  # fmt: skip


@hostile(_MEMORY)
def tree_with_huge_target_count() -> bytes:
    """A regressor with a thousand million targets."""
    return _trees(n_targets=10**9)


@hostile("onnxruntime does not load")
def svm_without_vectors() -> bytes:
    """A support vector machine that counts vectors that are not there."""
    return after(
        node(
            "SVMRegressor", ["x"], ["extra"], domain="ai.onnx.ml", coefficients=[1.0],
            kernel_params=[0.1, 0.0, 3.0], kernel_type="RBF", n_supports=10**6,
            support_vectors=[1.0], rho=[0.0],
        ),
        opsets=ML,
    )  # fmt: skip


@hostile("onnxruntime does not load")
def linear_with_few_coefficients() -> bytes:
    """A linear classifier with fewer coefficients than classes."""
    return model(
        [
            node(
                "LinearClassifier", ["x"], ["label", "probabilities"], domain="ai.onnx.ml",
                classlabels_ints=[0, 1], coefficients=[1.0], intercepts=[0.0, 0.0],
                post_transform="SOFTMAX",
            ),
        ],
        opsets=ML,
    ).SerializeToString()  # fmt: skip


@hostile("out of range")
def feature_extractor_out_of_range() -> bytes:
    """The column 1,000,000,000 of one."""
    return after(
        node("ArrayFeatureExtractor", ["x", "place"], ["extra"], domain="ai.onnx.ml"),
        initializers=[constant("place", ints(10**9))],
        opsets=ML,
    )


@hostile("must have shape")
def recurrent_bomb() -> bytes:
    """An LSTM that says that it has a thousand million cells."""
    return after(
        node("Unsqueeze", ["x", "axes"], ["seq"]),
        node("LSTM", ["seq", "w", "r"], ["huge"], hidden_size=10**9),
        node("ReduceMax", ["huge"], ["extra"], keepdims=0),
        initializers=[
            constant("axes", ints(0)), constant("w", np.ones((1, 4, 1), np.float32)),
            constant("r", np.ones((1, 4, 1), np.float32)),
        ],
    )  # fmt: skip


@hostile("'step' value cannot be 0")
def endless_slice() -> bytes:
    """A Slice with steps of zero."""
    return after(
        node("Slice", ["x", "zero", "end", "zero", "zero"], ["cut"]),
        node("ReduceMax", ["cut"], ["extra"], keepdims=0),
        initializers=[constant("zero", ints(0)), constant("end", ints(10))],
    )


@hostile("can not be zero")
def range_without_step() -> bytes:
    """A Range with steps of zero."""
    return after(
        node("Range", ["from", "to", "by"], ["line"]),
        node("ReduceMax", ["line"], ["extra"], keepdims=0),
        initializers=[
            constant("from", np.float32(0)), constant("to", np.float32(10)),
            constant("by", np.float32(0)),
        ],
    )  # fmt: skip


@hostile("Mismatch between the sum")
def split_into_zero() -> bytes:
    """A Split into no parts."""
    return after(
        node("Split", ["x", "parts"], ["extra"], axis=1),
        initializers=[constant("parts", ints(0))],
    )
