"""ModelStreamInfer as Triton's clients speak it: many requests over one stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from homeostat.inference.v2.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from homeostat_inference.edges.errors import status_of
from homeostat_inference.edges.lane import Lane

# Requests of one stream that may be in hand; the next is read from the connection when one of them
# was answered, and the answer went out.
MAX_IN_HAND = 64
Waiting = "asyncio.Future[bytes]"


class Streams:
    """Answers streams. Answers come in the order of the requests; what is wrong with one of them
    stands in its answer and ends nothing."""

    def __init__(self, lane: Lane, default_timeout_seconds: float) -> None:
        self._lane = lane
        self._timeout_seconds = default_timeout_seconds

    async def infer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Serialized messages in, serialized messages out."""
        waiting: asyncio.Queue[tuple[bytes, asyncio.Future[bytes]] | None] = asyncio.Queue(
            MAX_IN_HAND
        )
        reading = asyncio.create_task(self._read(requests, waiting))
        try:
            while (asked := await waiting.get()) is not None:
                yield await self._answer(*asked)
            # Raises what ended the reading before its time.
            await reading
        finally:
            reading.cancel()
            while not waiting.empty():
                if (asked := waiting.get_nowait()) is not None:
                    asked[1].cancel()

    async def _read(self, requests: AsyncIterator[bytes], waiting: "asyncio.Queue[Any]") -> None:
        try:
            async for payload in requests:
                await waiting.put((payload, self._lane.ask(payload, self._timeout_seconds)))
        finally:
            if not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                await waiting.put(None)

    async def _answer(self, payload: bytes, asked: "asyncio.Future[bytes]") -> bytes:
        try:
            answered = await asked
        except Exception as error:
            return _failed(payload, error)
        return _answered(answered)


def _answered(response: bytes) -> bytes:
    # Field 2 of the stream's response is the response, which need not be read for that.
    final = ModelInferResponse()
    final.parameters["triton_final_response"].bool_param = True
    whole = response + final.SerializeToString()
    return b"\x12" + _varint(len(whole)) + whole


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _failed(payload: bytes, error: Exception) -> bytes:
    code, text = status_of(error)
    response = ModelStreamInferResponse(error_message=f"{code.name}: {text}")
    try:
        request = ModelInferRequest.FromString(payload)
    except Exception:
        # Not a request at all: nothing of it can be named.
        return response.SerializeToString()
    response.infer_response.id = request.id
    response.infer_response.model_name = request.model_name
    response.infer_response.model_version = request.model_version
    return response.SerializeToString()
