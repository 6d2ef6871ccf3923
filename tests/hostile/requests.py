"""Requests made to do harm, each with the answer that it gets.

A builder makes the bytes of a ModelInferRequest, or something that pretends to be one. Bytes are
written by hand (``tag``, ``chunk``) where no library would write them.
"""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.support.inference import MODEL, columns
from tests.support.serving_models import KINDS, STRICT, WIDE

from homeostat.client import infer_request
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest

MIB = 1024 * 1024
MAX_MESSAGE_BYTES = 16 * MIB
OK = "OK"
BAD = "INVALID_ARGUMENT"
NONE = "NOT_FOUND"
FULL = "RESOURCE_EXHAUSTED"

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class HostileRequest:
    """One request and its documented answer."""

    name: str
    # What is wrong with it, for a reader.
    what: str
    build: Callable[[], bytes]
    # The gRPC status on both transports.
    code: str
    # What the status text has to say.
    says: tuple[str, ...] = ()
    metadata: Metadata = ()
    is_gzipped: bool = False
    timeout_seconds: float = 20.0
    # Where the transports differ: what grpcio answers, and why.
    on_grpcio: str | None = None
    why_different: str = ""

    def code_on(self, transport: str) -> str:
        """The documented status on a transport."""
        return self.on_grpcio if transport == "grpcio" and self.on_grpcio else self.code


# The wire format, by hand.


def varint(value: int) -> bytes:
    """Seven bits at a time, lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def tag(number: int, wire_type: int) -> bytes:
    """A field's number and how it is written."""
    return varint(number << 3 | wire_type)


def chunk(number: int, data: bytes) -> bytes:
    """A field with its length in front."""
    return tag(number, 2) + varint(len(data)) + data


# Good requests, to be spoiled.


def good(rows: int = 2, model: str = MODEL) -> ModelInferRequest:
    """A request that is answered."""
    return infer_request(model, columns([0.5] * rows, ["red"] * rows))


def _good() -> bytes:
    return good().SerializeToString()


def spoiled(change: Callable[[ModelInferRequest], Any], **given: Any) -> Callable[[], bytes]:
    """A good request, changed."""

    def build() -> bytes:
        request = good(**given)
        change(request)
        return request.SerializeToString()

    return build


def sent(
    model: str = MODEL, *, leaving: str = "", rows: int = 2, **changes: np.ndarray
) -> Callable[[], bytes]:
    """A good request with other columns; ``__`` in a name stands for a dot."""

    def build() -> bytes:
        given: dict[str, np.ndarray] = columns([0.5] * rows, ["red"] * rows)
        given |= {name.replace("__", "."): values for name, values in changes.items()}
        given.pop(leaving, None)
        return infer_request(model, given).SerializeToString()

    return build


def raw(at: int, content: bytes) -> Callable[[], bytes]:
    """Other bytes for one input: amount, kind, count."""
    return spoiled(lambda request: request.raw_input_contents.__setitem__(at, content))


def shaped(*shape: int, at: int = 0) -> Callable[[], bytes]:
    """Another shape for one input."""
    return spoiled(lambda request: _reshape(request.inputs[at], shape))


def _reshape(tensor: Any, shape: tuple[int, ...]) -> None:
    tensor.shape[:] = shape


def texts(*values: bytes) -> bytes:
    """BYTES contents."""
    return b"".join(struct.pack("<I", len(each)) + each for each in values)


def serialized(*parts: bytes, rows: int = 2) -> Callable[[], bytes]:
    """A good request with more bytes behind it, which is how protobuf merges messages."""
    return lambda: good(rows).SerializeToString() + b"".join(parts)


def typed(field: str, values: list[Any], *, rows: int = 2, at: int = 0) -> Callable[[], bytes]:
    """A request in typed contents, one input of which has other contents."""

    def build() -> bytes:
        request = good(rows)
        del request.raw_input_contents[:]
        request.inputs[0].contents.fp32_contents.extend([0.5] * rows)
        request.inputs[1].contents.bytes_contents.extend([b"red"] * rows)
        request.inputs[2].contents.int64_contents.extend([1] * rows)
        spoil = request.inputs[at].contents
        spoil.Clear()
        getattr(spoil, field).extend(values)
        return request.SerializeToString()

    return build


