"""The protocol over HTTP: as NVIDIA's client speaks it, as people write it, as nobody should."""

import asyncio
import contextlib
import gzip
import json
import os
import signal
import sys
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import psutil
import pytest
import pytest_asyncio
from tests.support.inference import (
    MODEL,
    RunningInference,
    StandInRegistry,
    a_registry,
    an_inference,
    expected_probability,
    read_topic,
)
from tests.support.ports import free_port
from tests.support.waiting import eventually

from homeostat.ids import parse_prediction_id
from homeostat.topics import OUTCOMES, PREDICTIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")
SCRIPT = Path(__file__).with_name("clients") / "triton_http.py"
MAX_BYTES = 1_000_000
JSON_BYTES = 200_000


@dataclass(frozen=True, slots=True)
class Served:
    inference: RunningInference
    registry: StandInRegistry
    broker: str
    address: str
    session: aiohttp.ClientSession

    def url(self, path: str) -> str:
        return f"http://{self.address}{path}"

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url(path)) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url(path), data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def infer(self, body: Any, **headers: str) -> tuple[int, Any]:
        return await self.post(f"/v2/models/{MODEL}/infer", body, **headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    shared_broker: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    address = f"127.0.0.1:{free_port()}"
    async with (
        a_registry() as registry,
        an_inference(
            port=free_port(),
            broker=shared_broker,
            registry=registry.address,
            folder=tmp_path_factory.mktemp("inference"),
            http_address=address,
            max_message_bytes=MAX_BYTES,
            http_json_bytes=JSON_BYTES,
        ) as running,
        aiohttp.ClientSession() as session,
    ):
        yield Served(running, registry, shared_broker, address, session)


ROW: list[dict[str, Any]] = [
    {"name": "amount", "datatype": "FP32", "shape": [1, 1], "data": [0.5]},
    {"name": "kind", "datatype": "BYTES", "shape": [1, 1], "data": ["red"]},
    {"name": "count", "datatype": "INT64", "shape": [1, 1], "data": [1]},
]


async def test_nvidias_client_is_answered(served: Served) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), served.address, MODEL, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    found = json.loads(output)
    assert found["live"] and found["ready"] and found["model_ready"] and found["version_ready"]
    assert not found["unknown_ready"]
    assert found["server"]["name"] == "homeostat"
    assert {"binary_tensor_data", "homeostat.outcomes"} <= set(found["server"]["extensions"])
    assert [each["name"] for each in found["model"]["inputs"]] == ["amount", "kind", "count"]
    assert found["model"]["inputs"][0]["shape"] == [-1, 1]
    assert "homeostat.id" in found["model"]["parameters"]
    assert found["config"]["input"][1]["data_type"] == "TYPE_STRING"
    assert found["index"] == [{"name": MODEL, "version": "1", "state": "READY", "reason": ""}]
    expected = [
        expected_probability(*row) for row in ((0.5, "red"), (float("nan"), ""), (2.0, "grün"))
    ]
    for name in ("binary", "json", "no_outputs_named", "gzip", "deflate", "pinned"):
        answer = found[name]
        assert answer["id"] == "mine", name
        assert np.allclose(np.array(answer["probabilities"])[:, 1], expected), name
        assert answer["label"] == [1, 0, 1], name
        arm = "pinned" if name == "pinned" else "champion"
        assert answer["parameters"]["homeostat_arm"] == arm
        assert answer["parameters"]["homeostat_row_count"] == 3
        parse_prediction_id(answer["parameters"]["prediction_id"])
    assert [each["name"] for each in found["one_output"]["outputs"]] == ["label"]
    assert found["async_ids"] == [str(number) for number in range(20)]
    (statistics,) = found["statistics"]["model_stats"]
    assert statistics["inference_count"] >= 3 * 27
    assert statistics["inference_stats"]["success"]["count"] >= 27
    assert found["unknown"][0] == "404" and "nobody" in found["unknown"][1]
    assert found["load"][0] == "501" and "homeostat promote" in found["load"][1]
    assert found["timed"][0] == "504"


