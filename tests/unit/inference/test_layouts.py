"""A request that is read by its learned layout is answered and kept as if it had been parsed."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.journals import MemoryJournal

from homeostat.client import infer_request
from homeostat.columns import unpack
from homeostat.events.v1.column_pb2 import TASK_REGRESSION
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import parse_prediction_id
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest, ModelInferResponse
from homeostat.registry.v1.registry_pb2 import Signature, TensorSpec
from homeostat_inference.app.book import BlockBook
from homeostat_inference.app.engine import Engine
from homeostat_inference.app.intake import Rules
from homeostat_inference.app.plan import CanaryPlan, ModelPlan, ServingPlan
from homeostat_inference.app.serving import Served, Table
from homeostat_inference.domain.layouts import Layouts, _walk, learn
from homeostat_inference.domain.requests import check
from homeostat_inference.domain.schema import schema_of
from homeostat_inference.domain.times import bounds
from homeostat_kit.clock import FixedClock

NOW_US = 1_000_000
SIGNATURE = Signature(
    task=TASK_REGRESSION,
    inputs=[
        TensorSpec(name="x", datatype="FP32", shape=[-1, 3], is_nullable=True),
        TensorSpec(name="n", datatype="INT64", shape=[-1]),
        TensorSpec(name="t", datatype="BYTES", shape=[-1, 1], is_nullable=True),
    ],
    outputs=[
        TensorSpec(name="y", datatype="FP32", shape=[-1, 1]),
        TensorSpec(name="text", datatype="BYTES", shape=[-1, 1]),
        TensorSpec(name="wide", datatype="FP64", shape=[-1, 2]),
    ],
    score_output="y",
    request_id_is_client_id=True,
)


# Strings are found by their places in single rows only.
NUMBERS = Signature.FromString(SIGNATURE.SerializeToString())
del NUMBERS.inputs[2], NUMBERS.outputs[1]


class Mixes:
    """Answers something that depends on every input."""

    def run(self, inputs: Sequence[Any], options: Any = None) -> list[Any]:
        x, n, *texts = inputs
        y = np.nan_to_num(x).sum(axis=1, keepdims=True) + n[:, None] % 97
        for text in texts:
            y = y + np.array([[len(each)] for each in text[:, 0]], np.float32)
        wide = np.hstack([y, -y]).astype(np.float64)
        return [y.astype(np.float32), *texts, wide]


class Call:
    """Remembers its one answer."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.received_ns = time.monotonic_ns()
        self.deadline_ns = 0
        self.answers: list[ModelInferResponse] = []
        self.errors: list[str] = []

    def respond(self, payload: bytes) -> None:
        self.answers.append(ModelInferResponse.FromString(payload))

    def fail(self, error: Exception) -> None:
        self.errors.append(f"{type(error).__name__}: {error}")


class World:
    """An engine; with a limit of 0 it learns no layouts."""

    def __init__(self, limit: int, signature: Signature = SIGNATURE) -> None:
        clock = FixedClock(NOW_US)
        self.journal = MemoryJournal()
        self.served = Served(
            schema_of("m", 1, signature),
            Mixes(),
            run_seconds=lambda rows: 0.0,
            inline_seconds=1.0,
            queue_rows=1000,
            queue_bytes=1 << 20,
        )
        table = Table()
        table.swap(self.served)
        self.engine = Engine(
            table=table,
            book=BlockBook(self.journal, clock),
            clock=clock,
            rules=Rules(1 << 20, b"secret", "durable"),
            times=lambda now_us: bounds(now_us, 0, 10),
            see=lambda newest_us, now_us: None,
            fetch=lambda call, missing: call.fail(missing),
            log=lambda event, error: None,
        )
        self.engine.intake._layouts = Layouts(limit)

    def ask(self, payloads: Sequence[bytes]) -> list[Any]:
        """What is said to each, and what is kept of it."""
        calls = [Call(each) for each in payloads]
        self.engine.handle(calls)
        assert all(len(each.answers) + len(each.errors) == 1 for each in calls)
        assert self.served.rows_in_hand == 0
        blocks = {each.block_id: each for each in self.journal.blocks}
        return [each.errors or told(each.answers[0], blocks) for each in calls]