def kinds(**changes: bytes) -> Callable[[], bytes]:
    """A raw request to the model of every datatype, one input of which has other bytes."""

    def build() -> bytes:
        request = ModelInferRequest(model_name=KINDS)
        sizes = {"16": 2, "32": 4, "64": 8}
        for name in KIND_NAMES:
            request.inputs.add(name=f"in_{name}", datatype=name.upper(), shape=[1, 1])
            plain = texts(b"red") if name == "bytes" else bytes(sizes.get(name[-2:], 1))
            request.raw_input_contents.append(changes.get(name, plain))
        return request.SerializeToString()

    return build


KIND_NAMES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("fp16", "fp32", "fp64", "bytes"),
)


def kinds_typed(field: str, name: str, value: Any) -> Callable[[], bytes]:
    """A typed request to the model of every datatype, without FP16, which has no typed contents."""

    def build() -> bytes:
        request = ModelInferRequest(model_name=KINDS)
        for each in KIND_NAMES:
            tensor = request.inputs.add(name=f"in_{each}", datatype=each.upper(), shape=[1, 1])
            if each == name:
                getattr(tensor.contents, field).append(value)
        return request.SerializeToString()

    return build


def many_inputs(count: int) -> Callable[[], bytes]:
    """Inputs that the model has not."""

    def build() -> bytes:
        request = good()
        for number in range(count):
            request.inputs.add(name=f"x{number}", datatype="FP32", shape=[2, 1])
            request.raw_input_contents.append(bytes(8))
        return request.SerializeToString()

    return build


def with_contexts(*names: str, value: Any = 1.0) -> Callable[[], bytes]:
    """Context columns."""

    def build() -> bytes:
        contexts = {name: np.array([value] * 2) for name in names}
        return infer_request(
            MODEL, columns([0.5] * 2, ["red"] * 2), contexts=contexts
        ).SerializeToString()

    return build


def event_times(*times: int) -> Callable[[], bytes]:
    """Event times of the rows, in microseconds."""
    values = np.array(times, np.int64)
    return lambda: infer_request(
        MODEL, columns([0.5] * len(times), ["red"] * len(times)), event_times_us=values
    ).SerializeToString()


def client_ids(*ids: str) -> Callable[[], bytes]:
    """The clients' own ids of the rows."""
    return lambda: infer_request(
        MODEL, columns([0.5] * len(ids), ["red"] * len(ids)), client_ids=ids
    ).SerializeToString()


def with_parameters(add: Callable[[Any], None]) -> Callable[[], bytes]:
    """Parameters of the request, of an input and of an output."""

    def change(request: ModelInferRequest) -> None:
        add(request.parameters)
        add(request.inputs[0].parameters)
        add(request.outputs.add(name="label").parameters)

    return spoiled(change)


def _every_kind(parameters: Any) -> None:
    parameters["bool"].bool_param = True
    parameters["int64"].int64_param = -(2**63)
    parameters["string"].string_param = "x" * 1000
    parameters["double"].double_param = float("nan")
    parameters["uint64"].uint64_param = 2**64 - 1
    parameters["none"].Clear()
    parameters[""].bool_param = True


def _many(parameters: Any) -> None:
    for number in range(30_000):
        parameters[f"p{number}"].int64_param = number


def nested_groups(depth: int) -> bytes:
    """Unknown groups in one another; nothing but recursion reads them."""
    return tag(99, 3) * depth + tag(99, 4) * depth


def nested_chunks(depth: int) -> bytes:
    """Unknown messages in one another."""
    data = b""
    for _ in range(depth):
        data = chunk(99, data)
    return data


def add_outputs(*names: str) -> Callable[[], bytes]:
    """Names of wanted outputs."""

    def change(request: ModelInferRequest) -> None:
        for name in names:
            request.outputs.add(name=name)

    return spoiled(change)


def _version(version: str) -> Callable[[], bytes]:
    return spoiled(lambda request: setattr(request, "model_version", version))


def _model(name: str) -> Callable[[], bytes]:
    return spoiled(lambda request: setattr(request, "model_name", name))


def _id(value: str) -> Callable[[], bytes]:
    return spoiled(lambda request: setattr(request, "id", value))


def _an_input(**fields: str) -> Callable[[], bytes]:
    def change(request: ModelInferRequest) -> None:
        for name, value in fields.items():
            setattr(request.inputs[0], name, value)

    return spoiled(change)


