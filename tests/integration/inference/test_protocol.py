"""The Open Inference Protocol, as others speak it, on both transports."""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.integration.inference.conftest import Shared
from tests.support.inference import (
    MODEL,
    RunningInference,
    a_model,
    a_signature,
    columns,
    expected_probability,
    read_topic,
)

from homeostat.client import Client, infer_request, read_answer
from homeostat.events.v1.column_pb2 import ARM_CHAMPION, ARM_PINNED
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import client_key, parse_prediction_id
from homeostat.inference.v1.truth_pb2 import (
    AdvanceWatermarkRequest,
    Outcome,
    RecordOutcomesRequest,
)
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest
from homeostat.topics import OUTCOMES, PREDICTIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")
SECRET = b"a secret of the tests"
SCRIPT = Path(__file__).with_name("triton_script.py")


async def test_nvidias_client_is_answered(inference: RunningInference) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), inference.address, MODEL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(output)
    assert found["live"] and found["ready"] and found["model_ready"]
    assert not found["unknown_ready"]
    assert found["server"]["name"] == "homeostat"
    assert [each["name"] for each in found["model"]["inputs"]] == ["amount", "kind", "count"]
    assert found["version"]["versions"] == ["1"]
    expected = [
        expected_probability(*row) for row in ((0.5, "red"), (float("nan"), ""), (2.0, "grün"))
    ]
    for name, arm in (("raw", "champion"), ("pinned", "pinned")):
        answer = found[name]
        assert answer["id"] == "mine"
        assert np.allclose(np.array(answer["probabilities"])[:, 1], expected)
        assert answer["label"] == [1, 0, 1]
        assert answer["parameters"]["homeostat_arm"] == arm
        assert answer["parameters"]["homeostat_row_count"] == 3
        assert answer["parameters"]["homeostat_durability"] == "durable"
    assert found["selected"] == ["label"]
    assert found["unknown"][0] == "StatusCode.NOT_FOUND"


def a_typed_request(amounts: list[float], kinds: list[str]) -> ModelInferRequest:
    request = ModelInferRequest(model_name=MODEL, id="typed")
    shape = [len(amounts), 1]
    amount = request.inputs.add(name="amount", datatype="FP32", shape=shape)
    amount.contents.fp32_contents.extend(amounts)
    kind = request.inputs.add(name="kind", datatype="BYTES", shape=shape)
    kind.contents.bytes_contents.extend(each.encode() for each in kinds)
    count = request.inputs.add(name="count", datatype="INT64", shape=shape)
    count.contents.int64_contents.extend(range(len(amounts)))
    return request


async def test_typed_contents_are_answered_in_typed_contents(inference: RunningInference) -> None:
    answer = await inference.inference.ModelInfer(a_typed_request([1.0, 0.0], ["blue", "red"]))
    assert answer.id == "typed"
    assert not answer.raw_output_contents
    assert list(answer.outputs[0].contents.int64_contents) == [0, 1]
    probabilities = list(answer.outputs[1].contents.fp32_contents)
    assert list(answer.outputs[1].shape) == [2, 2]
    assert np.isclose(probabilities[1], expected_probability(1.0, "blue"))


async def the_block(broker: str, block_id: bytes) -> tuple[str, PredictionBlock]:
    """Event id and message."""
    found = await read_topic(
        broker, PREDICTIONS, lambda found: any(each.block_id == block_id for _, each in found)
    )
    return next(each for each in found if each[1].block_id == block_id)