def told(response: ModelInferResponse, blocks: dict[bytes, PredictionBlock]) -> Any:
    """An answer and its rows, without what is new each time."""
    parameters = {name: repr(value) for name, value in response.parameters.items()}
    block_id, row = parse_prediction_id(response.parameters["prediction_id"].string_param)
    rows = slice(row, row + response.parameters["homeostat_row_count"].int64_param)
    for name in ("prediction_id", "homeostat_queue_us"):
        assert parameters.pop(name)
    block = blocks[block_id]
    columns = {}
    for each in (*block.inputs, *block.outputs, *block.contexts):
        values, valid = unpack(each, block.row_count)
        columns[each.name] = (repr(values[rows].tolist()), valid[rows].tolist(), each.datatype)
    keys = np.frombuffer(block.client_keys or bytes(16 * block.row_count), "V16")
    return (
        response.id,
        parameters,
        [repr(each) for each in response.outputs],
        [bytes(each) for each in response.raw_output_contents],
        columns,
        keys[rows].tolist(),
        np.frombuffer(block.event_times_us, "<i8")[rows].tolist(),
        np.frombuffer(block.scores, "<f8")[rows].tolist(),
    )


FLOATS = st.floats(-100, 100, width=32) | st.just(float("nan"))
TEXTS = st.sampled_from(["", "abc", "xyz", "äb", "a\0c"])


@st.composite
def clients(draw: st.DrawFn) -> tuple[Signature, list[bytes]]:
    """Requests of one client: of one form, in an order of fields of its own."""
    rows = draw(st.integers(1, 3))
    signature = draw(st.sampled_from([SIGNATURE, NUMBERS]))
    has = {name: draw(st.booleans()) for name in ("id", "ids", "times", "context", "output")}
    order = draw(st.permutations(range(1, 8)))
    payloads = []
    for _ in range(draw(st.integers(3, 6))):
        x = np.array(draw(st.lists(FLOATS, min_size=3 * rows, max_size=3 * rows)), np.float32)
        inputs = {"x": x.reshape(rows, 3)}
        if signature is SIGNATURE:
            texts = draw(st.lists(TEXTS, min_size=rows, max_size=rows))
            inputs["t"] = np.array(texts, object)
        request = infer_request(
            "m",
            inputs,
            client_ids=[draw(TEXTS) for _ in range(rows)] if has["ids"] else None,
            event_times_us=(
                np.array([draw(st.integers(NOW_US - 20, NOW_US + 11)) for _ in range(rows)])
                if has["times"]
                else None
            ),
            contexts=(
                {"c": np.array([draw(FLOATS) for _ in range(rows)], "f8")}
                if has["context"]
                else None
            ),
        )
        request.inputs.add(name="n", datatype="INT64", shape=[rows])
        numbers = [draw(st.integers(-(2**63), 2**63 - 1)) for _ in range(rows)]
        request.raw_input_contents.append(np.array(numbers, "<i8").tobytes())
        if has["id"]:
            request.id = draw(st.sampled_from(["customer-1", "customer-2", "cüstomer-3"]))
        if has["output"]:
            request.outputs.add(name="wide")
        request.parameters["tag"].string_param = "same"
        payloads.append(reordered(request.SerializeToString(deterministic=True), order))
    return signature, payloads


def reordered(payload: bytes, order: Sequence[int]) -> bytes:
    """The same message with its fields in another order, as other libraries write them."""
    fields = sorted(_walk(payload), key=lambda each: order.index(each.number))
    return b"".join(payload[each.start : each.content.after] for each in fields)


@settings(max_examples=80, deadline=None)
@given(client=clients(), data=st.data())
def test_whatever_comes_after_it_was_learned_is_answered_and_kept_as_if_it_had_been_parsed(
    client: tuple[Signature, list[bytes]], data: st.DataObject
) -> None:
    signature, payloads = client
    known, plain = World(256, signature), World(0, signature)
    for payload in payloads[:2] * 2:
        known.engine.handle([Call(payload)])
    mutated = []
    for payload in payloads:
        content = bytearray(payload)
        for _ in range(data.draw(st.integers(0, 2))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at] = data.draw(st.integers(0, 255))
        mutated.append(bytes(content))
    asked = [*payloads, *mutated]
    for each in (asked, asked[::-1], [asked[0]]):
        # Rows of the run are told too; refused ones beside it must not change what is told.
        assert known.ask(each) == plain.ask(each)