def _mixed(request: ModelInferRequest) -> None:
    request.inputs[0].contents.fp32_contents.extend([0.5, 0.5])


def _twice(request: ModelInferRequest) -> None:
    request.inputs.add().CopyFrom(request.inputs[0])
    request.raw_input_contents.append(request.raw_input_contents[0])


def _reserved_twice(name: str, datatype: str, content: bytes) -> Callable[[], bytes]:
    def change(request: ModelInferRequest) -> None:
        for _ in range(2):
            request.inputs.add(name=name, datatype=datatype, shape=[2])
            request.raw_input_contents.append(content)

    return spoiled(change)


def _wide(shape: tuple[int, ...], content: bytes) -> Callable[[], bytes]:
    def build() -> bytes:
        request = ModelInferRequest(model_name=WIDE, raw_input_contents=[content])
        request.inputs.add(name="x", datatype="FP32", shape=shape)
        return request.SerializeToString()

    return build


def _million_rows() -> bytes:
    request = ModelInferRequest(model_name=MODEL)
    rows = 1_000_000
    for name, datatype, width in (
        ("amount", "FP32", 4),
        ("kind", "BYTES", 4),
        ("count", "INT64", 8),
    ):
        request.inputs.add(name=name, datatype=datatype, shape=[rows, 1])
        request.raw_input_contents.append(bytes(rows * width))
    return request.SerializeToString()


def _hundred_thousand_rows() -> bytes:
    rows = 100_000
    request = infer_request(MODEL, columns([0.5] * rows, [""] * rows))
    return request.SerializeToString()


