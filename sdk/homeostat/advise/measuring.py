"""Makes, compares and times every variant, each in a process of its own, in interleaved rounds."""

import contextlib
import json
import os
import random
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.advise.equivalence import Tolerance, compare, why_not
from homeostat.advise.figures import Outcome, Timing, timing_of
from homeostat.advise.forms import PRESENT, Form, Variant
from homeostat.advise.subject import Arrays, CannotAdvise, Rows, Subject

# How far a row may differ alone and among others: what the registry's judge allows.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-4
_MAKE_SECONDS = 300.0
_ANSWER_SECONDS = 120.0
_SHORTEST_SLICE_SECONDS, _LONGEST_SLICE_SECONDS = 0.005, 0.25
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 15
_LEAVING_SECONDS = 2.0

Say = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure."""

    variants: Sequence[Variant]
    # Rows of one run.
    batches: Sequence[int]
    tolerance: Tolerance = field(default_factory=Tolerance)
    # For the timing; making and comparing come on top.
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What came out, the present first, and what was made."""

    outcomes: Sequence[Outcome]
    rounds: int
    # ONNX files by variant's name.
    files: Mapping[str, bytes]


class _Died(Exception):
    """A child ended or did not answer in time; the message says how."""


class _Refused(Exception):
    """A child says why it does not."""


def measure(subject: Subject, rows: Rows, plan: Plan, say: Say = lambda *_: None) -> Measured:
    """Runs the whole plan; a variant that fails says why in its outcome. CannotAdvise where the
    present form itself does not run. ``say``: what is done now, and the share that is done."""
    _require_libraries()
    with tempfile.TemporaryDirectory(prefix="homeostat-advise-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "original.onnx").write_bytes(subject.content)
        write_arrays(folder / "calibration", rows.calibration)
        write_arrays(folder / "judged", rows.judged)
        bench = _Bench(subject, plan, folder, stack)
        for number, variant in enumerate(plan.variants):
            say(f"making and comparing {variant.name}", 0.3 * number / len(plan.variants))
            bench.prepare(variant)
        bench.require_present()
        rounds = bench.time(say)
        return Measured(bench.outcomes(), rounds, bench.files())


def _require_libraries() -> None:
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise CannotAdvise(
            f"measuring needs {' and '.join(missing)}: pip install 'homeostat[advise]'"
        )


def write_arrays(folder: Path, arrays: Arrays) -> None:
    """One file per input: numbers as .npy, texts as JSON."""
    folder.mkdir(parents=True)
    names: dict[str, str] = {}
    for number, (name, values) in enumerate(arrays.items()):
        is_text = values.dtype == object
        names[name] = file = f"{number}.{'json' if is_text else 'npy'}"
        if is_text:
            texts = [str(each) for each in values.reshape(-1)]
            (folder / file).write_text(json.dumps({"shape": values.shape, "texts": texts}))
        else:
            np.save(folder / file, values, allow_pickle=False)
    (folder / "names.json").write_text(json.dumps(names))


class _Bench:
    """The variants' processes while they are measured."""

    def __init__(self, subject: Subject, plan: Plan, folder: Path, stack: ExitStack) -> None:
        self._subject, self._plan, self._folder, self._stack = subject, plan, folder, stack
        self._found: dict[str, Outcome] = {each.name: Outcome(each) for each in plan.variants}
        self._ready: dict[str, _Child] = {}
        self._paths: dict[str, Path] = {}
        self._original: NDArray[Any] | None = None
        self._times: dict[tuple[str, int], list[dict[str, float]]] = {}

    def prepare(self, variant: Variant) -> None:
        """Makes it, loads it, and compares what it says; a failure stands in the outcome."""
        outcome = self._found[variant.name]
        try:
            path = self._made(variant, outcome)
            child = self._stack.enter_context(_Child(self._folder, self._cpu_seconds(variant)))
            told = child.ask(
                {
                    "do": "load",
                    "name": variant.name,
                    "form": variant.form,
                    "level": variant.level,
                    "threads": variant.threads,
                    "path": str(path),
                    "score_output": self._subject.signature.score_output,
                },
                _ANSWER_SECONDS,
            )
            outcome.memory_bytes = int(told["memory_bytes"])
            outcome.load_seconds = told["load_seconds"]
            self._compare(variant, child, outcome)
        except (_Died, _Refused) as error:
            outcome.failure = str(error)
        if not outcome.failure:
            self._ready[variant.name] = child

    def require_present(self) -> None:
        """CannotAdvise where there is nothing to compare with."""
        failure = self._found[PRESENT.name].failure
        if failure:
            raise CannotAdvise(f"the model itself can't be measured: {failure}")

    def _made(self, variant: Variant, outcome: Outcome) -> Path:
        if variant.form is Form.ORIGINAL:
            outcome.artifact_bytes = len(self._subject.content)
            return self._folder / "original.onnx"
        path = self._folder / f"{variant.form}{'' if variant.form is Form.COMPILED else '.onnx'}"
        with _Child(self._folder, int(_MAKE_SECONDS)) as child:
            told = child.ask({"do": "make", "form": variant.form, "path": str(path)}, _MAKE_SECONDS)
        outcome.artifact_bytes = int(told["bytes"])
        if variant.is_file:
            self._paths[variant.name] = path
        return path

    def _compare(self, variant: Variant, child: "_Child", outcome: Outcome) -> None:
        target = self._folder / f"scores-{variant.name}.npy"
        told = child.ask({"do": "answer", "target": str(target)}, _ANSWER_SECONDS)
        scores = np.load(target, allow_pickle=False)
        if self._original is None:
            if not variant.is_present:
                raise _Refused("the present form did not answer")
            self._original = scores
            return
        signature, tolerance = self._subject.signature, self._plan.tolerance
        try:
            equality = compare(signature, self._original, scores, tolerance)
        except ValueError as error:
            raise _Refused(str(error)) from error
        outcome.equality = equality
        outcome.failure = _beside_others(told["alone_difference"], scores) or why_not(
            equality, signature, tolerance
        )

    def _cpu_seconds(self, variant: Variant) -> int:
        """No process uses more CPU than this: an endless run ends."""
        return int((self._plan.seconds + 2 * _ANSWER_SECONDS) * variant.threads)

    def time(self, say: Say) -> int:
        """Rounds in which every form is timed with every number of rows, in turn; how many."""
        slices = max(1, len(self._ready) * len(self._plan.batches))
        rounds, seconds = _rounds(self._plan.seconds, slices)
        shuffle = random.Random(rounds)
        for number in range(rounds):
            # Another order each time, so that nobody always comes after the same neighbour.
            names = list(self._ready)
            shuffle.shuffle(names)
            for name in names:
                say(f"round {number + 1} of {rounds}: {name}", 0.3 + 0.7 * number / rounds)
                self._time_one(name, seconds)
            if PRESENT.name not in self._ready:
                break
        self.require_present()
        return rounds

    def _time_one(self, name: str, seconds: float) -> None:
        for batch in self._plan.batches:
            try:
                told = self._ready[name].ask(
                    {"do": "time", "rows": batch, "seconds": seconds}, _ANSWER_SECONDS
                )
            except (_Died, _Refused) as error:
                self._found[name].failure = f"with {batch} rows at once: {error}"
                del self._ready[name]
                return
            rows = batch * told["runs"]
            self._times.setdefault((name, batch), []).append(
                {"seconds": told["seconds"] / rows, "cpu_seconds": told["cpu_seconds"] / rows}
            )

    def outcomes(self) -> list[Outcome]:
        """In the plan's order."""
        for name in self._ready:
            self._found[name].timings = self._timings(name)
        return [self._found[each.name] for each in self._plan.variants]

    def _timings(self, name: str) -> list[Timing]:
        return [
            timing_of(
                batch,
                self._times[(name, batch)],
                self._times[(PRESENT.name, batch)],
                threads=self._found[name].variant.threads,
            )
            for batch in self._plan.batches
        ]

    def files(self) -> dict[str, bytes]:
        """The ONNX files of forms that were timed."""
        return {
            name: path.read_bytes() for name, path in self._paths.items() if name in self._ready
        }


def _beside_others(difference: float, scores: NDArray[Any]) -> str:
    finite = np.abs(scores[np.isfinite(scores)])
    allowed = _ABSOLUTE + _RELATIVE * (float(finite.max()) if len(finite) else 0.0)
    if difference <= allowed:
        return ""
    return (
        f"a row's score differs by {difference:.3g} alone and among others; rows are batched when "
        "served, so no row may depend on its neighbours"
    )


def _rounds(seconds: float, slices: int) -> tuple[int, float]:
    """How many, and how long each slice lasts; never fewer than five rounds."""
    shortest = seconds / slices / _SHORTEST_SLICE_SECONDS
    rounds = int(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, shortest / 4)))
    each = seconds / slices / rounds
    return rounds, min(_LONGEST_SLICE_SECONDS, max(_SHORTEST_SLICE_SECONDS, each))


