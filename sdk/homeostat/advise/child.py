"""A process that makes or measures one form: `python -m homeostat.advise.child FOLDER`.

Told what to do by JSON lines on stdin, answers by JSON lines on the stdout it was started with;
whatever libraries print goes to stderr. It dies with its parent, before anything else when memory
runs out, and at the latest when its time is over.
"""

import contextlib
import ctypes
import json
import logging
import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from homeostat.advise.forms import Form, Level, Variant
from homeostat.advise.making import NotPossible, make
from homeostat.advise.running import Misfit, Running, arguments, load

# Rows of one run when all rows are answered.
_ANSWER_ROWS = 512
# So many rows are asked alone as well, to see whether a row depends on those beside it.
_ALONE_ROWS = 32
# Slices of the rows that a timing goes round, so that no row is hot in the caches.
_MOST_SLICES = 256
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_OFTEN_ENOUGH = 3


def variant_of(said: dict[str, Any]) -> Variant:
    """From JSON."""
    return Variant(said["name"], "", Form(said["form"]), Level(said["level"]), int(said["threads"]))


def read_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """Rows as `measuring.write_arrays` wrote them: no pickles."""
    found: dict[str, NDArray[Any]] = {}
    for name, file in json.loads((folder / "names.json").read_text()).items():
        path = folder / file
        if path.suffix == ".npy":
            found[name] = np.load(path, allow_pickle=False)
            continue
        said = json.loads(path.read_text())
        texts = np.empty(len(said["texts"]), dtype=object)
        texts[:] = said["texts"]
        found[name] = texts.reshape(said["shape"])
    return found


class _Measured:
    """One form, loaded, with the rows to run it on."""

    def __init__(self, said: dict[str, Any], folder: Path) -> None:
        variant = variant_of(said)
        # What the library itself takes is no matter of the form.
        import_module("tl2cgen" if variant.form is Form.COMPILED else "onnxruntime")
        before = _resident_bytes()
        began = time.perf_counter()
        self._running: Running = load(variant, Path(said["path"]), said["score_output"])
        self.load_seconds = time.perf_counter() - began
        self._rows = read_arrays(folder / "judged")
        self._count = len(next(iter(self._rows.values())))
        self._slices: dict[int, list[dict[str, NDArray[Any]]]] = {}
        self._run_some()
        self.memory_bytes = max(0, _resident_bytes() - before)

    def _run_some(self) -> None:
        for rows in (1, 64):
            self._running.run(self._slice(0, rows))

    def _slice(self, start: int, rows: int) -> dict[str, NDArray[Any]]:
        """Goes round where the rows end."""
        at = np.arange(start, start + rows) % self._count
        return {name: np.ascontiguousarray(values[at]) for name, values in self._rows.items()}

    def answer(self, target: Path) -> dict[str, Any]:
        """Writes the scores of all rows; how far a row alone differs from itself among others."""
        parts = [
            np.asarray(self._running.run(self._slice(at, min(_ANSWER_ROWS, self._count - at))))
            for at in range(0, self._count, _ANSWER_ROWS)
        ]
        scores = np.concatenate([each.reshape(len(each), -1) for each in parts])
        np.save(target, scores, allow_pickle=False)
        alone = [
            np.asarray(self._running.run(self._slice(at, 1))).reshape(1, -1)
            for at in range(min(_ALONE_ROWS, self._count))
        ]
        together = scores[: len(alone)]
        with np.errstate(invalid="ignore"):
            apart = np.abs(np.concatenate(alone) - together)
        return {"alone_difference": float(np.nan_to_num(apart, nan=0.0, posinf=0.0).max())}

    def timed(self, rows: int, seconds: float) -> dict[str, Any]:
        """Wall and CPU seconds of as many runs of ``rows`` rows as fit into the time, at least
        three."""
        slices = self._slices_of(rows)
        runs = 0
        cpu, began = time.process_time(), time.perf_counter()
        deadline = began + seconds
        while runs < _OFTEN_ENOUGH or time.perf_counter() < deadline:
            self._running.run(slices[runs % len(slices)])
            runs += 1
        wall = time.perf_counter() - began
        return {"runs": runs, "seconds": wall, "cpu_seconds": time.process_time() - cpu}

    def _slices_of(self, rows: int) -> list[dict[str, NDArray[Any]]]:
        if rows not in self._slices:
            count = max(1, min(_MOST_SLICES, self._count // rows))
            made = [self._slice(number * rows, rows) for number in range(count)]
            self._slices[rows] = made
            self._running.run(made[0])
        return self._slices[rows]


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _serve(folder: Path, answers: TextIO) -> None:
    measured: _Measured | None = None
    for line in sys.stdin:
        said = json.loads(line)
        try:
            match said["do"]:
                case "make":
                    told = _make(said, folder)
                case "load":
                    measured = _Measured(said, folder)
                    told = {
                        "memory_bytes": measured.memory_bytes,
                        "load_seconds": measured.load_seconds,
                    }
                case "answer" if measured:
                    told = measured.answer(Path(said["target"]))
                case "time" if measured:
                    told = measured.timed(said["rows"], said["seconds"])
                case _:
                    raise ValueError("nothing is loaded")
        except (NotPossible, Misfit) as refused:
            told = {"refused": str(refused)}
        except Exception as error:
            told = {"refused": f"{type(error).__name__}: {_first_line(error)}"}
        answers.write(json.dumps(told) + "\n")
        answers.flush()


def _make(said: dict[str, Any], folder: Path) -> dict[str, Any]:
    original = folder / "original.onnx"
    target = Path(said["path"])
    form = Form(said["form"])
    make(form, original.read_bytes(), read_arrays(folder / "calibration"), target)
    if form is Form.COMPILED:
        return {"bytes": sum(each.stat().st_size for each in target.iterdir())}
    if arguments(target) != arguments(original):
        raise Misfit("its inputs or outputs are not those of the original")
    return {"bytes": target.stat().st_size}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "without a word"


def _bound(cpu_seconds: int) -> None:
    """Dies with its parent and first of all; no core files, no endless runs."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415 - not on Windows

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))


def main() -> None:
    """Serves until stdin ends."""
    _bound(int(sys.argv[2]))
    # Converters warn of what concerns their authors only.
    logging.getLogger().setLevel(logging.ERROR)
    # The pipe is for answers alone: compilers and converters print where they like.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _serve(Path(sys.argv[1]), answers)


if __name__ == "__main__":
    main()
