"""Starts servers, waits for them with a deadline, tells of their memory, and ends them whole."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from benchmarks.serving.install import FOLDER

START_SECONDS = 60.0
_STOP_SECONDS = 5.0
_METHOD = "/inference.GRPCInferenceService/ModelInfer"


class NotStarted(RuntimeError):
    """A server did not come up; the message ends with its log."""


@dataclass(slots=True)
class Running:
    """A process and all that it started."""

    name: str
    port: int
    process: "subprocess.Popen[bytes]"
    log: Path

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]

    def family(self) -> list[psutil.Process]:
        """The process and its descendants."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.process.pid)
            return [top, *top.children(recursive=True)]
        return []

    def cpu_seconds(self) -> float:
        """Used by all of them so far; what ended is counted with its parent."""
        spent = 0.0
        for each in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                spent += times.user + times.system
        return spent

    def stop(self) -> None:
        """SIGTERM, and SIGKILL to whoever stays."""
        self._end(signal.SIGTERM, self.family())

    def kill(self) -> None:
        """SIGKILL to all of them: where nobody waits for what it would still write."""
        family = self.family()
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.suspend()  # nobody starts anybody anew
        self._end(signal.SIGKILL, family)

    def _end(self, number: int, family: list[psutil.Process]) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_STOP_SECONDS)
        for each in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                if each.is_running():
                    each.kill()
        self.process.wait(5)


def start(
    name: str, command: Sequence[str], *, port: int, log: Path, environment: Mapping[str, str]
) -> Running:
    """Starts it; ``environment`` is added to ours."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
        )
    return Running(name, port, process, log)


def wait_until_answering(
    running: Running, requests: Sequence[bytes], *, seconds: float = START_SECONDS
) -> None:
    """Until it has answered each of the requests; NotStarted, and ended, if it does not."""
    deadline = time.monotonic() + seconds
    for request in requests:
        while not _is_answered(running.port, request):
            has_ended = running.process.poll() is not None
            if has_ended or time.monotonic() > deadline:
                running.stop()
                shutil.copy(running.log, FOLDER / f"failed-{running.name}.log")
                why = "ended" if has_ended else f"did not answer within {seconds:.0f} s"
                raise NotStarted(f"{running.name} {why}:\n{running.tail()}")
            time.sleep(0.05)


def _is_answered(port: int, request: bytes) -> bool:
    # A channel per try: no back-off of gRPC's between them.
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            _infer(channel)(request, timeout=2)
        except grpc.RpcError:
            return False
    return True


def ask(port: int, request: bytes) -> Callable[[], bytes]:
    """One request again and again over one connection."""
    call = _infer(grpc.insecure_channel(f"127.0.0.1:{port}"))
    return lambda: bytes(call(request, timeout=5))


def _infer(channel: grpc.Channel) -> Callable[..., bytes]:
    call: Callable[..., bytes] = channel.unary_unary(_METHOD)
    return call
