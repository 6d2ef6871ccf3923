"""Starts a worker ahead of need, gives it one job at a time, and replaces it when it dies."""

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from homeostat.registry.v1.registry_pb2 import Signature
from homeostat_kit import logs
from homeostat_retrainer.app.ports import Floats, Job, Trained
from homeostat_retrainer.domain.errors import WorkerDied
from homeostat_retrainer.workshop import frames

_START_SECONDS = 60.0
_LEAVE_SECONDS = 1.0
_STDERR_BYTES = 2000
# No settings of the service, so no secrets; what finding Python's modules needs.
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "VIRTUAL_ENV", "TMPDIR")
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
}

_log = logs.get_logger("homeostat_retrainer.workshop")


class JobFailed(ValueError):
    """The worker could not do the job and says why; it is alive."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one worker; a job that exceeds one ends with its worker."""

    # Of address space: libraries reserve far more than they use.
    memory_bytes: int = 6 * 1024**3
    cpu_seconds: int = 300
    wall_seconds: float = 600.0
    # Serving goes before training.
    niceness: int = 5
    # A worker that nobody needed for so long gives its memory back; the next job waits for another.
    idle_seconds: float = 60.0
    # A worker is replaced after so many jobs, whatever its libraries have kept by then.
    jobs: int = 200