async def test_what_was_answered_is_on_the_topic_as_it_was_answered(
    shared: Shared,
) -> None:
    inference = shared.inference
    times = np.array([1_000_000, 2_000_000], dtype=np.int64)
    async with Client(inference.address) as client:
        answer = await client.infer(
            infer_request(
                MODEL,
                columns([0.5, float("nan")], ["red", ""]),
                client_ids=["flight 1", ""],
                event_times_us=times,
                contexts={"carrier": np.array(["UA", "AA"], dtype=object)},
            )
        )
        recorded = await client.record_outcomes(
            MODEL,
            [
                Outcome(client_id="flight 1", label="late", known_at_us=5),
                Outcome(prediction_id=answer.prediction_ids[1], value=0),
            ],
            source="arrivals",
        )
    assert recorded == 2
    block_id, row = parse_prediction_id(answer.prediction_ids[0])
    name, block = await the_block(shared.broker, block_id)
    assert row == 0
    assert name == block_id.hex()
    assert (block.version, block.arm, block.row_count) == (1, ARM_CHAMPION, 2)
    assert block.event_times_us == times.tobytes()
    assert block.client_keys == client_key(SECRET, "flight 1") + bytes(16)
    assert [each.name for each in block.contexts] == ["carrier"]
    assert block.inputs[0].validity == b"\x01"
    assert np.allclose(
        np.frombuffer(block.scores), [expected_probability(0.5, "red"), 0.5], atol=1e-6
    )
    assert np.frombuffer(block.decisions).tolist() == [1.0, 1.0]
    outcomes = await read_topic(
        shared.broker,
        OUTCOMES,
        lambda found: any(block_id in each.prediction_ids for _, each in found),
    )
    truth = next(each for _, each in outcomes if block_id in each.prediction_ids)
    assert np.frombuffer(truth.truths).tolist() == [1.0, 0.0]
    assert truth.prediction_ids == bytes(20) + block_id + (1).to_bytes(4, "little")
    assert truth.client_keys == client_key(SECRET, "flight 1") + bytes(16)
    assert np.frombuffer(truth.known_at_us, dtype=np.int64)[0] == 5
    assert truth.source == "arrivals"


async def test_requests_that_wait_together_run_together_and_keep_their_own_answers(
    inference: RunningInference,
) -> None:
    async with Client(inference.address) as client:
        answers = await asyncio.gather(
            *(
                client.infer(infer_request(MODEL, columns([number / 100] * 3, ["red", "", "blue"])))
                for number in range(100)
            )
        )
    for number, answer in enumerate(answers):
        got = answer.outputs["probabilities"][:, 1]
        kinds = ("red", "", "blue")
        assert np.allclose(got, [expected_probability(number / 100, kind) for kind in kinds])
    ids = [each for answer in answers for each in answer.prediction_ids]
    assert len(set(ids)) == 300
    assert max(answer.parameters["homeostat_batch_rows"] for answer in answers) > 3


async def test_a_named_version_is_fetched_and_answers_as_pinned(
    shared: Shared,
) -> None:
    inference = shared.inference
    shared.registry.add(2, a_model(weight=-1.0), a_signature())
    async with Client(inference.address) as client:
        answer = await client.infer(infer_request(MODEL, columns([1.0], ["red"]), version=2))
        assert answer.version == 2
        got = answer.outputs["probabilities"][0, 1]
        assert np.isclose(got, expected_probability(1.0, "red", -1.0))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.infer(infer_request(MODEL, columns([1.0], ["red"]), version=9))
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    _, block = await the_block(shared.broker, parse_prediction_id(answer.prediction_ids[0])[0])
    assert (block.version, block.arm) == (2, ARM_PINNED)


def a_request(**changes: np.ndarray) -> ModelInferRequest:
    return infer_request(MODEL, {**columns([1.0, 2.0], ["red", "blue"]), **changes})


def changed(change: Callable[[ModelInferRequest], Any]) -> ModelInferRequest:
    request = a_request()
    change(request)
    return request


def an_input(request: ModelInferRequest, name: str) -> Any:
    return next(each for each in request.inputs if each.name == name)


def without(name: str) -> ModelInferRequest:
    rows = columns([1.0], ["red"])
    del rows[name]
    return infer_request(MODEL, rows)


def with_reserved(name: str, values: np.ndarray) -> ModelInferRequest:
    return infer_request(MODEL, {**columns([1.0, 2.0], ["red", "blue"]), name: values})