class _Child:
    """A process that does one thing at a time; a context manager that leaves nobody behind."""

    def __init__(self, folder: Path, cpu_seconds: int) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "homeostat.advise.child", str(folder), str(cpu_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            # A group of its own: compilers that it started are ended with it.
            start_new_session=True,
        )
        self._waiting = b""

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - Popen was given PIPE
        assert self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(OSError):  # it may be gone already
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LEAVING_SECONDS)
        self._end()
        self._process.stdout.close()
        self._log.close()

    def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Its answer; _Refused with its reason, _Died where it ends or stays silent too long."""
        assert self._process.stdin is not None  # noqa: S101 - Popen was given PIPE
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise _Died(self._last_words()) from None
        line = self._line(time.monotonic() + seconds)
        told: dict[str, Any] = json.loads(line)
        if "refused" in told:
            raise _Refused(told["refused"])
        return told

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - Popen was given PIPE
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._waiting:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self._end()
                    raise _Died("it did not answer in time and was ended")
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    raise _Died(self._last_words())
                self._waiting += chunk
        line, _, self._waiting = self._waiting.partition(b"\n")
        return line

    def _last_words(self) -> str:
        try:
            code = self._process.wait(_LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        self._log.seek(0)
        words = self._log.read().decode(errors="replace").strip().splitlines()
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"its process ended with {ended}" + (f": {words[-1][:300]}" if words else "")