async def test_what_was_answered_over_http_is_on_the_topic(served: Served) -> None:
    inputs = [
        *ROW,
        {"name": "homeostat.event_time", "datatype": "INT64", "shape": [1], "data": [5_000_000]},
    ]
    status, answer = await served.infer({"id": "x", "inputs": inputs})
    assert status == 200 and answer["id"] == "x"
    probability = answer["outputs"][1]["data"][1]
    assert np.isclose(probability, expected_probability(0.5, "red"))
    block_id, _ = parse_prediction_id(answer["parameters"]["prediction_id"])
    found = await read_topic(
        served.broker,
        PREDICTIONS,
        lambda found: any(each.block_id == block_id for _, each in found),
    )
    block = next(each for _, each in found if each.block_id == block_id)
    assert np.frombuffer(block.event_times_us, "<i8").tolist() == [5_000_000]


async def test_truth_is_taken_over_http(served: Served) -> None:
    body = {
        "model_name": MODEL,
        "source": "by http",
        "outcomes": [
            {"client_id": "order 7", "label": "late", "known_at_us": 5},
            {"client_id": "order 8", "value": 0},
        ],
    }
    status, answer = await served.post("/v2/homeostat/outcomes", body)
    assert (status, answer) == (200, {"recorded_count": 2, "durability": "durable"})
    found = await read_topic(
        served.broker, OUTCOMES, lambda found: any(each.source == "by http" for _, each in found)
    )
    block = next(each for _, each in found if each.source == "by http")
    assert np.frombuffer(block.truths, "<f8").tolist() == [1.0, 0.0]
    for wrong, expected in (
        ({"model_name": "nobody", "outcomes": [{"client_id": "a", "value": 1}]}, 404),
        ({"model_name": MODEL, "outcomes": [{"client_id": "a", "label": "soon"}]}, 400),
        ({"model_name": MODEL, "outcomes": [{"klient_id": "a"}]}, 400),
        ({"model_name": MODEL}, 400),
        ([], 400),
    ):
        status, answer = await served.post("/v2/homeostat/outcomes", wrong)
        assert status == expected, (wrong, answer)
        assert answer["error"]


async def test_states_and_lists_are_told(served: Served) -> None:
    assert await served.get("/v2/health/live") == (200, {"live": True})
    assert await served.get("/v2/health/ready") == (200, {"ready": True})
    assert await served.get("/v2/models") == (200, {"models": [MODEL]})
    assert (await served.get(f"/v2/models/{MODEL}/ready"))[0] == 200
    assert (await served.get(f"/v2/models/{MODEL}/versions/1/ready"))[0] == 200
    assert (await served.get(f"/v2/models/{MODEL}/versions/9/ready"))[0] == 400
    assert (await served.get("/v2/models/nobody/ready"))[0] == 400
    assert (await served.get("/v2/models/nobody"))[0] == 404
    assert (await served.get("/v2/models/nobody/stats"))[0] == 404
    assert (await served.get("/v2/models/stats"))[0] == 200
    assert (await served.get("/v2/nowhere"))[0] == 404
    assert (await served.get("/"))[0] == 404
    status, found = await served.post("/v2/repository/index", {"ready": True})
    assert status == 200 and [each["state"] for each in found] == ["READY"]


async def test_every_bad_request_is_told_why_and_the_next_good_one_is_answered(
    served: Served,
) -> None:
    bad: list[tuple[Any, dict[str, str], int, str]] = [
        (b"", {}, 400, "JSON"),
        (b"{", {}, 400, "JSON"),
        (b"[" * 50_000, {}, 400, "JSON"),
        ({"inputs": ROW[:2]}, {}, 400, "count"),
        ({"inputs": [{**ROW[0], "datatype": "FP64"}, *ROW[1:]]}, {}, 400, "FP32"),
        ({"inputs": [{**ROW[0], "data": [float("inf")]}, *ROW[1:]]}, {}, 400, "inf"),
        ({"inputs": ROW, "outputs": [{"name": "risk"}]}, {}, 400, "risk"),
        ({"inputs": ROW}, {"Inference-Header-Content-Length": "-1"}, 400, "length"),
        ({"inputs": ROW}, {"Inference-Header-Content-Length": "99999"}, 400, "length"),
        ({"inputs": ROW}, {"Content-Encoding": "gzip"}, 400, ""),
        ({"inputs": ROW}, {"X-Request-Timeout": "soon"}, 400, "X-Request-Timeout"),
        ({"inputs": ROW}, {"X-Request-Timeout": "nan"}, 400, "X-Request-Timeout"),
        ({"inputs": ROW}, {"X-Request-Timeout": "0.0000001"}, 504, "no answer"),
        ({"inputs": ROW, "pad": "x" * JSON_BYTES}, {}, 413, "binary"),
        ({"inputs": ROW, "pad": "x" * MAX_BYTES}, {}, 413, "at most"),
        (gzip.compress(b'{"pad": "' + b"x" * 50_000_000), {"Content-Encoding": "gzip"}, 413, ""),
        ({"inputs": ROW}, {"Origin": "https://example.org"}, 403, "origin"),
        ({"inputs": ROW}, {"Host": "evil.example"}, 403, "localhost"),
    ]
    for body, headers, expected, words in bad:
        status, answer = await served.infer(body, **headers)
        assert status == expected, (body[:60] if isinstance(body, bytes) else body, answer)
        assert words in answer["error"], answer
        status, _ = await served.infer({"inputs": ROW})
        assert status == 200
    async with served.session.get(served.url(f"/v2/models/{MODEL}/infer")) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")
    async with served.session.delete(served.url("/v2")) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


