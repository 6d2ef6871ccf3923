"""ModelStreamInfer as Triton's clients speak it: many requests over one stream."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from homeostat.inference.v2.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from homeostat_inference.edges.errors import status_of
from homeostat_inference.edges.lane import Lane

# Requests of one stream that may be in hand, and their bytes; the next is read from the connection
# when one of them was answered, and the answer went out.
MAX_IN_HAND = 64
MAX_BYTES_IN_HAND = 16 * 1024 * 1024


class InHand:
    """Requests of one stream, in their order; one reads them in, one answers them."""

    def __init__(self) -> None:
        self._asked: deque[tuple[bytes, asyncio.Future[bytes]]] = deque()
        self._bytes = 0
        self._is_ended = False
        self._changed = asyncio.Event()

    def add(self, payload: bytes, answer: "asyncio.Future[bytes]") -> None:
        """Comes last."""
        self._asked.append((payload, answer))
        self._bytes += len(payload)
        self._changed.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._is_ended = True
        self._changed.set()

    async def first(self) -> "tuple[bytes, asyncio.Future[bytes]] | None":
        """The oldest, which stays until `done`; None when all is answered and nothing comes."""
        await self._until(lambda: bool(self._asked) or self._is_ended)
        return self._asked[0] if self._asked else None

    def done(self) -> None:
        """The oldest was answered."""
        payload, _ = self._asked.popleft()
        self._bytes -= len(payload)
        self._changed.set()

    async def has_room(self) -> None:
        """Waits until another one may come."""
        await self._until(
            lambda: len(self._asked) < MAX_IN_HAND and self._bytes < MAX_BYTES_IN_HAND
        )

    def drop(self) -> None:
        """Nobody waits for the rest."""
        for _, answer in self._asked:
            answer.cancel()
        self._asked.clear()

    async def _until(self, is_true: Callable[[], bool]) -> None:
        while not is_true():
            self._changed.clear()
            await self._changed.wait()


class Streams:
    """Answers streams. Answers come in the order of the requests; what is wrong with one of them
    stands in its answer and ends nothing."""

    def __init__(self, lane: Lane, default_timeout_seconds: float) -> None:
        self._lane = lane
        self._timeout_seconds = default_timeout_seconds

    async def infer(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Serialized messages in, serialized messages out."""
        waiting = InHand()
        reading = asyncio.create_task(self._read(requests, waiting))
        try:
            while (asked := await waiting.first()) is not None:
                yield await self._answer(*asked)
                # Only now: who does not take its answers is not read on.
                waiting.done()
            # Raises what ended the reading before its time.
            await reading
        finally:
            reading.cancel()
            waiting.drop()

    async def _read(self, requests: AsyncIterator[bytes], waiting: "InHand") -> None:
        try:
            async for payload in requests:
                waiting.add(payload, self._lane.ask(payload, self._timeout_seconds))
                await waiting.has_room()
        finally:
            waiting.end()

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