FAR = np.array([[2**62], [0]], dtype=np.int64)
INF = np.array([1.0, np.inf], dtype=np.float32)
BAD_TEXT = b"\x03\x00\x00\x00\xff\xfe\xfd"

# What is wrong, and what the answer must say beside the model's name.
BAD: dict[str, tuple[ModelInferRequest, str, tuple[str, ...]]] = {
    "unknown model": (
        infer_request("nobody", columns([1.0], ["red"])),
        "NOT_FOUND",
        ("nobody", MODEL),
    ),
    "version that is no number": (
        changed(lambda r: setattr(r, "model_version", "best")),
        "NOT_FOUND",
        ("best",),
    ),
    "wrong name": (
        changed(lambda r: setattr(r.inputs[0], "name", "sum")),
        "INVALID_ARGUMENT",
        ("sum", MODEL),
    ),
    "wrong dtype": (
        a_request(amount=np.array([1.0, 2.0], dtype=np.float64)),
        "INVALID_ARGUMENT",
        ("amount", "FP32", "FP64"),
    ),
    "wrong shape": (
        a_request(amount=np.ones((2, 2), dtype=np.float32)),
        "INVALID_ARGUMENT",
        ("amount", "[-1, 1]", "[2, 2]"),
    ),
    "wrong rank": (
        a_request(amount=np.ones((2, 1, 1), dtype=np.float32)),
        "INVALID_ARGUMENT",
        ("amount", "[-1, 1]", "[2, 1, 1]"),
    ),
    "missing input": (without("kind"), "INVALID_ARGUMENT", ("kind", "missing")),
    "extra input": (
        with_reserved("colour", np.ones(2, dtype=np.float32)),
        "INVALID_ARGUMENT",
        ("colour",),
    ),
    "input twice": (
        changed(lambda r: setattr(an_input(r, "count"), "name", "amount")),
        "INVALID_ARGUMENT",
        ("amount",),
    ),
    "rows that differ": (
        a_request(kind=np.array(["red"], dtype=object)),
        "INVALID_ARGUMENT",
        ("2 rows", "got 1"),
    ),
    "infinity": (a_request(amount=INF), "INVALID_ARGUMENT", ("amount", "row 1", "inf")),
    "raw length that does not fit": (
        changed(lambda r: r.raw_input_contents.__setitem__(0, b"\x00" * 7)),
        "INVALID_ARGUMENT",
        ("amount", "8 bytes", "got 7"),
    ),
    "raw contents for fewer inputs": (
        changed(lambda r: r.raw_input_contents.pop()),
        "INVALID_ARGUMENT",
        ("3", "got 2"),
    ),
    "string that ends early": (
        changed(lambda r: r.raw_input_contents.__setitem__(1, b"\x09\x00\x00\x00red")),
        "INVALID_ARGUMENT",
        ("kind", "2 length-prefixed strings"),
    ),
    "bad UTF-8": (
        changed(lambda r: r.raw_input_contents.__setitem__(1, BAD_TEXT + b"\x00\x00\x00\x00")),
        "INVALID_ARGUMENT",
        ("kind", "UTF-8"),
    ),
    "event time far in the future": (
        with_reserved("homeostat.event_time", FAR),
        "INVALID_ARGUMENT",
        ("homeostat.event_time", "future", str(2**62)),
    ),
    "event time of another type": (
        with_reserved("homeostat.event_time", np.array([1.0, 2.0])),
        "INVALID_ARGUMENT",
        ("homeostat.event_time", "INT64", "FP64"),
    ),
    "reserved name that is none": (
        with_reserved("homeostat.colour", np.array([1.0, 2.0])),
        "INVALID_ARGUMENT",
        ("homeostat.colour",),
    ),
    "context with infinity": (
        with_reserved("homeostat.context.speed", np.array([1.0, np.inf])),
        "INVALID_ARGUMENT",
        ("speed", "infinity"),
    ),
    "empty batch": (
        infer_request(MODEL, columns([], [])),
        "INVALID_ARGUMENT",
        ("at least one row",),
    ),
    "output that is none": (
        changed(lambda r: r.outputs.add(name="risk")),
        "INVALID_ARGUMENT",
        ("risk", "probabilities"),
    ),
    "oversized request": (
        a_request(kind=np.array(["x" * 2_000_000, ""], dtype=object)),
        "RESOURCE_EXHAUSTED",
        ("1000000",),
    ),
}