async def test_compressed_answers_are_what_plain_ones_are(served: Served) -> None:
    rows = 200
    inputs = [{**each, "shape": [rows, 1], "data": each["data"] * rows} for each in ROW]
    body = json.dumps({"inputs": inputs}).encode()
    url = served.url(f"/v2/models/{MODEL}/infer")
    read = {"gzip": gzip.decompress, "deflate": zlib.decompress, "identity": bytes}
    for encoding, decompress in read.items():
        headers = {"Accept-Encoding": f"br;q=1, {encoding}"}
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.post(url, data=body, headers=headers) as answer,
        ):
            assert answer.headers.get("Content-Encoding", "identity") == encoding
            found = json.loads(decompress(await answer.read()))
            assert len(found["outputs"][0]["data"]) == rows


async def test_a_body_in_chunks_is_read(served: Served) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for each in json.dumps({"inputs": ROW}).encode().split(b" "):
            yield each + b" "

    async with served.session.post(served.url(f"/v2/models/{MODEL}/infer"), data=parts()) as answer:
        assert answer.status == 200


async def raw(address: str, sent: bytes) -> bytes:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), 60)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_what_is_no_http_ends_its_own_connection_alone(served: Served) -> None:
    body = json.dumps({"inputs": ROW}).encode()
    head = f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: localhost\r\n".encode()
    for sent in (
        b"\x00\x01\x02" * 1000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\n" + b"A: x\r\n" * 1000 + b"\r\n",
        head + b"Content-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 999999\r\n\r\n" + body,
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ):
        answer = await raw(served.address, sent)
        assert b" 200 " not in answer.split(b"\r\n", 1)[0], sent[:40]
    status, _ = await served.infer({"inputs": ROW})
    assert status == 200


async def test_a_client_that_waits_to_be_asked_is_asked(served: Served) -> None:
    body = json.dumps({"inputs": ROW}).encode()
    host, port = served.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
    )
    assert b" 100 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    writer.write(body)
    assert b" 200 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
    writer.close()


async def test_an_answer_names_no_library(served: Served) -> None:
    async with served.session.get(served.url("/v2")) as answer:
        assert answer.headers["Server"] == "homeostat"


def listening_on(parent: int, port: int) -> set[int]:
    """Which of a process's descendants listen on a port."""
    found = set()
    for each in psutil.Process(parent).children(recursive=True):
        # One may end while it is looked at.
        with contextlib.suppress(psutil.Error):
            sockets = each.net_connections("tcp")
            if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets):
                found.add(each.pid)
    return found


async def test_workers_share_the_port_and_may_die(
    shared_broker: str, tmp_path: Path, served: Served
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v2/models/{MODEL}/infer"

    async def is_answered() -> bool:
        # A connection of its own: the kernel picks a worker for each.
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.post(url, json={"inputs": ROW}) as answer,
            ):
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async with an_inference(
        port=free_port(),
        broker=shared_broker,
        registry=served.registry.address,
        folder=tmp_path,
        http_address=f"127.0.0.1:{port}",
        workers=2,
    ) as running:

        async def both_listen() -> bool:
            return len(listening_on(running.process.pid, port)) == 2

        await eventually(both_listen, what="two workers listen")
        assert all([await is_answered() for _ in range(20)])
        before = listening_on(running.process.pid, port)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)

        async def is_replaced() -> bool:
            now = listening_on(running.process.pid, port)
            return len(now) == 2 and victim not in now

        await eventually(is_replaced, what="a fresh worker")
        assert all([await is_answered() for _ in range(20)])
