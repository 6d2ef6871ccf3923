"""ModelStreamInfer as Triton's clients speak it, on both transports."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tests.support.inference import MODEL, RunningInference, columns, expected_probability
from tests.support.waiting import eventually

from homeostat.client import infer_request, read_answer
from homeostat.inference.v2.open_inference_pb2 import (
    ModelConfigRequest,
    ModelInferRequest,
    ModelStatisticsRequest,
    ModelStreamInferResponse,
    RepositoryIndexRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    ServerMetadataRequest,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
SCRIPT = Path(__file__).with_name("clients") / "triton_stream.py"


def a_request(number: int, *, model: str = MODEL) -> ModelInferRequest:
    request = infer_request(model, columns([number / 100], ["red"]))
    request.id = str(number)
    return request


async def stream(
    inference: RunningInference, requests: Any, **options: Any
) -> list[ModelStreamInferResponse]:
    call = inference.inference.ModelStreamInfer(requests, timeout=30, **options)
    return [each async for each in call]


async def test_nvidias_client_streams(inference: RunningInference) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), inference.address, MODEL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(output)
    assert found["ids"] == [str(number) for number in range(50) if number != 25]
    expected = [expected_probability(number / 100, "red") for number in range(50) if number != 25]
    assert np.allclose(found["probabilities"], expected)
    assert len(found["errors"]) == 1 and "nobody" in found["errors"][0]
    assert all(found["final"])
    assert found["aio_ids"] == [str(number) for number in range(5)]


async def test_answers_come_in_the_order_of_the_requests_and_errors_end_nothing(
    inference: RunningInference,
) -> None:
    async def requests() -> AsyncIterator[ModelInferRequest]:
        for number in range(300):
            yield a_request(number, model="nobody" if number % 7 == 3 else MODEL)

    answers = await stream(inference, requests())
    assert [each.infer_response.id for each in answers] == [str(number) for number in range(300)]
    for number, each in enumerate(answers):
        if number % 7 == 3:
            assert each.error_message.startswith("NOT_FOUND: ") and "nobody" in each.error_message
        else:
            assert not each.error_message
            probability = read_answer(each.infer_response).outputs["probabilities"][0, 1]
            assert np.isclose(probability, expected_probability(number / 100, "red"))


async def test_bytes_that_are_no_request_are_an_error_of_their_own(
    inference: RunningInference,
) -> None:
    call = inference.channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        response_deserializer=ModelStreamInferResponse.FromString,
    )
    good = a_request(1).SerializeToString()
    answers = [each async for each in call(iter([b"\xff\xff", good]), timeout=30)]
    assert answers[0].error_message.startswith("INVALID_ARGUMENT")
    assert answers[1].infer_response.id == "1"


async def test_a_stream_stays_open_between_requests(inference: RunningInference) -> None:
    call = inference.inference.ModelStreamInfer(timeout=30)
    for number in range(3):
        await call.write(a_request(number))
        answer = await call.read()
        assert answer.infer_response.id == str(number)
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK


async def test_a_client_that_reads_nothing_is_not_read_for_ever(
    inference: RunningInference,
) -> None:
    sent = 0
    big = infer_request(MODEL, columns([1.0] * 2000, ["red"] * 2000))

    async def requests() -> AsyncIterator[ModelInferRequest]:
        nonlocal sent
        for _ in range(100_000):
            sent += 1
            yield big

    call = inference.inference.ModelStreamInfer(requests())
    await call.read()
    before = -1

    async def has_stopped() -> bool:
        nonlocal before
        await asyncio.sleep(1.0)
        before, now = sent, before
        return before == now

    await eventually(has_stopped, what="the server reads no more")
    assert sent < 5000
    call.cancel()
    (answer,) = await stream(inference, iter([a_request(1)]))
    assert answer.infer_response.id == "1"


async def test_cancelled_streams_leave_nothing_behind(inference: RunningInference) -> None:
    for _ in range(50):
        call = inference.inference.ModelStreamInfer(timeout=30)
        await call.write(a_request(1))
        call.cancel()
    (answer,) = await stream(inference, iter([a_request(2)]))
    assert answer.infer_response.id == "2"

    async def is_done() -> bool:
        return (await inference.progress()).open_work_count == 0

    await eventually(is_done, what="no request in hand")


async def test_an_empty_stream_ends_well(inference: RunningInference) -> None:
    assert await stream(inference, iter([])) == []


async def test_the_server_says_what_it_can_and_what_it_serves(inference: RunningInference) -> None:
    stub = inference.inference
    server = await stub.ServerMetadata(ServerMetadataRequest())
    assert {"binary_tensor_data", "statistics", "homeostat.prediction_id"} <= set(server.extensions)
    config = (await stub.ModelConfig(ModelConfigRequest(name=MODEL))).config
    assert [(each.name, list(each.dims)) for each in config.input] == [
        ("amount", [1]), ("kind", [1]), ("count", [1]),
    ]  # fmt: skip
    assert not config.model_transaction_policy.decoupled
    before = (await stub.ModelStatistics(ModelStatisticsRequest(name=MODEL))).model_stats[0]
    await stream(inference, iter([a_request(number) for number in range(10)]))
    after = (await stub.ModelStatistics(ModelStatisticsRequest())).model_stats[0]
    assert after.inference_count - before.inference_count == 10
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    index = (await stub.RepositoryIndex(RepositoryIndexRequest(ready=True))).models
    assert (MODEL, "1", "READY") in [(each.name, each.version, each.state) for each in index]


async def test_loading_and_unloading_name_the_cure(inference: RunningInference) -> None:
    stub = inference.inference
    for call, request in (
        (stub.RepositoryModelLoad, RepositoryModelLoadRequest(model_name=MODEL)),
        (stub.RepositoryModelUnload, RepositoryModelUnloadRequest(model_name=MODEL)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(request, timeout=30)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert "homeostat promote" in (refused.value.details() or "")
