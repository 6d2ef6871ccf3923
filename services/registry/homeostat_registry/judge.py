"""The port ``Judge``: talks to the judge's own process, starts it and replaces it."""

import asyncio
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from homeostat_kit import logs
from homeostat_registry.domain.errors import BadArtifact, JudgeAway
from homeostat_registry.domain.facts import Signature

_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # Otherwise onnxruntime starts a thread, writes below the home folder, and sends usage events.
    "ORT_DISABLE_TELEMETRY": "1",
}
_START_SECONDS = 30.0
# The judge's process kills a child at the wall clock; this is for the judge itself.
_SLACK_SECONDS = 10.0
_MAX_VERDICT_BYTES = 64 * 1024

_log = logs.get_logger("homeostat_registry.judge")


@dataclasses.dataclass(frozen=True, slots=True)
class JudgeLimits:
    """What one judgement may use."""

    memory_bytes: int
    cpu_seconds: int
    wall_seconds: float


class JailedJudge:
    """Judges one file at a time in a process that is started at the first need and kept."""

    def __init__(self, folder: Path, limits: JudgeLimits) -> None:
        """``folder`` is made, and stays empty: it is where the judge stands."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limits = limits
        # Its one thread alone touches what follows. The shelf's reads have other threads, so they
        # don't wait for trials.
        self._thread = ThreadPoolExecutor(1, "judge")
        self._is_closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._door: socket.socket | None = None
        self._is_greeted = False

    def prepare(self) -> None:
        """Starts the process, if there is none, while the file is still on its way."""
        self._thread.submit(self._ensure_started)

    async def judge(self, path: Path, signature: Signature) -> str:
        """What was found, as JSON; BadArtifact with the cure, or JudgeAway."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._judge, path, signature)

    def close(self) -> None:
        """Ends the process. A judgement under way ends as JudgeAway."""
        self._is_closed = True
        process = self._process
        if process is not None:
            process.kill()
        self._thread.shutdown(cancel_futures=True)
        self._forget()

    def _judge(self, path: Path, signature: Signature) -> str:
        for is_last in (False, True):
            try:
                return self._judge_once(path, signature)
            except OSError as error:
                # It may have left for want of work; a fresh one gets one chance.
                _log.info("judge_restarts", error=repr(error))
                self._forget()
                if is_last or self._is_closed:
                    raise JudgeAway(
                        "the judge of model files can't be reached; try again"
                    ) from error
        raise AssertionError

    def _ensure_started(self) -> socket.socket:
        if self._process is None or self._process.poll() is not None:
            self._start()
        # After the start: whoever closes looks for the process only once it has said so.
        if self._door is None or self._is_closed:
            raise ConnectionResetError("the registry is leaving")
        return self._door

    def _judge_once(self, path: Path, signature: Signature) -> str:
        door = self._ensure_started()
        self._greet(door)
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as verdict_pipe:
            try:
                self._send(door, path, self._order(signature), writing)
            finally:
                os.close(writing)
            ended = self._receive(door)
            verdict = verdict_pipe.read(_MAX_VERDICT_BYTES)
        return self._spoken(ended, verdict)

    def _greet(self, door: socket.socket) -> None:
        """Its imports take a while; they don't count against the file."""
        if not self._is_greeted:
            door.settimeout(_START_SECONDS)
            if not door.recv(16):
                raise ConnectionResetError("the judge left at its start")
            self._is_greeted = True

    def _order(self, signature: Signature) -> bytes:
        said: dict[str, Any] = dataclasses.asdict(signature)
        said["widths"] = sorted(signature.widths())
        limits = dataclasses.asdict(self._limits)
        return json.dumps({"signature": said, **limits}).encode()

    def _send(self, door: socket.socket, path: Path, order: bytes, verdict: int) -> None:
        with path.open("rb") as model, tempfile.TemporaryFile() as told:
            told.write(order)
            told.flush()
            told.seek(0)
            socket.send_fds(door, [b"?"], [model.fileno(), told.fileno(), verdict])

    def _receive(self, door: socket.socket) -> dict[str, Any]:
        door.settimeout(self._limits.wall_seconds + _SLACK_SECONDS)
        answer = door.recv(4096)
        if not answer:
            raise ConnectionResetError("the judge has left")
        ended: dict[str, Any] = json.loads(answer)
        return ended

    def _spoken(self, ended: dict[str, Any], verdict: bytes) -> str:
        if not ended["in_time"] or -ended["exit_code"] in (signal.SIGXCPU, signal.SIGKILL):
            raise BadArtifact(
                f"The model did not finish its trial within {self._limits.wall_seconds:g} s "
                f"({self._limits.cpu_seconds} s of CPU); remove endless loops, or make it smaller."
            )
        if ended["exit_code"] == -signal.SIGFPE:
            raise BadArtifact(
                "The model divides integers so that some inputs kill the process that serves it; "
                "divide floats, or guard the divisor."
            )
        if ended["exit_code"] != 0 or not verdict:
            raise BadArtifact(
                f"The model crashed its trial (exit code {ended['exit_code']}), so it would crash "
                "the server; export it with another version or other operators."
            )
        said: dict[str, Any] = json.loads(verdict)
        if "refused" in said:
            raise BadArtifact(str(said["refused"]))
        found = {**said["found"], "cpu_seconds": ended["cpu_seconds"]}
        return json.dumps(found, sort_keys=True, separators=(",", ":"))

    def _start(self) -> None:
        self._forget()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "homeostat_registry.admission"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                cwd=self._folder,
                start_new_session=True,
            )
        self._door = ours
        self._is_greeted = False

    def _forget(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
