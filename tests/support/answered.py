"""Clients that remember what they were answered, and what must therefore be on the topic.

What can become of a request. Answered: each row is on the topic once, under its prediction id.
Refused by a status that says so, or answered with durability "none": no row is there. The reply was
lost: each row is there at most once.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import grpc
from tests.support.inference import MODEL, columns, read_topic
from tests.support.waiting import eventually

from homeostat.client import infer_request, read_answer
from homeostat.events.v1.column_pb2 import ARM_SHADOW
from homeostat.events.v1.prediction_block_pb2 import PredictionBlock
from homeostat.ids import client_key, parse_prediction_id
from homeostat.inference.v2.open_inference_pb2_grpc import GRPCInferenceServiceStub
from homeostat.topics import PREDICTIONS

SECRET = b"a secret of the tests"
# Statuses by which a server says that it has kept nothing. After any other one nobody knows.
_REFUSALS = frozenset(
    {
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200))
Place = tuple[bytes, int]


@dataclass(slots=True)
class Memory:
    """What became of every row, by the client's own id of it."""

    answered: dict[str, Place] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    # Answered, and said not to be kept.
    shed: set[str] = field(default_factory=set)
    codes: Counter[grpc.StatusCode] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)
    versions: Counter[int] = field(default_factory=Counter)
    # What the answers said of how they were kept.
    durability: Counter[str] = field(default_factory=Counter)

    async def until(self, more: int) -> None:
        """Until so many more rows were answered."""
        wanted = len(self.answered) + more
        await eventually(lambda: len(self.answered) >= wanted, what=f"{more} more answers")

    async def until_failures(self, more: int) -> None:
        """Until so many more requests got none."""
        wanted = self.codes.total() + more
        await eventually(lambda: self.codes.total() >= wanted, what=f"{more} more failures")


class Clients:
    """Some clients, each with a connection of its own, that ask without a pause."""

    def __init__(self, address: str, *, name: str = "", rows: Sequence[int] = (1, 2, 3)) -> None:
        self.memory = Memory()
        self._address = address
        self._name = name
        self._rows = rows
        self._is_over = False

    @asynccontextmanager
    async def asking(self, clients: int = 8) -> AsyncIterator[Memory]:
        """Until the end of the context; calls under way are waited for."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(clients):
                tasks.create_task(self._ask(number))
            try:
                yield self.memory
            finally:
                self._is_over = True

    async def _ask(self, number: int) -> None:
        options = (*_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub: Any = GRPCInferenceServiceStub(channel)
            for turn in count():
                if self._is_over:
                    return
                rows = self._rows[(number + turn) % len(self._rows)]
                ids = [f"{self._name}{number}-{turn}-{row}" for row in range(rows)]
                await self._ask_once(stub, ids)

    async def _ask_once(self, stub: Any, ids: list[str]) -> None:
        rows = len(ids)
        request = infer_request(MODEL, columns([0.5] * rows, ["red"] * rows), client_ids=ids)
        try:
            answer = read_answer(await stub.ModelInfer(request, timeout=30))
        except grpc.aio.AioRpcError as error:
            self._note(error, ids)
            await asyncio.sleep(0.01)
            return
        self.memory.versions[answer.version] += 1
        durability = str(answer.parameters["homeostat_durability"])
        self.memory.durability[durability] += 1
        if durability == "none":
            self.memory.shed.update(ids)
            return
        places = map(parse_prediction_id, answer.prediction_ids)
        self.memory.answered |= dict(zip(ids, places, strict=True))

    def _note(self, error: grpc.aio.AioRpcError, ids: list[str]) -> None:
        self.memory.codes[error.code()] += 1
        self.memory.texts.add(error.details() or "")
        (self.memory.refused if error.code() in _REFUSALS else self.memory.lost).update(ids)


Found = list[tuple[str, PredictionBlock]]


def blocks_of(found: Found) -> dict[str, PredictionBlock]:
    """Blocks with rows, each once; one that came again must be the same."""
    blocks: dict[str, PredictionBlock] = {}
    for name, block in found:
        if block.row_count and block.arm != ARM_SHADOW:
            assert blocks.setdefault(name, block) == block, "a block came twice and differs"
    return blocks


def kept_rows(found: Found) -> dict[bytes, list[Place]]:
    """Client key to the places of its rows."""
    rows: dict[bytes, list[Place]] = {}
    for block in blocks_of(found).values():
        for row in range(block.row_count):
            key = block.client_keys[16 * row : 16 * row + 16]
            rows.setdefault(key, []).append((block.block_id, row))
    return rows


async def assert_kept(broker: str, *memories: Memory) -> None:
    """Everything that was answered is on the topic exactly once, nothing that was refused is, and
    nothing is there that nobody sent."""
    keys = {
        client_key(SECRET, each): each
        for memory in memories
        for each in (*memory.answered, *memory.refused, *memory.lost, *memory.shed)
    }
    answered = {each: place for memory in memories for each, place in memory.answered.items()}
    missing = set(answered.values())
    seen = 0

    def is_there(found: Found) -> bool:
        nonlocal seen
        for _, block in found[seen:]:
            missing.difference_update((block.block_id, row) for row in range(block.row_count))
        seen = len(found)
        return not missing

    try:
        found = await read_topic(broker, PREDICTIONS, is_there)
    except AssertionError as late:
        turns = [turn for turn, place in enumerate(answered.values()) if place in missing]
        raise AssertionError(
            f"{len(missing)} of {len(answered)} answered rows did not come, of "
            f"{seen} records: the {turns[:5]} ... {turns[-5:]}th"
        ) from late
    rows = {keys[key]: places for key, places in kept_rows(found).items()}
    wrong = [each for each, place in answered.items() if rows.get(each) != [place]]
    assert not wrong, f"{len(wrong)} answered rows are not kept once: {wrong[:5]}"
    unkept = [each for memory in memories for each in (*memory.refused, *memory.shed)]
    kept = [each for each in unkept if each in rows]
    assert not kept, f"{len(kept)} refused or shed rows are kept: {kept[:5]}"
    twice = [each for memory in memories for each in memory.lost if len(rows.get(each, ())) > 1]
    assert not twice, f"{len(twice)} rows whose reply was lost are kept twice: {twice[:5]}"
