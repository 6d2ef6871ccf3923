"""Streams through NVIDIA's client, in a process of its own: its stubs and ours clash."""

import asyncio
import json
import queue
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio

REQUESTS = 50
# This one asks for a model that is none.
BAD = 25


def main(address: str, model: str) -> dict[str, Any]:
    client = triton.InferenceServerClient(address)
    answered: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=partial(_take, answered))
    for number in range(REQUESTS):
        client.async_stream_infer(
            "nobody" if number == BAD else model, inputs(number), request_id=str(number)
        )
    answers = [answered.get(timeout=30) for _ in range(REQUESTS)]
    client.stop_stream()
    good = [result for result, error in answers if error is None]
    return {
        "ids": [each.get_response().id for each in good],
        "probabilities": [float(each.as_numpy("probabilities")[0, 1]) for each in good],
        "errors": [error.message() for _, error in answers if error is not None],
        "final": [
            each.get_response().parameters["triton_final_response"].bool_param for each in good
        ],
        "aio_ids": asyncio.run(by_asyncio(address, model)),
    }


def _take(answered: Any, result: Any, error: Any) -> None:
    answered.put((result, error))


async def by_asyncio(address: str, model: str) -> list[str]:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(5):
            yield {"model_name": model, "inputs": inputs(number), "request_id": str(number)}

    async with triton_aio.InferenceServerClient(address) as client:
        found = []
        async for result, error in client.stream_infer(requests()):
            assert error is None
            found.append(result.get_response().id)
        return found


def inputs(number: int) -> list[Any]:
    made = []
    for name, values, datatype in (
        ("amount", np.array([[number / 100]], np.float32), "FP32"),
        ("kind", np.array([["red"]], dtype=object), "BYTES"),
        ("count", np.array([[1]], np.int64), "INT64"),
    ):
        each = triton.InferInput(name, list(values.shape), datatype)
        each.set_data_from_numpy(values)
        made.append(each)
    return made


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
