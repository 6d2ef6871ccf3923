"""What the kit's gRPC server and channels promise, over a real connection."""

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from homeostat.progress.v1.progress_pb2 import GetProgressRequest, GetProgressResponse
from homeostat.progress.v1.progress_pb2_grpc import ProgressServiceStub
from homeostat_kit.grpc_client import connect
from homeostat_kit.grpc_server import RunningServer, serve
from homeostat_kit.progress import SERVICE_NAME, ProgressServicer, progress_response


class NotThere(LookupError):
    pass


class NotThereEither(NotThere):
    pass


class Collecting:
    """Answers, raises or hangs, as the test says."""

    def __init__(self) -> None:
        self.raises: Exception | None = None
        self.hangs = False
        self.is_asked = asyncio.Event()

    async def __call__(self) -> GetProgressResponse:
        self.is_asked.set()
        if self.raises is not None:
            raise self.raises
        if self.hangs:
            await asyncio.Event().wait()
        return progress_response(
            "test",
            "epoch-1",
            produced={("t", 1): 5},
            applied={("t", 1): 4},
            unsent_count=3,
            watermark_us=7,
        )


@pytest.fixture
def collecting() -> Collecting:
    return Collecting()


@pytest.fixture
async def server(collecting: Collecting) -> AsyncIterator[RunningServer]:
    running = await serve(
        "127.0.0.1:0",
        ProgressServicer(collecting).add_to,
        errors={NotThere: grpc.StatusCode.NOT_FOUND},
        service_names=[SERVICE_NAME],
    )
    yield running
    await running.stop(0)


@pytest.fixture
async def channel(server: RunningServer) -> AsyncIterator[grpc.aio.Channel]:
    async with connect(server.address) as channel:
        yield channel


async def failure_of(channel: grpc.aio.Channel, **options: float) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ProgressServiceStub(channel).GetProgress(GetProgressRequest(), **options)
    return caught.value


async def test_an_answer_arrives(channel: grpc.aio.Channel) -> None:
    answer = await ProgressServiceStub(channel).GetProgress(GetProgressRequest())
    assert (answer.service, answer.epoch, answer.unsent_count) == ("test", "epoch-1", 3)
    assert (answer.produced[0].next_offset, answer.applied[0].next_offset) == (5, 4)
    assert answer.watermark_us == 7


async def test_an_error_of_the_domain_is_its_status_with_its_text(
    channel: grpc.aio.Channel, collecting: Collecting
) -> None:
    collecting.raises = NotThereEither("model flights has no version 7")
    error = await failure_of(channel)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "model flights has no version 7"


async def test_an_unknown_error_tells_the_client_nothing(
    channel: grpc.aio.Channel, collecting: Collecting
) -> None:
    collecting.raises = RuntimeError("postgresql://user:password@host")
    error = await failure_of(channel)
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")


async def test_health_follows_the_server(server: RunningServer, channel: grpc.aio.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE_NAME):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_names_the_services(channel: grpc.aio.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in stub.ServerReflectionInfo(iter([request])):
        names = {each.name for each in answer.list_services_response.service}
        assert {SERVICE_NAME, "grpc.health.v1.Health"} <= names


async def test_a_call_without_a_deadline_has_one(
    channel: grpc.aio.Channel, collecting: Collecting, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float | None] = []
    collecting.raises = NotThere("x")
    original = collecting.__call__

    async def call(request: object, context: grpc.aio.ServicerContext) -> GetProgressResponse:  # type: ignore[type-arg]
        seen.append(context.time_remaining())
        return await original()

    monkeypatch.setattr(ProgressServicer, "GetProgress", lambda _, *given: call(*given))
    running = await serve(
        "127.0.0.1:0",
        ProgressServicer(collecting).add_to,
        errors={NotThere: grpc.StatusCode.NOT_FOUND},
        service_names=[SERVICE_NAME],
    )
    async with running, connect(running.address) as other:
        await failure_of(other)
        await failure_of(other, timeout=3.0)
    assert seen[0] is not None and 8 < seen[0] < 11
    assert seen[1] is not None and 1 < seen[1] < 4


async def test_leaving_does_not_wait_for_a_call_that_hangs(
    server: RunningServer, channel: grpc.aio.Channel, collecting: Collecting
) -> None:
    collecting.hangs = True
    call = asyncio.ensure_future(failure_of(channel))
    await asyncio.wait_for(collecting.is_asked.wait(), 60)
    began = time.monotonic()
    await server.stop(0.2)
    assert time.monotonic() - began < 2
    assert (await call).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_port_that_is_taken_is_an_error(server: RunningServer) -> None:
    with pytest.raises(OSError, match=server.address):
        await serve(server.address, lambda _: None, errors={}, service_names=[])


async def test_a_message_over_the_default_limit_passes(
    channel: grpc.aio.Channel, collecting: Collecting, server: RunningServer
) -> None:
    collecting.raises = NotThere("x" * 100)
    stub = ProgressServiceStub(channel)
    request = GetProgressRequest()
    request.MergeFromString(b"\x7a" + b"\x80\x80\xc0\x02" + bytes(5 * 1024 * 1024))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetProgress(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
