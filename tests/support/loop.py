"""A whole stack in which a world is played: what e2e and fault tests have in common."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
from tests.support.kafka import JARS
from tests.support.waiting import PATIENCE_SECONDS
from tests.support.world import MODEL_NAME

from homeostat.checksum import of_client_keys
from homeostat.client import Client
from homeostat.ids import client_keys
from homeostat.ledger.v1.ledger_pb2 import LookUpPredictionRequest, Prediction
from homeostat.ledger.v1.ledger_pb2_grpc import LedgerServiceStub
from homeostat.push import Push, prepare, send
from homeostat.quiet import Loop
from homeostat.registry.v1.registry_pb2 import AuditEntry, ListAuditRequest
from homeostat.registry.v1.registry_pb2_grpc import RegistryServiceStub
from homeostat_flights.figures import Story, read_story
from homeostat_flights.flights import Flights
from homeostat_flights.player import Midnight, PlayedModel, Player, Tally
from homeostat_local.files import secret
from homeostat_local.kafka import start_kafka
from homeostat_local.stack import Stack, running_stack

EXPLICIT = {"INFERENCE_WATERMARK_MODE": "explicit"}


@dataclass(frozen=True, slots=True)
class Played:
    """What was sent, and what the services say of it."""

    flights: Flights
    tally: Tally
    story: Story
    # Of what was told to have come true.
    checksum: int


@contextmanager
def a_stack(
    folder: Path, kind: str = "embedded", settings: Mapping[str, str] | None = None
) -> Iterator[Stack]:
    """A stack with explicit watermarks on the embedded broker, or on a real Kafka of its own."""
    settings = {**EXPLICIT, **(settings or {})}
    if kind == "embedded":
        with running_stack(folder / "stack", settings=settings) as stack:
            yield stack
        return
    (folder / "kafka").mkdir()
    with (
        start_kafka(JARS, folder / "kafka") as kafka,
        running_stack(folder / "stack", settings=settings, kafka=kafka.address) as stack,
    ):
        yield stack


async def play(
    stack: Stack,
    push: Push,
    flights: Flights,
    at_midnight: Callable[[Midnight], Awaitable[None]] | None = None,
    beside: Callable[[Stack, Tally], Coroutine[None, None, None]] | None = None,
) -> Played:
    """Pushes, waits until it is served, plays all days with ``beside`` at its side, reads the
    story."""
    prepared = prepare(push)
    addresses = stack.addresses
    await send(prepared, registry_address=addresses["registry"], ledger_address=addresses["ledger"])
    tally = Tally.of(len(flights))
    async with Client(addresses["inference"]) as client, Loop(addresses) as loop:
        await wait_until_served(client)
        model = PlayedModel(MODEL_NAME, prepared.signature.score_output)
        player = Player(flights, model, client=client, loop=loop, tally=tally)
        async with asyncio.TaskGroup() as tasks:
            if beside is not None:
                tasks.create_task(beside(stack, tally))
            await player.play(at_midnight or _nothing)
    return Played(
        flights,
        tally,
        await read_story(addresses, MODEL_NAME),
        checksum_of(stack, flights, tally.told),
    )


async def _nothing(_: Midnight) -> None:
    return None


def checksum_of(stack: Stack, flights: Flights, told: np.ndarray) -> int:
    """What the ledger's checksum has to be when exactly these truths were joined."""
    key = secret(stack.folder, "client_key").encode()
    return of_client_keys(
        client_keys(key, flights.ids[told].tolist()), flights.late[told], flights.known_us[told]
    )


async def wait_until_served(client: Client, *, seconds: float = PATIENCE_SECONDS) -> None:
    """Until the pushed model answers."""
    deadline = time.monotonic() + seconds
    while not await client.is_model_ready(MODEL_NAME):
        assert time.monotonic() < deadline, "the pushed model is not served"
        await asyncio.sleep(0.02)


async def audit_entries(stack: Stack) -> list[AuditEntry]:
    """The whole chain."""
    async with grpc.aio.insecure_channel(stack.addresses["registry"]) as channel:
        answer = await RegistryServiceStub(channel).ListAudit(
            ListAuditRequest(limit=10_000), timeout=10
        )
    return list(answer.entries)


async def look_up(stack: Stack, client_ids: list[str]) -> list[list[Prediction]]:
    """What the ledger holds under each of the clients' own ids."""
    async with grpc.aio.insecure_channel(stack.addresses["ledger"]) as channel:
        ledger = LedgerServiceStub(channel)
        return [await _look_one_up(ledger, each) for each in client_ids]


async def _look_one_up(ledger: LedgerServiceStub, client_id: str) -> list[Prediction]:
    question = LookUpPredictionRequest(client_id=client_id, model_name=MODEL_NAME)
    try:
        answer = await ledger.LookUpPrediction(question, timeout=10)
    except grpc.aio.AioRpcError as error:
        if error.code() == grpc.StatusCode.NOT_FOUND:
            return []
        raise
    return list(answer.predictions)
