"""The worker's process: reads jobs from its standard input, answers on its standard output.

    python -m homeostat_retrainer.workshop.process MEMORY_BYTES CPU_SECONDS NICENESS

Each job's CPU seconds are limited anew. Leaves when its input ends.
"""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np

from homeostat.registry.v1.registry_pb2 import Signature
from homeostat_kit import memory
from homeostat_retrainer.recipes import load
from homeostat_retrainer.recipes.parity import require_parity, run_model
from homeostat_retrainer.workshop import frames

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux

Answer = tuple[dict[str, Any], Sequence[bytes]]


def main() -> None:
    """The process."""
    memory_bytes, cpu_seconds, niceness = (int(each) for each in sys.argv[1:4])
    answers = _private_output()
    _live_and_die_with_parent(niceness)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory.be_frugal(arrow_threads=1)
    _preload()
    memory.give_back()
    _write(answers, {"is_ready": True})
    while (body := _read(sys.stdin.buffer)) is not None:
        _limit_cpu(cpu_seconds)
        header, blobs = _done(*frames.decode(body))
        del body
        _write(answers, header, blobs)
        del blobs
        memory.give_back()


def _private_output() -> BinaryIO:
    """Whatever a library prints goes to standard error, not between the frames."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _live_and_die_with_parent(niceness: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.nice(niceness)
    # Ctrl-C at a terminal reaches the whole group; the service decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _limit_cpu(seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard)
    )


def _preload() -> None:
    """Seconds of imports that no job should wait for."""
    import lightgbm  # noqa: F401, PLC0415
    import onnxmltools.convert  # noqa: F401, PLC0415
    import onnxruntime  # noqa: F401, PLC0415
    import sklearn.linear_model  # noqa: F401, PLC0415


def _read(source: BinaryIO) -> bytes | None:
    prefix = source.read(frames.LENGTH_BYTES)
    if len(prefix) < frames.LENGTH_BYTES:
        return None
    body = source.read(frames.body_bytes(prefix))
    return body if len(body) == frames.body_bytes(prefix) else None


def _write(answers: BinaryIO, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    for part in frames.encode(header, blobs):
        answers.write(part)
    answers.flush()


def _done(header: dict[str, Any], blobs: Sequence[memoryview]) -> Answer:
    try:
        return _train(header, blobs) if header["do"] == "train" else _evaluate(blobs)
    except Exception as error:
        # Not only CannotTrain: whatever a library raises is this candidate's error, not ours.
        return {"error": f"{type(error).__name__}: {error}"[:500]}, ()


def _train(header: dict[str, Any], blobs: Sequence[memoryview]) -> Answer:
    signature = Signature.FromString(bytes(blobs[0]))
    frame, holdout = frames.unpack_table(blobs[1]), frames.unpack_table(blobs[3])
    truth = np.frombuffer(blobs[2], dtype="<f8")
    started = time.perf_counter()
    recipe = load(header["recipe"])
    model = recipe.train(frame, truth, signature, header["parameters"], header["seed"])
    seconds = time.perf_counter() - started
    difference = require_parity(model, holdout, signature)
    return {"fit_seconds": seconds, "difference": difference}, [model.onnx]


def _evaluate(blobs: Sequence[memoryview]) -> Answer:
    signature = Signature.FromString(bytes(blobs[1]))
    said = run_model(bytes(blobs[0]), frames.unpack_table(blobs[2]), signature)
    return {"outputs": said.shape[1]}, [said.astype("<f8").tobytes()]


if __name__ == "__main__":
    main()
