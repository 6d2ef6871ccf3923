"""Requests per second that inference answers: single rows and 64 rows, on both transports.

Starts an embedded broker and the real service with a small model, and loads it with h2load (Debian
package nghttp2-client) where that is installed, otherwise with processes of grpcio clients, which
take more of the machine than the server does. Prints one JSON object.
"""

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.inference import MODEL, a_registry, an_inference, columns
from tests.support.ports import free_port

from homeostat.client import Client, infer_request
from homeostat_local.broker import start_broker

PATH = "/inference.GRPCInferenceService/ModelInfer"
_CONNECTIONS = 16
_STREAMS = 4
_KINDS = ("red", "blue", "grün", "")


def a_body(rows: int) -> bytes:
    """One framed request of so many rows that differ."""
    amounts = [(index * 7 % 101) / 25 - 2 for index in range(rows)]
    request = infer_request(
        MODEL,
        columns(amounts, [_KINDS[index % 4] for index in range(rows)]),
        client_ids=[f"row-{index}" for index in range(rows)],
    )
    message: bytes = request.SerializeToString()
    return b"\x00" + len(message).to_bytes(4, "big") + message


def h2load(address: str, body: Path, seconds: float) -> dict[str, float]:
    """Requests per second and latencies in milliseconds."""
    command = [
        "h2load", "-t1", f"-c{_CONNECTIONS}", f"-m{_STREAMS}", f"-D{round(seconds)}",
        "--warm-up-time=1", "-d", str(body),
        "-H", "content-type: application/grpc", "-H", "te: trailers",
        f"http://{address}{PATH}",
    ]  # fmt: skip
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", output)
    times = re.search(r"time for request:\s+(\S+)\s+(\S+)\s+(\S+)", output)
    failed = re.search(r"(\d+) failed, (\d+) errored", output)
    assert rate and times and failed and failed.groups() == ("0", "0"), output
    return {
        "requests_per_second": float(rate[1]),
        "mean_milliseconds": _milliseconds(times[3]),
        "max_milliseconds": _milliseconds(times[2]),
    }


def _milliseconds(text: str) -> float:
    match = re.fullmatch(r"([\d.]+)(us|ms|s)", text)
    assert match
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]


def python_clients(address: str, body: Path, seconds: float) -> dict[str, float]:
    """The same from two processes of grpcio clients."""
    command = [sys.executable, __file__, "--client", address, str(body), str(seconds)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["."])}
    clients = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    answers = [json.loads(each.communicate()[0]) for each in clients]
    return {
        "requests_per_second": sum(each["count"] for each in answers) / seconds,
        "mean_milliseconds": sum(each["mean"] for each in answers) / len(answers),
        "max_milliseconds": max(each["max"] for each in answers),
    }


async def _client(address: str, body: bytes, seconds: float) -> dict[str, float]:
    import grpc  # noqa: PLC0415

    times: list[float] = []
    end = time.perf_counter() + seconds

    async def ask() -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            call = channel.unary_unary(PATH)
            while (begun := time.perf_counter()) < end:
                await call(body)
                times.append(time.perf_counter() - begun)

    await asyncio.gather(*(ask() for _ in range(_CONNECTIONS)))
    return {
        "count": len(times),
        "mean": 1000 * sum(times) / len(times),
        "max": 1000 * max(times),
    }


async def measured(transport: str, rows: int, seconds: float, durability: str) -> dict[str, Any]:
    """One server, loaded once; its answers are checked before."""
    folder = Path(tempfile.mkdtemp(prefix="homeostat-bench-"))
    (folder / "broker").mkdir()
    broker = start_broker(folder / "broker")
    body = folder / "body"
    body.write_bytes(a_body(rows))
    try:
        async with (
            a_registry() as registry,
            an_inference(
                port=free_port(),
                broker=broker.address,
                registry=registry.address,
                folder=folder / "inference",
                transport=transport,
                durability=durability,
            ) as running,
        ):
            async with Client(running.address) as client:
                answer = await client.infer(infer_request(MODEL, columns([0.5], ["red"])))
                assert answer.outputs["probabilities"].shape == (1, 2)
            load = h2load if shutil.which("h2load") else python_clients
            found = await asyncio.to_thread(load, running.address, body, seconds)
            assert running.process.poll() is None, running.log()
    finally:
        broker.process.kill()
        broker.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "transport": transport,
        "durability": durability,
        "rows_per_request": rows,
        **{name: round(value, 2) for name, value in found.items()},
        "rows_per_second": round(found["requests_per_second"] * rows),
    }


async def main(seconds: float, rounds: int) -> dict[str, Any]:
    """Every case so many times, interleaved; the median by requests per second."""
    cases = [
        (transport, rows, durability)
        for transport in ("native", "grpcio")
        for rows, durability in ((1, "durable"), (64, "durable"), (1, "fast"))
    ]
    found: dict[tuple[str, int, str], list[dict[str, Any]]] = {each: [] for each in cases}
    for _ in range(rounds):
        for transport, rows, durability in cases:
            result = await measured(transport, rows, seconds, durability)
            found[transport, rows, durability].append(result)
            print(json.dumps(result), file=sys.stderr)
    return {
        "load": "h2load" if shutil.which("h2load") else "grpcio clients",
        "connections": _CONNECTIONS,
        "cores": os.cpu_count(),
        "results": [
            sorted(each, key=lambda one: float(one["requests_per_second"]))[len(each) // 2]
            for each in found.values()
        ],
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--client"]:
        content = Path(sys.argv[3]).read_bytes()[5:]
        print(json.dumps(asyncio.run(_client(sys.argv[2], content, float(sys.argv[4])))))
    else:
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("--seconds", type=float, default=5.0)
        parser.add_argument("--rounds", type=int, default=1)
        parser.add_argument("--json", type=Path)
        given = parser.parse_args()
        figures = json.dumps(asyncio.run(main(given.seconds, given.rounds)), indent=2)
        if given.json:
            given.json.write_text(figures + "\n")
        print(figures)
