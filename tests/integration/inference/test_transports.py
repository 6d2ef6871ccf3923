"""Both ways in hand over deadlines, empty themselves before a run, and say when to come back."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Literal

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from tests.support.waiting import eventually

from homeostat_inference.app.ports import Call
from homeostat_inference.domain.errors import InvalidInput, Overloaded
from homeostat_inference.edges.errors import CODES
from homeostat_inference.edges.transports import MODEL_INFER, Infer, open_transport
from homeostat_kit.grpc_server import RunningServer, serve

Kind = Literal["native", "grpcio"]
SERVICE, METHOD = MODEL_INFER.strip("/").split("/")


class Desk:
    """Takes calls, and does with them whatever the test says."""

    def __init__(self, answer: Callable[[Call], None]) -> None:
        self.taken: list[Call] = []
        # How many waited when it was asked to work.
        self.turns: list[int] = []
        self.is_open = True
        self._answer = answer
        self._waiting: list[Call] = []

    def take(self, calls: Sequence[Call]) -> None:
        self.taken += calls
        self._waiting += calls

    def work(self) -> None:
        if self._waiting and self.is_open:
            self.turns.append(len(self._waiting))
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                self._answer(each)

    def patience_ms(self, at_most_ms: int) -> int:
        return 1


class Connections:
    """Calls that go over several connections in turn: one alone carries only so many."""

    def __init__(self, port: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(6)
        ]
        self._turns = itertools.cycle([each.unary_unary(MODEL_INFER) for each in self.channels])

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return next(self._turns)(*arguments, **options)


@asynccontextmanager
async def listening(kind: Kind, desk: Desk) -> AsyncIterator[Any]:
    async def fallback(address: str, infer: Infer | None) -> RunningServer:
        def add(server: grpc.aio.Server) -> None:
            if infer is not None:
                handler = grpc.unary_unary_rpc_method_handler(infer)
                server.add_generic_rpc_handlers(
                    (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
                )

        return await serve(address, add, errors=CODES, service_names=(SERVICE,))

    transport = await open_transport(kind, "127.0.0.1:0", desk.take, fallback, turns=desk)
    try:
        connections = Connections(transport.port)
        async with AsyncExitStack() as stack:
            for each in connections.channels:
                await stack.enter_async_context(each)
            yield connections
    finally:
        await transport.stop()


@pytest.mark.parametrize("kind", ["native", "grpcio"])
async def test_who_is_turned_away_hears_when_to_come_back(kind: Kind) -> None:
    error = Overloaded("too much; try again", 1.25)
    async with listening(kind, Desk(lambda call: call.fail(error))) as infer:
        for _ in range(2):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await infer(b"request")
            assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            details = dict(refused.value.trailing_metadata() or ())["grpc-status-details-bin"]
            status = Status.FromString(bytes(details))
            assert (status.code, status.message) == (8, "too much; try again")
            info = RetryInfo()
            assert status.details[0].Unpack(info)
            assert info.retry_delay.ToMilliseconds() == 1250


@pytest.mark.parametrize("kind", ["native", "grpcio"])
async def test_other_refusals_say_nothing_of_coming_back(kind: Kind) -> None:
    desk = Desk(lambda call: call.fail(InvalidInput("wrong")))
    async with listening(kind, desk) as infer:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await infer(b"request")
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "grpc-status-details-bin" not in dict(refused.value.trailing_metadata() or ())


@pytest.mark.parametrize("kind", ["native", "grpcio"])
async def test_a_callers_deadline_comes_with_the_call(kind: Kind) -> None:
    desk = Desk(lambda call: call.respond(b"answer"))
    async with listening(kind, desk) as infer:
        asked_ns = time.monotonic_ns()
        assert await infer(b"one", timeout=20.0) == b"answer"
        assert await infer(b"two") == b"answer"
        first, second = desk.taken
        assert 0 < first.deadline_ns - asked_ns < 25e9
        assert second.deadline_ns == 0


@pytest.mark.parametrize("kind", ["native", "grpcio"])
async def test_what_comes_while_a_run_takes_place_waits_for_the_next_turn_all_together(
    kind: Kind,
) -> None:
    desk = Desk(lambda call: call.respond(b"answer"))
    desk.is_open = False
    async with listening(kind, desk) as infer:
        asked = [asyncio.ensure_future(infer(b"request")) for _ in range(600)]
        await eventually(lambda: len(desk.taken) == 600)
        desk.is_open = True
        assert await asyncio.gather(*asked) == [b"answer"] * 600
        assert desk.turns == [600]