def _spoiled_text(field: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    return serialized(field(b"ab\xff\xfe"))


def _unpacked_shape() -> bytes:
    request = good()
    parts = [chunk(1, MODEL.encode())]
    for tensor in request.inputs:
        shape = b"".join(tag(3, 0) + varint(size) for size in tensor.shape)
        parts.append(
            chunk(5, chunk(1, tensor.name.encode()) + chunk(2, tensor.datatype.encode()) + shape)
        )
    parts += [chunk(7, each) for each in request.raw_input_contents]
    return b"".join(parts)


def _of_exact_size(size: int) -> bytes:
    """Exactly so many bytes, by an id that fills up."""
    request = good()
    have = len(request.SerializeToString())
    fill = size - have - len(chunk(3, b"")) - len(varint(size)) + 1
    request.id = "x" * fill
    request.id = "x" * (fill + size - len(request.SerializeToString()))
    return request.SerializeToString()


def _big_endian(at: int, values: np.ndarray) -> Callable[[], bytes]:
    return raw(at, values.astype(values.dtype.newbyteorder(">")).tobytes())


def _noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


F32 = np.float32
TWO = np.array([1.0, 2.0])
LOWEST, HIGHEST = -(2**63), 2**63 - 1

HOSTILE_REQUESTS: tuple[HostileRequest, ...] = (
    # Whom it asks for.
    HostileRequest("empty-message", "no bytes at all", lambda: b"", NONE, ("unknown model",)),
    HostileRequest(
        "unknown-model", "a model that nobody registered", _model("nobody"), NONE, ("nobody", MODEL)
    ),
    HostileRequest(
        "path-as-model",
        "a path as the model's name",
        _model("../../etc/passwd"),
        NONE,
        ("unknown model",),
    ),
    HostileRequest(
        "megabyte-as-model",
        "a model's name of 1 MB",
        _model("x" * 1_000_000),
        NONE,
        ("unknown model",),
    ),
    HostileRequest(
        "control-characters-as-model",
        "line breaks, NUL and an escape in the model's name",
        _model("a\r\nb\x00\x1b[2J"),
        NONE,
        ("unknown model",),
    ),
    HostileRequest(
        "word-as-version", "a version that is no number", _version("latest"), NONE, ("latest",)
    ),
    HostileRequest("version-0", "versions begin at 1", _version("0"), NONE, ("'0'",)),
    HostileRequest("negative-version", "version -1", _version("-1"), NONE, ("'-1'",)),
    HostileRequest("fractional-version", "version 1.0", _version("1.0"), NONE, ("'1.0'",)),
    HostileRequest(
        "version-with-a-blank", "a blank before the number", _version(" 1"), NONE, ("' 1'",)
    ),
    HostileRequest(
        "version-in-other-digits", "1 in Arabic digits", _version("\u0661"), NONE, ("version",)
    ),
    HostileRequest(
        "version-with-leading-zeros",
        "000000001: no second name for version 1",
        _version("000000001"),
        NONE,
        ("version",),
    ),
    HostileRequest(
        "version-beyond-64-bits", "a number of 400 digits", _version("9" * 400), NONE, ("version",)
    ),
    HostileRequest(
        "version-never-registered", "version 999999", _version("999999"), NONE, ("999999",)
    ),
    # Inputs by name.
    HostileRequest(
        "no-inputs",
        "a model's name and nothing else",
        lambda: chunk(1, MODEL.encode()),
        BAD,
        ("missing",),
    ),
    HostileRequest(
        "missing-input",
        "one input of three left out",
        sent(leaving="kind"),
        BAD,
        ("kind", "missing"),
    ),
    HostileRequest(
        "extra-input",
        "an input that the model has not",
        sent(colour=TWO.astype(F32)),
        BAD,
        ("colour",),
    ),
    HostileRequest(
        "input-twice", "the same input twice", spoiled(_twice), BAD, ("amount", "twice")
    ),
    HostileRequest("nameless-input", "an input without a name", _an_input(name=""), BAD, ("''",)),
    HostileRequest(
        "input-named-with-control-characters",
        "NUL and a line break in an input's name",
        _an_input(name="a\x00\nb"),
        BAD,
        ("no such input",),
    ),
    HostileRequest(
        "input-named-with-a-megabyte",
        "an input's name of 1 MB",
        _an_input(name="x" * 1_000_000),
        BAD,
        ("no such input",),
    ),
    HostileRequest(
        "100000-inputs",
        "100,000 inputs that the model has not",
        many_inputs(100_000),
        BAD,
        ("no such input",),
    ),
    HostileRequest(
        "reserved-name-that-is-none",
        "an input homeostat.colour",
        sent(homeostat__colour=TWO),
        BAD,
        ("homeostat.colour",),
    ),
    HostileRequest(
        "reserved-prefix-alone", "an input homeostat.", sent(homeostat__=TWO), BAD, ("homeostat.",)
    ),
    HostileRequest(
        "context-without-a-name",
        "an input homeostat.context.",
        sent(homeostat__context__=TWO),
        BAD,
        ("homeostat.context.",),
    ),
    HostileRequest(
        "ids-twice",
        "two inputs homeostat.id",
        _reserved_twice("homeostat.id", "BYTES", texts(b"a", b"b")),
        BAD,
        ("twice",),
    ),
    HostileRequest(
        "event-times-twice",
        "two inputs homeostat.event_time",
        _reserved_twice("homeostat.event_time", "INT64", bytes(16)),
        BAD,
        ("twice",),
    ),
    HostileRequest(
        "context-twice",
        "one context column twice",
        _reserved_twice("homeostat.context.a", "FP32", bytes(8)),
        BAD,
        ("twice",),
    ),
    # Datatypes and shapes.
    HostileRequest(
        "other-datatype",
        "FP64 where FP32 is expected",
        sent(amount=TWO),
        BAD,
        ("amount", "FP32", "FP64"),
    ),
    HostileRequest(
        "unknown-datatype",
        "a datatype that the protocol has not",
        _an_input(datatype="FP8"),
        BAD,
        ("FP32", "FP8"),
    ),
    HostileRequest(
        "datatype-in-small-letters", "fp32", _an_input(datatype="fp32"), BAD, ("FP32", "fp32")
    ),
    HostileRequest("no-datatype", "an empty datatype", _an_input(datatype=""), BAD, ("FP32",)),
    HostileRequest(
        "megabyte-as-datatype",
        "a datatype of 1 MB",
        _an_input(datatype="F" * 1_000_000),
        BAD,
        ("FP32",),
    ),
    HostileRequest(
        "other-shape", "two columns where there is one", shaped(1, 2), BAD, ("[-1, 1]", "[1, 2]")
    ),
    HostileRequest("other-rank", "a dimension too many", shaped(2, 1, 1), BAD, ("[-1, 1]",)),
    HostileRequest("no-shape", "a scalar", shaped(), BAD, ("[-1, 1]",)),
    HostileRequest("no-rows", "zero rows", shaped(0, 1), BAD, ("at least one row",)),
    HostileRequest(
        "minus-one-row",
        "the signature's own -1 as number of rows",
        shaped(-1, 1),
        BAD,
        ("at least one row",),
    ),
    HostileRequest(
        "lowest-number-of-rows", "-2^63 rows", shaped(LOWEST, 1), BAD, ("at least one row",)
    ),
    HostileRequest("highest-number-of-rows", "2^63 - 1 rows", shaped(HIGHEST, 1), BAD, ("amount",)),
    HostileRequest(
        "shape-that-overflows",
        "2^62 rows of four floats: 2^66 bytes, 0 in 64 bits, and 0 bytes sent",
        _wide((2**62, 4), b""),
        BAD,
        ("expected",),
    ),
    HostileRequest(
        "shape-that-overflows-to-the-length",
        "2^62 + 1 rows of four floats: 16 bytes in 64 bits, and 16 bytes sent",
        _wide((2**62 + 1, 4), bytes(16)),
        BAD,
        ("expected",),
    ),
    HostileRequest(
        "negative-times-negative",
        "-1 rows of -4 columns",
        _wide((-1, -4), bytes(16)),
        BAD,
        ("expected",),
    ),
    HostileRequest(
        "100000-dimensions", "a shape of 100,000 ones", shaped(*[1] * 100_000), BAD, ("[-1, 1]",)
    ),
    HostileRequest(
        "rows-that-differ",
        "two rows in one input and one in another",
        shaped(1, 1, at=2),
        BAD,
        ("rows",),
    ),
    # Contents.
    HostileRequest(
        "raw-too-short", "7 bytes for two floats", raw(0, bytes(7)), BAD, ("8 bytes", "got 7")
    ),
    HostileRequest(
        "raw-too-long", "9 bytes for two floats", raw(0, bytes(9)), BAD, ("8 bytes", "got 9")
    ),
    HostileRequest("raw-empty", "no bytes for two floats", raw(0, b""), BAD, ("8 bytes", "got 0")),
    HostileRequest(
        "raw-for-fewer-inputs",
        "raw contents for two of three inputs",
        spoiled(lambda r: r.raw_input_contents.pop()),
        BAD,
        ("one raw content per input",),
    ),
    HostileRequest(
        "raw-for-more-inputs",
        "raw contents for four inputs of three",
        spoiled(lambda r: r.raw_input_contents.append(b"")),
        BAD,
        ("one raw content per input",),
    ),
    HostileRequest(
        "100000-raw-contents",
        "100,000 raw contents for three inputs",
        spoiled(lambda r: r.raw_input_contents.extend([b""] * 100_000)),
        BAD,
        ("one raw content per input",),
    ),
    HostileRequest(
        "raw-and-typed", "raw contents, and typed ones too", spoiled(_mixed), BAD, ("amount",)
    ),
    HostileRequest(
        "typed-too-few",
        "one typed value for two rows",
        typed("fp32_contents", [0.5]),
        BAD,
        ("2 values", "got 1"),
    ),
    HostileRequest(
        "typed-too-many",
        "three typed values for two rows",
        typed("fp32_contents", [0.5] * 3),
        BAD,
        ("2 values", "got 3"),
    ),
    HostileRequest(
        "typed-in-the-wrong-field",
        "FP32 values among the FP64 contents",
        typed("fp64_contents", [0.5] * 2),
        BAD,
        ("fp32_contents", "got 0"),
    ),
    HostileRequest(
        "typed-out-of-range", "300 as INT8", kinds_typed("int_contents", "int8", 300), BAD, ("in_",)
    ),
    HostileRequest(
        "typed-fp16",
        "FP16, which has no typed contents",
        kinds_typed("fp32_contents", "fp16", 1.0),
        BAD,
        ("in_",),
    ),
    HostileRequest(
        "bool-that-is-7", "a BOOL byte of 7", kinds(bool=b"\x07"), BAD, ("in_bool", "got 7")
    ),
    # Numbers.
    HostileRequest(
        "nan-where-none-may-be",
        "NaN in an input that is not nullable",
        sent(STRICT, amount=np.array([np.nan, 1], F32)),
        BAD,
        ("amount", "nan"),
    ),
    HostileRequest(
        "signalling-nan",
        "a signalling NaN with a payload",
        lambda: _strict_raw(b"\x01\x00\xa0\x7f" * 2),
        BAD,
        ("amount", "nan"),
    ),
    HostileRequest(
        "infinity",
        "infinity",
        sent(amount=np.array([1, np.inf], F32)),
        BAD,
        ("amount", "row 1", "inf"),
    ),
    HostileRequest(
        "minus-infinity",
        "minus infinity",
        sent(amount=np.array([-np.inf, 1], F32)),
        BAD,
        ("amount", "row 0", "inf"),
    ),
    HostileRequest(
        "denormals", "the smallest float there is", sent(amount=np.array([1e-45, -1e-45], F32)), OK
    ),
    HostileRequest(
        "largest-floats",
        "the largest floats there are",
        sent(amount=np.array([3.4e38, -3.4e38], F32)),
        OK,
    ),
    HostileRequest(
        "big-endian-floats",
        "floats the wrong way round: read as the little-endian numbers that they are",
        _big_endian(0, np.array([0.5, 1.5], F32)),
        OK,
    ),
    HostileRequest(
        "big-endian-infinity-to-be",
        "bytes that are infinity only when read little-endian",
        raw(0, b"\x00\x00\x80\x7f" * 2),
        BAD,
        ("amount", "inf"),
    ),
    HostileRequest(
        "big-endian-string-lengths",
        "lengths of strings the wrong way round",
        raw(1, struct.pack(">I", 3) + b"red" + struct.pack(">I", 3) + b"red"),
        BAD,
        ("length-prefixed",),
    ),
    HostileRequest(
        "lowest-integers",
        "-2^63 in an input of integers",
        sent(count=np.array([LOWEST, HIGHEST])),
        OK,
    ),
    # Strings.
    HostileRequest(
        "string-beyond-the-end",
        "a length of 9 before 3 bytes",
        raw(1, b"\x09\x00\x00\x00red"),
        BAD,
        ("length-prefixed",),
    ),
    HostileRequest(
        "string-of-4-gib",
        "a length of 2^32 - 1 before 3 bytes",
        raw(1, b"\xff\xff\xff\xffred"),
        BAD,
        ("length-prefixed",),
    ),
    HostileRequest(
        "cut-string-length",
        "two bytes of a length",
        raw(1, texts(b"red") + b"\x03\x00"),
        BAD,
        ("length-prefixed",),
    ),
    HostileRequest(
        "a-string-too-many",
        "three strings for two rows",
        raw(1, texts(b"a", b"b", b"c")),
        BAD,
        ("length-prefixed",),
    ),
    HostileRequest(
        "string-of-latin-1",
        "text that is no UTF-8",
        raw(1, texts(b"gr\xfcn", b"red")),
        BAD,
        ("UTF-8",),
    ),
    HostileRequest(
        "string-of-a-surrogate",
        "half a surrogate pair in UTF-8",
        raw(1, texts(b"\xed\xa0\x80", b"")),
        BAD,
        ("UTF-8",),
    ),
    HostileRequest(
        "string-of-an-overlong-nul",
        "NUL in two bytes, as some write it",
        raw(1, texts(b"\xc0\x80", b"")),
        BAD,
        ("UTF-8",),
    ),
    HostileRequest(
        "string-with-nul", "NUL inside a string", raw(1, texts(b"red\x00blue", b"\x00")), OK
    ),
    HostileRequest(
        "string-of-50-mb",
        "one string of 50 MB",
        raw(1, texts(b"x" * 50_000_000, b"")),
        FULL,
        ("16777216",),
    ),
    HostileRequest(
        "string-of-14-mb",
        "one string of 14 MB: large, and allowed",
        raw(1, texts(b"x" * 14_000_000, b"")),
        OK,
    ),
    HostileRequest(
        "string-of-16-mb",
        "one string of 16 MB: a message that fits, a record that does not",
        raw(1, texts(b"x" * 16_000_000, b"")),
        FULL,
        ("fewer rows",),
    ),
    # Size.
    HostileRequest(
        "1000000-rows",
        "a million rows, whose record is beyond what the broker takes",
        _million_rows,
        FULL,
        ("fewer rows",),
    ),
    HostileRequest(
        "100000-rows", "a hundred thousand rows at once: allowed", _hundred_thousand_rows, OK
    ),
    HostileRequest(
        "16-mib-and-a-byte",
        "a message one byte longer than allowed",
        lambda: _of_exact_size(MAX_MESSAGE_BYTES + 1),
        FULL,
        (str(MAX_MESSAGE_BYTES),),
    ),
    HostileRequest("zeros", "a megabyte of zeros", lambda: bytes(1_000_000), BAD, ("serialized",)),
    HostileRequest("noise", "a megabyte of noise", lambda: _noise(1_000_000), BAD, ("serialized",)),
    # Ids, parameters, outputs.
    HostileRequest("id-of-10-mb", "a request id of 10 MB", _id("x" * 10_000_000), BAD, ("id",)),
    HostileRequest(
        "id-with-control-characters",
        "line breaks, NUL and an escape in the id, which is echoed as it is",
        _id("a\r\nb\x00\x1b[2J\u202e"),
        OK,
    ),
    HostileRequest(
        "client-ids-with-control-characters",
        "the same in clients' own ids",
        client_ids("a\r\nb\x00", "\u202e"),
        OK,
    ),
    HostileRequest(
        "client-id-of-1-mb",
        "a client's own id of 1 MB: only its hash is kept",
        client_ids("x" * 1_000_000),
        OK,
    ),
    HostileRequest(
        "client-ids-as-numbers",
        "client ids as INT64",
        sent(homeostat__id=np.array([1, 2])),
        BAD,
        ("homeostat.id", "BYTES"),
    ),
    HostileRequest(
        "parameters-of-every-kind",
        "parameters of each kind, without a value and without a name: ignored",
        with_parameters(_every_kind),
        OK,
    ),
    HostileRequest("30000-parameters", "90,000 parameters: ignored", with_parameters(_many), OK),
    HostileRequest(
        "output-that-is-none",
        "an output that the model has not",
        add_outputs("risk"),
        BAD,
        ("risk", "probabilities"),
    ),
    HostileRequest(
        "output-twice", "one output twice", add_outputs("label", "label"), BAD, ("label",)
    ),
    HostileRequest(
        "100000-outputs",
        "one output 100,000 times",
        add_outputs(*["probabilities"] * 100_000),
        BAD,
        ("probabilities",),
    ),
    HostileRequest(
        "output-with-a-megabyte",
        "an output's name of 1 MB",
        add_outputs("x" * 1_000_000),
        BAD,
        ("probabilities",),
    ),
    # Times and contexts.
    HostileRequest(
        "earliest-time",
        "an event time of -2^63",
        event_times(LOWEST),
        BAD,
        ("homeostat.event_time", str(LOWEST)),
    ),
    HostileRequest(
        "latest-time",
        "an event time of 2^63 - 1",
        event_times(HIGHEST),
        BAD,
        ("homeostat.event_time", "future"),
    ),
    HostileRequest(
        "time-before-1970",
        "an event time of -1",
        event_times(0, -1),
        BAD,
        ("homeostat.event_time", "1970"),
    ),
    HostileRequest(
        "time-as-float",
        "event times as FP64",
        sent(homeostat__event_time=TWO),
        BAD,
        ("homeostat.event_time", "INT64"),
    ),
    HostileRequest(
        "65-contexts",
        "a context column more than allowed",
        with_contexts(*map(str, range(65))),
        BAD,
        ("64",),
    ),
    HostileRequest(
        "context-of-infinity",
        "infinity in a context column",
        with_contexts("speed", value=np.inf),
        BAD,
        ("speed", "infinity"),
    ),
    HostileRequest(
        "context-of-nan",
        "NaN in a context column: a null",
        with_contexts("speed", value=np.nan),
        OK,
    ),
    HostileRequest(
        "contexts-with-odd-names",
        "quotes, line breaks, NUL, dots and other scripts in names of context columns",
        with_contexts('a"b', "a\nb", "a\x00b", "..", "\u202ea", "%s{}"),
        OK,
    ),
    HostileRequest(
        "context-named-with-a-megabyte",
        "a context column's name of 1 MB, which every block would repeat",
        with_contexts("x" * 1_000_000),
        BAD,
        ("context",),
    ),
    # The wire format.
    HostileRequest(
        "cut-message",
        "the first half of a message",
        lambda: good().SerializeToString()[:40],
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "length-beyond-the-end",
        "a field longer than the message",
        serialized(tag(3, 2) + varint(1_000) + b"x"),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "length-of-2-to-the-64",
        "a field of 2^64 - 1 bytes",
        serialized(tag(3, 2) + varint(2**64 - 1)),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "varint-of-11-bytes",
        "a number that never ends",
        serialized(tag(99, 0) + b"\x80" * 10 + b"\x01"),
        BAD,
        ("serialized",),
    ),
    HostileRequest("field-0", "a field of number 0", serialized(b"\x00\x01"), BAD, ("serialized",)),
    HostileRequest(
        "wire-type-7",
        "a way of writing that does not exist",
        serialized(tag(99, 7)),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "end-without-group",
        "the end of a group that never began",
        serialized(tag(99, 4)),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "group-without-end", "a group that never ends", serialized(tag(99, 3)), BAD, ("serialized",)
    ),
    HostileRequest(
        "10000-nested-groups",
        "unknown groups, 10,000 deep",
        serialized(nested_groups(10_000)),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "1000-nested-messages",
        "unknown messages, 1,000 deep: bytes that nobody reads",
        serialized(nested_chunks(1_000)),
        OK,
    ),
    HostileRequest(
        "unknown-fields",
        "fields that the protocol has not: ignored",
        serialized(chunk(1000, b"x" * 1000), tag(1001, 0) + varint(7)),
        OK,
    ),
    HostileRequest(
        "unknown-groups", "groups of an old time: ignored", serialized(nested_groups(5)), OK
    ),
    HostileRequest(
        "model-as-number",
        "a number in the place of the model's name: an unknown field, and no name",
        lambda: tag(1, 0) + varint(7),
        NONE,
        ("unknown model",),
    ),
    HostileRequest(
        "override",
        "a second model's name, and the last one counts",
        serialized(chunk(1, b"nobody")),
        NONE,
        ("nobody",),
    ),
    HostileRequest(
        "override-back",
        "a wrong model's name before the right one, which counts",
        lambda: chunk(1, b"nobody") + good().SerializeToString(),
        OK,
    ),
    HostileRequest(
        "long-varints",
        "a length in ten bytes where one would do",
        lambda: (
            b"\x0a" + b"\x84" + b"\x80" * 8 + b"\x00" + MODEL.encode() + good().SerializeToString()
        ),
        OK,
    ),
    HostileRequest(
        "unpacked-shape", "a shape written one by one, as is allowed", _unpacked_shape, OK
    ),
    HostileRequest(
        "model-of-bad-utf-8",
        "a model's name that is no UTF-8",
        _spoiled_text(lambda text: chunk(1, text)),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "id-of-bad-utf-8",
        "an id that is no UTF-8, and would spoil the response",
        _spoiled_text(lambda text: chunk(3, text)),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "input-name-of-bad-utf-8",
        "an input's name that is no UTF-8",
        _spoiled_text(lambda text: chunk(5, chunk(1, text))),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "parameter-of-bad-utf-8",
        "a parameter's name that is no UTF-8",
        _spoiled_text(lambda text: chunk(4, chunk(1, text))),
        BAD,
        ("serialized",),
    ),
    HostileRequest(
        "json",
        "the request in JSON",
        lambda: b'{"inputs": [{"name": "amount", "data": [1.0]}]}',
        BAD,
        ("serialized",),
    ),
    # The call around it.
    HostileRequest(
        "metadata-of-64-kib",
        "64 KiB of metadata",
        _good,
        "UNAVAILABLE",
        metadata=(("x-large", "x" * 65_536),),
        on_grpcio=FULL,
        why_different="native ends the connection (ENHANCE_YOUR_CALM)",
    ),
    HostileRequest(
        "1000-metadata",
        "a thousand entries of metadata",
        _good,
        "UNKNOWN",
        metadata=tuple((f"x-{number}", "x" * 20) for number in range(1000)),
        on_grpcio=FULL,
        why_different="native answers HTTP 431, which gRPC clients call UNKNOWN",
    ),
    HostileRequest(
        "binary-metadata",
        "every byte there is, in binary metadata",
        _good,
        OK,
        metadata=(("x-noise-bin", bytes(range(256))),),
    ),
    HostileRequest("gzipped", "a good request, compressed", _good, OK, is_gzipped=True),
    HostileRequest(
        "gzip-bomb",
        "100 MB of zeros in 100 kB of gzip",
        lambda: bytes(100_000_000),
        FULL,
        is_gzipped=True,
    ),
)


def _strict_raw(content: bytes) -> bytes:
    request = good(model=STRICT)
    request.raw_input_contents[0] = content
    return request.SerializeToString()