def a_request(name: str, value: float, **more: Any) -> ModelInferRequest:
    request = infer_request(
        "m",
        {
            "x": np.full((1, 3), value, np.float32),
            "n": np.array([7]),
            "t": np.array([["abc"]], object),
        },
        **more,
    )
    request.inputs[1].shape[:] = [1]
    request.id = name
    return request


def test_a_client_is_learned_from_its_second_request_and_others_find_their_own_way() -> None:
    world = World(256)
    intake = world.engine.intake
    for number in range(4):
        world.ask([a_request(f"customer-{number}", number).SerializeToString()])
        assert intake.learned_count == min(number, 1)
    world.ask([a_request("client", 1.0).SerializeToString()] * 2)
    assert intake.layouts_count == intake.learned_count


def test_however_many_forms_there_are_only_so_many_are_remembered() -> None:
    world = World(8)
    for length in range(1, 60):
        payload = a_request("x" * length, 1.0).SerializeToString()
        world.ask([payload])
        world.ask([payload])
        for tag in range(3):
            request = a_request("x" * length, 1.0)
            request.parameters["tag"].int64_param = tag
            world.ask([request.SerializeToString()] * 2)
    assert world.engine.intake.layouts_count <= 8
    assert world.engine.intake.learned_count > 100


def test_a_version_with_another_signature_is_not_read_by_the_layouts_of_the_one_before() -> None:
    world = World(256)
    payload = a_request("customer", 1.0).SerializeToString()
    for _ in range(3):
        world.ask([payload])
    assert world.engine.intake.layouts_count == 1
    stricter = Signature.FromString(SIGNATURE.SerializeToString())
    stricter.inputs[0].shape[1] = 4
    other = Served(
        schema_of("m", 2, stricter),
        Mixes(),
        run_seconds=lambda rows: 0.0,
        inline_seconds=1.0,
        queue_rows=1000,
        queue_bytes=1 << 20,
    )
    world.engine.table.swap(other)
    call = Call(payload)
    world.engine.handle([call])
    assert "expected shape [-1, 4]" in call.errors[0]
    assert world.engine.intake.layouts_count == 0


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=60))
@example(content=b"\x1a\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")
def test_no_bytes_take_the_walk_beyond_their_end(content: bytes) -> None:
    request = a_request("customer", 1.0)
    schema = schema_of("m", 1, SIGNATURE)
    payload = content + request.SerializeToString()
    try:
        message = ModelInferRequest.FromString(payload)
        checked = check(message, schema, bounds(NOW_US, None, 10))
    except Exception:
        return
    layout = learn(payload, message, checked, schema)
    if layout is not None:
        stack = layout.stack([payload])
        part = layout.part([None], stack, [payload], schema)
        assert layout.matches(stack) is None
        assert part.columns[0].tobytes() == checked.columns[0]
        assert part.columns[1].tobytes() == checked.columns[1]


def test_a_client_belongs_to_the_same_side_of_a_canary_however_its_requests_are_read() -> None:
    worlds = [World(256), World(0)]
    arms: list[list[tuple[str, str]]] = []
    for world in worlds:
        candidate = Served(
            schema_of("m", 2, SIGNATURE),
            Mixes(),
            run_seconds=lambda rows: 0.0,
            inline_seconds=1.0,
            queue_rows=1000,
            queue_bytes=1 << 20,
        )
        plan = ModelPlan("m", 1, champion=1, canary=CanaryPlan(2, 0.5))
        world.engine.table.apply(
            ServingPlan(1, {"m": plan}), {("m", 1): world.served, ("m", 2): candidate}
        )
        for _ in range(3):
            calls = [
                Call(a_request(f"client-{number:02d}", number).SerializeToString())
                for number in range(40)
            ]
            world.engine.handle(calls)
        told_arms = [each.answers[0].parameters["homeostat_arm"].string_param for each in calls]
        arms.append([(each.answers[0].id, arm) for each, arm in zip(calls, told_arms, strict=True)])
    assert worlds[0].engine.intake.learned_count == 1
    assert arms[0] == arms[1]
    assert {arm for _, arm in arms[0]} == {"champion", "canary"}
