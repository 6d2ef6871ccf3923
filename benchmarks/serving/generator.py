"""Builds and runs the load generator (`load/load.c`: a C compiler is all it needs)."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving.checks import check_recorded
from benchmarks.serving.models import Bodies

_SOURCES = Path(__file__).parent / "load"
# What ends a run that should have ended by itself, beyond its own time.
_GRACE_SECONDS = 30
_CHECKED_PER_RUN = 200
# Of a server's first answers: as many requests of a file as this are compared.
_CHECKED_FIRST = 1024


def build(folder: Path) -> Path:
    """The compiled generator; SystemExit that names the cure without a compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise SystemExit("The load generator needs a C compiler: install gcc.")
    sources = sorted(_SOURCES.glob("*.[ch]"))
    key = hashlib.sha256(b"".join(each.read_bytes() for each in sources)).hexdigest()[:16]
    program = folder / f"load-{key}"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = str(_SOURCES / "load.c")
        subprocess.run(
            [compiler, "-O2", "-std=gnu11", "-o", str(program), source, "-lm"], check=True
        )
    return program


@dataclass(slots=True)
class Load:
    """Runs the generator against ports of this machine."""

    program: Path
    folder: Path
    _next_id: int = field(default=1, init=False)

    def once(self, port: int, bodies: Bodies, *, connections: int = 4) -> int:
        """Sends other requests once each and compares all answers; how many that were."""
        wanted = min(bodies.count, _CHECKED_FIRST)
        options = {"once": 1, "requests": wanted, "connections": connections, "seconds": 120}
        result = self._run(port, bodies, options, 1)
        if result["checked"] != wanted:
            raise AssertionError(f"{result['checked']} of {wanted} answered: {_short(result)}")
        return int(result["checked"])

    def run(self, port: int, bodies: Bodies, **options: Any) -> dict[str, Any]:
        """One measurement; some of its answers are compared, none may fail."""
        result = self._run(port, bodies, options, 211)
        if result["failed"] or not result["ok"] or not result["checked"]:
            raise AssertionError(f"failed requests: {_short(result)}")
        return result

    def run_some_fail(self, port: int, bodies: Bodies, **options: Any) -> dict[str, Any]:
        """The same where failed requests are a figure."""
        return self._run(port, bodies, options, 211)

    @contextmanager
    def beside(self, port: int, bodies: Bodies, **options: Any) -> Iterator[dict[str, Any]]:
        """Load while the block runs; the result fills the given dictionary afterwards."""
        command, record = self._command(port, bodies, options, 211)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        result: dict[str, Any] = {}
        try:
            yield result
        finally:
            process.terminate()
            output, _ = process.communicate(timeout=_GRACE_SECONDS)
        result.update(json.loads(output))
        result["checked"] = check_recorded(record, bodies)
        record.unlink()

    def _run(
        self, port: int, bodies: Bodies, options: dict[str, Any], record_every: int
    ) -> dict[str, Any]:
        command, record = self._command(port, bodies, options, record_every)
        seconds = float(options.get("seconds", 2)) + float(options.get("warm_up", 1))
        output = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + _GRACE_SECONDS
        )
        if output.returncode:
            raise AssertionError(output.stderr.strip() or f"load: exit {output.returncode}")
        result: dict[str, Any] = json.loads(output.stdout)
        result["checked"] = check_recorded(record, bodies)
        record.unlink()
        return result

    def _command(
        self, port: int, bodies: Bodies, options: dict[str, Any], record_every: int
    ) -> tuple[Sequence[str], Path]:
        record = self.folder / f"answers-{self._next_id}"
        given = {
            **options,
            "record": record,
            "record-every": record_every,
            "first-id": self._next_id,
        }
        if record_every > 1:
            given["record-limit"] = _CHECKED_PER_RUN
        # Ids are never used twice, whatever a run needs of them.
        self._next_id += 100_000_000
        command = [str(self.program), str(port), str(bodies.path)]
        for name, value in given.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        return command, record


def _short(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "per_tenth_second"}