async def test_every_bad_request_is_told_why_and_the_next_good_one_is_answered(
    inference: RunningInference,
) -> None:
    for what, (request, code, words) in BAD.items():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await inference.inference.ModelInfer(request, timeout=10)
        assert refused.value.code().name == code, (what, refused.value)
        for word in words:
            assert word in (refused.value.details() or ""), (what, word, refused.value.details())
        answer = await inference.inference.ModelInfer(a_request(), timeout=10)
        assert len(read_answer(answer).prediction_ids) == 2


async def test_bytes_that_are_no_request_are_refused(inference: RunningInference) -> None:
    call = inference.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call(b"\xff\xff\xff", timeout=10)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_nan_is_refused_where_the_input_is_not_nullable_and_spares_those_beside_it(
    shared: Shared,
) -> None:
    inference = shared.inference
    signature = a_signature()
    signature.inputs[0].is_nullable = False
    shared.registry.add(3, a_model(), signature)
    async with Client(inference.address) as client:
        await client.infer(infer_request(MODEL, columns([1.0], ["red"]), version=3))
        results = await asyncio.gather(
            *(
                client.infer(
                    infer_request(
                        MODEL,
                        columns([float("nan") if number % 5 == 0 else 1.0], ["red"]),
                        version=3,
                    )
                )
                for number in range(50)
            ),
            return_exceptions=True,
        )
    for number, result in enumerate(results):
        if number % 5 == 0:
            assert isinstance(result, grpc.aio.AioRpcError)
            assert "amount" in (result.details() or "") and "nan" in (result.details() or "")
        else:
            assert not isinstance(result, BaseException)


async def test_truth_that_is_none_is_refused(inference: RunningInference) -> None:
    bad = {
        "unknown model": ("nobody", Outcome(client_id="a", value=1), grpc.StatusCode.NOT_FOUND),
        "label": (MODEL, Outcome(client_id="a", label="soon"), grpc.StatusCode.INVALID_ARGUMENT),
        "class": (MODEL, Outcome(client_id="a", value=2), grpc.StatusCode.INVALID_ARGUMENT),
        "nan": (
            MODEL,
            Outcome(client_id="a", value=float("nan")),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        "no truth": (MODEL, Outcome(client_id="a"), grpc.StatusCode.INVALID_ARGUMENT),
        "no subject": (MODEL, Outcome(value=1), grpc.StatusCode.INVALID_ARGUMENT),
        "prediction id": (
            MODEL,
            Outcome(prediction_id="xyz-1", value=1),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        "future": (
            MODEL,
            Outcome(client_id="a", value=1, known_at_us=2**62),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    }
    for what, (model, outcome, code) in bad.items():
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await inference.truth.RecordOutcomes(
                RecordOutcomesRequest(model_name=model, outcomes=[outcome]), timeout=10
            )
        assert refused.value.code() == code, what
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await inference.truth.AdvanceWatermark(AdvanceWatermarkRequest(watermark_us=1), timeout=10)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_health_and_reflection_are_served_on_the_same_port(
    inference: RunningInference,
) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # noqa: PLC0415

    health = await health_pb2_grpc.HealthStub(inference.channel).Check(
        health_pb2.HealthCheckRequest(service="inference.GRPCInferenceService"), timeout=5
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    asked = reflection_pb2_grpc.ServerReflectionStub(inference.channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5
    )
    names = [each.name async for answer in asked for each in answer.list_services_response.service]
    assert "inference.GRPCInferenceService" in names
    assert "homeostat.inference.v1.TruthService" in names
