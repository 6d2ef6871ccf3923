"""Requests that look like those before them, except for a bit.

A server may read many requests of one form at once, without parsing each. Whatever it takes for
that form has to get the answer that a parser would have led to. So each bit of a request of a
well-known form is turned, and the answer is compared with that to the same request in a form that
is never seen twice: with an unknown field of another length behind it.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from tests.hostile.requests import chunk
from tests.integration.inference.conftest import TRANSPORTS
from tests.support.inference import MODEL, RunningInference, a_registry, an_inference, columns
from tests.support.ports import free_port

from homeostat.client import infer_request
from homeostat.inference.v2.open_inference_pb2 import ModelInferRequest, ModelInferResponse

pytestmark = pytest.mark.asyncio(loop_scope="module")
MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
TOGETHER = 48
# What the answer says of the moment, not of the request.
_OF_THE_MOMENT = (
    *("prediction_id", "homeostat_queue_us", "homeostat_batch_rows", "homeostat_why"),
    *("homeostat_unbatched", "homeostat_batch_why"),
)

Outcome = tuple[str, str]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def server(
    request: pytest.FixtureRequest, shared_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningInference]:
    async with (
        a_registry() as registry,
        an_inference(
            port=free_port(),
            broker=shared_broker,
            registry=registry.address,
            folder=tmp_path_factory.mktemp("flipped"),
            transport=request.param,
        ) as running,
    ):
        yield running


def one_row(number: int) -> ModelInferRequest:
    """Of one form: only values and the id change."""
    request = infer_request(MODEL, columns([number / 7], ["red"]))
    request.id = f"request {number:04d}"
    return request


def with_ids_and_times(number: int) -> ModelInferRequest:
    """Two rows with all that a caller may add."""
    return infer_request(
        MODEL,
        columns([number / 7, -1.0], ["red", "blue"]),
        client_ids=[f"client {number:04d}", "b"],
        event_times_us=np.array([number, 10**15]),
        contexts={"speed": np.array([1.0, float(number)])},
    )


FORMS = {"one row": one_row, "ids and times": with_ids_and_times}


@pytest.mark.parametrize("form", FORMS)
async def test_a_turned_bit_gets_the_answer_that_a_parser_leads_to(
    form: str, server: RunningInference
) -> None:
    make = FORMS[form]
    good = [make(number).SerializeToString() for number in range(200)]
    call = server.channel.unary_unary(MODEL_INFER)
    for first in range(0, 200, TOGETHER):
        await asyncio.gather(*(call(each) for each in good[first : first + TOGETHER]))
    flipped = _flipped(good[0])
    wrong = []
    for first in range(0, len(flipped), TOGETHER):
        some = flipped[first : first + TOGETHER]
        # Those of the form stand among those of almost the form.
        got = await _outcomes(
            call, [each for pair in zip(some, good[1:], strict=False) for each in pair]
        )
        expected = await _outcomes(
            call, [_of_another_form(each, first + at) for at, each in enumerate(some)]
        )
        wrong += [
            f"{each.hex()}: {outcome}, not {other}"
            for each, outcome, other in zip(some, got[::2], expected, strict=True)
            if outcome != (other if _is_parsed(each) else ("INVALID_ARGUMENT", outcome[1]))
        ]
    assert not wrong, f"{len(wrong)} of {len(flipped)}: {wrong[0][:2000]}"


def _flipped(data: bytes) -> list[bytes]:
    return [
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
        for at in range(len(data))
        for bit in range(8)
    ]


def _of_another_form(data: bytes, number: int) -> bytes:
    return data + chunk(1000, bytes(number))


def _is_parsed(data: bytes) -> bool:
    try:
        ModelInferRequest.FromString(data)
    except Exception:
        return False
    return True


async def _outcomes(call: Any, requests: Sequence[bytes]) -> list[Outcome]:
    return list(await asyncio.gather(*(_outcome(call, each) for each in requests)))


async def _outcome(call: Any, request: bytes) -> Outcome:
    try:
        answer = ModelInferResponse.FromString(await call(request, timeout=10))
    except grpc.aio.AioRpcError as error:
        # The latest time that is believed moves on.
        return error.code().name, re.sub(r"no time after \d+", "", error.details() or "")
    for name in _OF_THE_MOMENT:
        answer.parameters.pop(name, None)
    return "OK", answer.SerializeToString(deterministic=True).hex()
