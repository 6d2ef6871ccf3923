"""The Open Inference Protocol as other people's clients speak it, on both transports."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from tests.integration.inference.clients.every_datatype import VALUES
from tests.integration.inference.conftest import TRANSPORTS, Shared
from tests.support.broker import TestBroker
from tests.support.inference import (
    MODEL,
    RunningInference,
    a_model,
    a_registry,
    a_signature,
    an_inference,
    columns,
    tell,
)
from tests.support.ports import free_port
from tests.support.serving_models import DATATYPES, KINDS, TYPED_KINDS, add_them_all
from tests.support.waiting import eventually

from homeostat import __version__
from homeostat.client import infer_request
from homeostat.inference.v2.open_inference_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelMetadataRequest,
    ModelReadyRequest,
    ServerLiveRequest,
    ServerReadyRequest,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
CLIENTS = Path(__file__).with_name("clients")
ALL = list(VALUES)
MADE_FOR_JSON = [name for name in ALL if name != "fp16"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=TRANSPORTS)
async def serving(
    request: pytest.FixtureRequest, shared_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shared]:
    """A server with a model of every datatype."""
    async with a_registry() as registry:
        add_them_all(registry)
        async with an_inference(
            port=free_port(),
            broker=shared_broker,
            registry=registry.address,
            folder=tmp_path_factory.mktemp("conforming"),
            transport=request.param,
            http_address=f"127.0.0.1:{free_port()}",
        ) as running:
            yield Shared(running, registry, shared_broker)


async def _found_by(python: Path | str, script: str, *arguments: str) -> Any:
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(CLIENTS / script),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(output)


def _assert_metadata(model: Any) -> None:
    assert model["name"] == KINDS
    assert model["versions"] == ["1"]
    assert model["platform"] == "onnxruntime_onnx"
    for kind in ("inputs", "outputs"):
        found = {each["name"]: each for each in model[kind]}
        assert list(found) == [f"{kind[:-1].replace('put', '')}_{name}" for name in ALL]
        assert [each["datatype"] for each in found.values()] == list(DATATYPES)
        assert {tuple(map(int, each["shape"])) for each in found.values()} == {(-1, 1)}


async def test_nvidias_grpc_client_finds_everything_as_the_protocol_says(serving: Shared) -> None:
    found = await _found_by(sys.executable, "triton_grpc.py", serving.inference.address, KINDS)
    assert found["live"] and found["ready"]
    ready = {name for name, is_ready in found["models_ready"].items() if is_ready}
    assert ready == {f"{KINDS}/", f"{KINDS}/1"}
    assert (found["server"]["name"], found["server"]["version"]) == ("homeostat", __version__)
    _assert_metadata(found["model"])
    _assert_metadata(found["version"])
    for way in ("same", "gzip", "asynchronous", "decorated"):
        assert found[way] == ALL, way
    # Of the ways of compression that gRPC knows, the native transport reads gzip alone.
    is_native = "native" in serving.inference.environment["HOMEOSTAT_INFERENCE_TRANSPORT"]
    assert found["deflate"] == (["StatusCode.UNIMPLEMENTED"] if is_native else ALL)
    assert found["ids"] == ["", "mine", "grün\n"]
    assert found["selected"] == [
        ["out_fp32"],
        ["out_uint8", "out_bool"],
        ["out_bytes", "out_int64"],
    ]
    assert [status for status, _ in found["refused"]] == ["StatusCode.NOT_FOUND"] * 2


async def test_kserves_client_is_answered(serving: Shared, kserve_python: Path) -> None:
    inference = serving.inference
    found = await _found_by(
        kserve_python, "kserve_client.py", inference.address, KINDS, _http_address(inference)
    )
    for ways in (found, found["http"]):
        assert ways["live"] and ways["ready"]
        assert ways["models_ready"] == [True, False]
        assert ways["raw"] == ALL
        assert ways["id"] == "mine"
    assert found["typed"] == MADE_FOR_JSON
    assert found["refused"] == "StatusCode.NOT_FOUND"


def _http_address(inference: RunningInference) -> str:
    return inference.environment["HOMEOSTAT_INFERENCE_HTTP_ADDRESS"]


async def test_nvidias_http_client_gets_every_datatype_back_as_bytes_and_as_json(
    serving: Shared,
) -> None:
    found = await _found_by(
        sys.executable, "triton_http_kinds.py", _http_address(serving.inference), KINDS
    )
    assert found == {"binary": ALL, "json": ALL, "mixed": ALL}


def _typed_request() -> ModelInferRequest:
    request = ModelInferRequest(model_name=TYPED_KINDS, id="typed")
    fields = {"bool": "bool", "fp32": "fp32", "fp64": "fp64", "bytes": "bytes"}
    fields |= {"int64": "int64", "uint64": "uint64"}
    for name in MADE_FOR_JSON:
        values = VALUES[name]
        tensor = request.inputs.add(name=f"in_{name}", datatype=name.upper(), shape=values.shape)
        field = fields.get(name, "uint" if name.startswith("u") else "int")
        getattr(tensor.contents, f"{field}_contents").extend(values.reshape(-1).tolist())
    return request


async def test_typed_contents_of_every_datatype_come_back_typed(serving: Shared) -> None:
    request = _typed_request()
    answer = await serving.inference.inference.ModelInfer(request, timeout=10)
    assert answer.id == "typed"
    assert not answer.raw_output_contents
    for sent, got in zip(request.inputs, answer.outputs, strict=True):
        assert got.name == sent.name.replace("in_", "out_")
        assert (got.datatype, list(got.shape)) == (sent.datatype, list(sent.shape))
        assert got.contents == sent.contents, got.name


async def test_what_the_protocol_does_not_know_is_read_over(serving: Shared) -> None:
    request = infer_request(MODEL, columns([0.5], ["red"]))
    plain = await serving.inference.inference.ModelInfer(request, timeout=10)
    request.parameters["anything"].string_param = "x"
    request.inputs[0].parameters["binary_data_size"].int64_param = 4
    request.outputs.add(name="probabilities").parameters["classification"].int64_param = 3
    unknown = request.SerializeToString() + b"\xfa\x3e\x03abc"  # a field that does not exist
    call = serving.inference.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    answer = ModelInferResponse.FromString(await call(unknown, timeout=10))
    assert [each.name for each in answer.outputs] == ["probabilities"]
    assert answer.raw_output_contents[0] == plain.raw_output_contents[1]


async def _is_ready(inference: RunningInference, name: str, version: str = "") -> bool:
    request = ModelReadyRequest(name=name, version=version)
    return bool((await inference.inference.ModelReady(request, timeout=30)).ready)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_ready_means_that_it_would_answer_now(
    transport: str, shared_broker: str, tmp_path: Path
) -> None:
    port = free_port()
    async with an_inference(
        port=free_port(),
        broker=shared_broker,
        registry=f"127.0.0.1:{port}",
        folder=tmp_path / "inference",
        transport=transport,
        is_waited_for=False,
    ) as running:

        async def is_live() -> bool:
            try:
                return bool((await running.inference.ServerLive(ServerLiveRequest())).live)
            except grpc.aio.AioRpcError:
                return False

        await eventually(is_live, what="live")
        assert not (await running.inference.ServerReady(ServerReadyRequest())).ready
        assert not await _is_ready(running, MODEL)
        async with a_registry(port) as registry:
            registry.add(2, b"no model", a_signature())
            registry.add(3, a_model(3.0), a_signature())
            await running.until_ready()
            await eventually(lambda: _is_ready(running, MODEL), what="model ready")
            assert await _is_ready(running, MODEL, "1")
            assert not await _is_ready(running, MODEL, "2")
            # Who asks about a version does not load it; who asks it does.
            assert not await _is_ready(running, MODEL, "3")
            with pytest.raises(grpc.aio.AioRpcError, match="loads it") as refused:
                await running.inference.ModelMetadata(ModelMetadataRequest(name=MODEL, version="3"))
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
            assert not await _is_ready(running, MODEL, "3")
            await running.inference.ModelInfer(
                infer_request(MODEL, columns([0.5], ["red"]), version=3), timeout=10
            )
            assert await _is_ready(running, MODEL, "3")
            assert not await _is_ready(running, MODEL, "4")
            for version in ("1", "3"):
                metadata = await running.inference.ModelMetadata(
                    ModelMetadataRequest(name=MODEL, version=version)
                )
                assert metadata.name == MODEL
                assert version in metadata.versions
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await running.inference.ModelMetadata(ModelMetadataRequest(name="nobody"))
            assert refused.value.code() == grpc.StatusCode.NOT_FOUND
        # The registry has gone: what is loaded goes on.
        assert await _is_ready(running, MODEL)
        assert (await running.inference.ServerReady(ServerReadyRequest())).ready


async def test_versions_answer_as_they_were_registered_before_and_after_a_promotion(
    embedded_broker: TestBroker, tmp_path: Path
) -> None:
    async with (
        a_registry() as registry,
        an_inference(
            port=free_port(),
            broker=embedded_broker.address,
            registry=registry.address,
            folder=tmp_path / "inference",
        ) as running,
    ):
        registry.add(2, a_model(-1.0), a_signature())
        request = infer_request(MODEL, columns([1.0], ["red"]))

        async def probability(version: str = "") -> float:
            request.model_version = version
            answer = await running.inference.ModelInfer(request, timeout=30)
            assert version in ("", answer.model_version)
            return float(np.frombuffer(answer.raw_output_contents[1], np.float32)[1])

        first, second = await probability("1"), await probability("2")
        assert first != second
        assert await probability() == first
        await tell(embedded_broker.address, registry.promote(2))

        async def is_promoted() -> bool:
            return await probability() == second

        await eventually(is_promoted, what="promoted")
        assert (await probability("1"), await probability("2")) == (first, second)
