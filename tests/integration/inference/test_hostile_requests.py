"""A server of each transport gets every hostile request of the corpus, one behind the other."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
import pytest
import pytest_asyncio
from tests.hostile.requests import HOSTILE_REQUESTS, HostileRequest, good
from tests.integration.inference.conftest import TRANSPORTS
from tests.support.inference import RunningInference, a_registry, an_inference
from tests.support.ports import free_port
from tests.support.serving_models import add_them_all

from homeostat.client import read_answer
from homeostat.inference.v2.open_inference_pb2 import ModelInferResponse

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
# A status text travels in a header, for which many clients have room for 8 KiB.
MAX_TEXT_BYTES = 4096
MIB = 1024 * 1024

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(slots=True)
class Attacked:
    """A server, and a channel that sends whatever it is given."""

    server: RunningInference
    transport: str
    channel: grpc.aio.Channel

    async def send(self, hostile: HostileRequest) -> tuple[str, str]:
        """Status and text."""
        call = self.channel.unary_unary(MODEL_INFER)
        compression = grpc.Compression.Gzip if hostile.is_gzipped else None
        try:
            answer = await call(
                hostile.build(),
                timeout=hostile.timeout_seconds,
                metadata=hostile.metadata,
                compression=compression,
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details() or ""
        ModelInferResponse.FromString(answer)
        return "OK", ""

    def processes(self) -> set[int]:
        """Everybody who belongs to the server."""
        main = psutil.Process(self.server.process.pid)
        return {main.pid, *(each.pid for each in main.children(recursive=True))}

    def memory_bytes(self) -> int:
        """What they all hold."""
        return sum(psutil.Process(each).memory_info().rss for each in self.processes())


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def attacked(
    request: pytest.FixtureRequest, shared_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Attacked]:
    """With the settings as they are by default."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    folder: Path = tmp_path_factory.mktemp("attacked")
    async with a_registry() as registry:
        add_them_all(registry)
        async with (
            an_inference(
                port=free_port(),
                broker=shared_broker,
                registry=registry.address,
                folder=folder,
                transport=request.param,
            ) as running,
            grpc.aio.insecure_channel(running.address, options=options) as channel,
        ):
            yield Attacked(running, request.param, channel)


async def test_every_hostile_request_gets_its_documented_answer_and_the_server_stays_up(
    attacked: Attacked,
) -> None:
    assert len(HOSTILE_REQUESTS) >= 60
    answers_all = attacked.server.inference.ModelInfer
    await answers_all(good(), timeout=10)
    before = attacked.processes()
    wrong = []
    for each in HOSTILE_REQUESTS:
        code, text = await attacked.send(each)
        is_said = all(word in text for word in each.says) or code == "OK"
        if code != each.code_on(attacked.transport) or not is_said or len(text) > MAX_TEXT_BYTES:
            wrong.append(f"{each.name}: {code} {text[:300]!r}")
        answer = read_answer(await answers_all(good(), timeout=10))
        assert len(answer.prediction_ids) == 2, each.name
    assert not wrong, "\n".join(wrong)
    assert attacked.processes() == before


async def test_what_is_refused_again_and_again_leaves_no_memory_behind(attacked: Attacked) -> None:
    some = [each for each in HOSTILE_REQUESTS if each.code != "OK" and not each.is_gzipped]
    small = [each for each in some if len(each.build()) < MIB]

    async def send_all(times: int) -> None:
        for each in small:
            for _ in range(times):
                await attacked.send(each)

    await send_all(10)
    before = attacked.memory_bytes()
    await send_all(40)
    assert attacked.memory_bytes() - before < 64 * MIB


async def test_names_are_one_requests_own() -> None:
    assert len({each.name for each in HOSTILE_REQUESTS}) == len(HOSTILE_REQUESTS)