class Supervisor:
    """The workshop of one process. An async context manager; entering waits for nothing."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turn = asyncio.Lock()
        self._worker: asyncio.subprocess.Process | None = None
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        # The last words of the newest worker, for the log.
        self._stderr = _Tail()
        self._used_at, self._jobs = time.monotonic(), 0
        self.deaths = 0

    async def __aenter__(self) -> "Supervisor":
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._starting is not None:
            self._starting.cancel()
            with suppress(asyncio.CancelledError, OSError, WorkerDied):
                await self._starting
        await self._end_worker()

    @property
    def worker_id(self) -> int | None:
        """Process id of the worker, if one is ready."""
        return self._worker.pid if self._worker is not None else None

    async def train(self, job: Job) -> Trained:
        """As the port says; JobFailed (a ValueError) where the rows give no model."""
        header = {"do": "train", "recipe": job.recipe, "parameters": job.parameters}
        blobs: list[frames.Blob] = [
            job.signature.SerializeToString(),
            frames.pack_table(job.frame),
            np.ascontiguousarray(job.truth, dtype="<f8").tobytes(),
            frames.pack_table(job.holdout),
        ]
        answer, (model,) = await self._do({**header, "seed": job.seed}, blobs)
        return Trained(bytes(model), float(answer["fit_seconds"]))

    async def evaluate(self, model: bytes, signature: Signature, table: pa.Table) -> Floats:
        """As the port says; JobFailed (a ValueError) where the model does not run on the rows.

        Tried again once: a worker may be ended for what is not this job's fault.
        """
        names = [spec.name for spec in signature.inputs]
        blobs: list[frames.Blob] = [
            model,
            signature.SerializeToString(),
            frames.pack_table(table.select(names)),
        ]
        header = {"do": "evaluate"}
        try:
            answer, (said,) = await self._do(header, blobs)
        except WorkerDied:
            answer, (said,) = await self._do(header, blobs)
        return np.frombuffer(said, dtype="<f8").reshape(-1, int(answer["outputs"]))

    async def _do(
        self, header: Mapping[str, Any], blobs: Sequence[frames.Blob]
    ) -> tuple[dict[str, Any], list[memoryview]]:
        async with self._turn:
            worker = await self._ready_worker()
            self._jobs += 1
            try:
                async with asyncio.timeout(self._limits.wall_seconds):
                    answer, given = await _exchange(worker, frames.encode(header, blobs))
            except TimeoutError as error:
                raise await self._replace("it took too long") from error
            except (OSError, asyncio.IncompleteReadError) as error:
                raise await self._replace("it was ended") from error
            except asyncio.CancelledError:
                # Its answer would be taken for that of the next job.
                await self._end_worker()
                raise
            finally:
                self._used_at = time.monotonic()
        if "error" in answer:
            raise JobFailed(answer["error"])
        return answer, given

    async def rest(self) -> None:
        """To be called now and then while there is no job."""
        if self._turn.locked():
            return
        starting = self._starting
        if starting is not None and starting.done() and not starting.cancelled():
            # One that was started ahead of need, and not needed yet.
            self._starting = None
            self._worker = starting.result() if starting.exception() is None else self._worker
        if self._worker is None:
            return
        async with self._turn:
            if time.monotonic() - self._used_at > self._limits.idle_seconds:
                await self._end_worker()
            elif self._jobs >= self._limits.jobs:
                await self._end_worker()
                self._start()

    async def _replace(self, why: str) -> WorkerDied:
        self.deaths += 1
        code = await self._end_worker()
        last_words = await self._stderr.text()
        self._start()
        _log.warning("worker_died", why=why, exit_code=code, stderr=last_words)
        return WorkerDied(f"the worker process died ({why}, exit code {code})")

    def _start(self) -> None:
        self._starting = asyncio.create_task(self._spawn(), name="worker-start")

    async def _ready_worker(self) -> asyncio.subprocess.Process:
        if self._worker is None or self._worker.returncode is not None:
            if self._starting is None or self._starting.done():
                self._start()
            starting = _present(self._starting)
            # Shielded: a run that is given up does not stop the next one's worker.
            worker = await asyncio.shield(starting)
            self._worker, self._starting = worker, None
            return worker
        return self._worker

    async def _spawn(self) -> asyncio.subprocess.Process:
        limits = self._limits
        arguments = (limits.memory_bytes, limits.cpu_seconds, limits.niceness)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "homeostat_retrainer.workshop.process",
            *map(str, arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment | _ONE_THREAD,
        )
        self._stderr, self._jobs = _Tail(worker.stderr), 0
        try:
            async with asyncio.timeout(_START_SECONDS):
                await _read(worker)
        except BaseException as error:
            await _end(worker)
            if isinstance(error, (asyncio.IncompleteReadError, TimeoutError)):
                last_words = await self._stderr.text()
                _log.warning("worker_not_started", exit_code=worker.returncode, stderr=last_words)
                raise WorkerDied(
                    f"a worker did not start (exit code {worker.returncode})"
                ) from error
            raise
        _log.info("worker_ready", pid=worker.pid)
        self._used_at = time.monotonic()
        return worker

    async def _end_worker(self) -> int | None:
        worker, self._worker = self._worker, None
        if worker is not None:
            await _end(worker)
        return worker.returncode if worker is not None else None


class _Tail:
    """The end of what a process writes to its standard error; reads on so that it never waits."""

    def __init__(self, source: asyncio.StreamReader | None = None) -> None:
        self._kept = b""
        self._reading = None if source is None else asyncio.create_task(self._read(source))

    async def _read(self, source: asyncio.StreamReader) -> None:
        while more := await source.read(_STDERR_BYTES):
            self._kept = (self._kept + more)[-_STDERR_BYTES:]

    async def text(self) -> str:
        """Of a process that has ended."""
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=_LEAVE_SECONDS)
        return self._kept.decode(errors="replace")


def _present(
    task: "asyncio.Task[asyncio.subprocess.Process] | None",
) -> "asyncio.Task[asyncio.subprocess.Process]":
    if task is None:
        raise WorkerDied("no worker is starting")
    return task


async def _exchange(
    worker: asyncio.subprocess.Process, frame: Sequence[frames.Blob]
) -> tuple[dict[str, Any], list[memoryview]]:
    if worker.stdin is None:
        raise WorkerDied("the worker has no input")
    for part in frame:
        worker.stdin.write(part)
        await worker.stdin.drain()
    return await _read(worker)


async def _read(worker: asyncio.subprocess.Process) -> tuple[dict[str, Any], list[memoryview]]:
    if worker.stdout is None:
        raise WorkerDied("the worker has no output")
    prefix = await worker.stdout.readexactly(frames.LENGTH_BYTES)
    return frames.decode(await worker.stdout.readexactly(frames.body_bytes(prefix)))


async def _end(worker: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        worker.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(_LEAVE_SECONDS):
            await worker.wait()
