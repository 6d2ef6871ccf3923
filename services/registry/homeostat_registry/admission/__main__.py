"""The judge's process: waits with everything imported, and forks a jailed child for each file."""

import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

import numpy.random  # noqa: F401 - a child can open no files, so nothing may be imported late
import onnx.inliner  # noqa: F401

from homeostat_registry.admission import jail, rules, trial
from homeostat_registry.admission.refusal import Refused

# A judge that nobody needs gives its memory back; the next file starts a new one.
_IDLE_SECONDS = 300.0
_MAX_VERDICT_BYTES = 60_000
_DESCRIPTORS = 3


def main() -> None:
    """Serves the socket at standard input until it closes or nothing came for five minutes."""
    door = socket.socket(fileno=0)
    door.send(b"+")
    while True:
        ready, _, _ = select.select([door], [], [], _IDLE_SECONDS)
        if not ready:
            return
        message, descriptors, _, _ = socket.recv_fds(door, 16, _DESCRIPTORS)
        if not message:
            return
        if len(descriptors) != _DESCRIPTORS:
            raise SystemExit("a request brings three descriptors: model, order, verdict")
        answer = _judge_in_child(door, *descriptors)
        door.send(json.dumps(answer).encode())


def _judge_in_child(door: socket.socket, model: int, order: int, verdict: int) -> dict[str, Any]:
    with os.fdopen(order, "rb") as file:
        asked = json.load(file)
    began = time.monotonic()
    judge = os.getpid()
    child = os.fork()
    if child == 0:
        _child(judge, door, model, verdict, asked)
    os.close(model)
    os.close(verdict)
    in_time = _wait(child, asked["wall_seconds"])
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, status, used = os.wait4(child, 0)
    return {
        "in_time": in_time,
        "exit_code": os.waitstatus_to_exitcode(status),
        "wall_seconds": round(time.monotonic() - began, 4),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 4),
    }


def _wait(child: int, seconds: float) -> bool:
    watched = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([watched], [], [], seconds)
    finally:
        os.close(watched)
    return bool(ready)


def _child(
    judge: int, door: socket.socket, model: int, verdict: int, asked: dict[str, Any]
) -> None:
    """Never returns."""
    code = 1
    try:
        door.close()
        jail.die_with_parent(judge)
        answer = json.dumps(_verdict(judge, model, asked)).encode()
        if len(answer) > _MAX_VERDICT_BYTES:
            answer = json.dumps({"refused": "The verdict is too long; shorten the names."}).encode()
        os.write(verdict, answer)
        code = 0
    except BaseException as error:
        sys.stderr.write(f"judge: {error!r}\n")
    finally:
        os._exit(code)


def _verdict(judge: int, model: int, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"found": _judge(judge, model, asked)}
    except Refused as refusal:
        return {"refused": str(refusal)}
    except MemoryError:
        megabytes = asked["memory_bytes"] // 2**20
        return {
            "refused": f"The model needs more than {megabytes} MiB; make it smaller, or raise "
            "HOMEOSTAT_REGISTRY_ADMISSION_MEMORY_BYTES."
        }


def _judge(judge: int, model: int, asked: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    walls = {"no_network": jail.leave_network()}
    import onnxruntime  # noqa: PLC0415 - starts a thread, so only after the fork

    with os.fdopen(model, "rb") as file:
        content = file.read()
    jail.limit(jail.Limits(asked["memory_bytes"], asked["cpu_seconds"]))
    walls["no_privileges"] = jail.drop_privileges()
    jail.die_with_parent(judge)
    walls["filtered_calls"] = jail.close_doors()
    graph = rules.read(content)
    measured = trial.try_out(content, asked["signature"])
    return {
        "ir_version": graph.ir_version,
        "opsets": {each.domain or "ai.onnx": each.version for each in graph.opset_import},
        "producer": f"{graph.producer_name[:100]} {graph.producer_version[:100]}".strip(),
        "operators": sorted({node.op_type for node in graph.graph.node}),
        "onnxruntime": onnxruntime.__version__,
        "jail": walls,
        **measured,
        "judged_in_seconds": round(time.perf_counter() - began, 4),
    }


if __name__ == "__main__":
    main()
