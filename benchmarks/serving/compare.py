"""The table: every server, model and number of connections, in interleaved rounds."""

import json
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.serving import others, ours
from benchmarks.serving.generator import Load
from benchmarks.serving.install import python_of
from benchmarks.serving.models import INPUT, TREES, BenchModel, Bodies, session, write_bodies

_CALLS = 1000
_CALL_SECONDS = 120
# A server that failed in so many rounds is left alone.
_PATIENCE = 2
_CODE = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Cell:
    """What is measured of each server."""

    model: str
    rows: int
    has_ids: bool
    connections: int

    def key(self) -> str:
        """For the report."""
        ids = "ids" if self.has_ids else "no ids"
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        return f"{self.model}, {rows}, {ids}, {self.connections} connections"


@dataclass(slots=True)
class Bench:
    """What all figures need."""

    load: Load
    models: Mapping[str, BenchModel]
    folder: Path
    seconds: float
    rounds: int
    warm_up: float = 0.3
    absent: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    # Of the peers that run already.
    peer_ports: dict[str, int] = field(default_factory=dict)
    _bodies: dict[tuple[str, int, bool], Bodies] = field(default_factory=dict)
    _checked: set[tuple[str, str]] = field(default_factory=set)

    def bodies(self, model: str, rows: int = 1, *, has_ids: bool = True) -> Bodies:
        """Requests of so many rows, written once."""
        key = (model, rows, has_ids)
        if key not in self._bodies:
            self._bodies[key] = write_bodies(
                self.models[model], rows, has_ids=has_ids, folder=self.folder
            )
        return self._bodies[key]

    def check(self, server: str, port: int, bodies: Bodies) -> None:
        """All answers of a server against onnxruntime, once."""
        if (server, bodies.path.name) not in self._checked:
            self.load.once(port, bodies)
            self._checked.add((server, bodies.path.name))

    def measure(self, server: str, port: int, cell: Cell) -> dict[str, Any]:
        """One cell; its answers were checked before, and some are again."""
        bodies = self.bodies(cell.model, cell.rows, has_ids=cell.has_ids)
        self.check(server, port, bodies)
        options = {"seconds": self.seconds, "warm_up": self.warm_up}
        return self.load.run(port, bodies, connections=cell.connections, **options)

    def give_up(self, server: str, error: BaseException) -> None:
        """It is reported as absent from now on."""
        self.absent[server] = self.tell_of(server, error)

    def tell_of(self, server: str, error: BaseException) -> str:
        """A failure, for the report; what it says."""
        said = f"{type(error).__name__}: {error}"
        self.failures.append(f"{server}: {said[-1500:]}")
        print(self.failures[-1], file=sys.stderr, flush=True)
        return said


@contextmanager
def started_peers(bench: Bench, names: Sequence[str]) -> Iterator[None]:
    """All that come up; they idle while others are measured."""
    with ExitStack() as stack:
        for name in names:
            if name in bench.absent:
                continue
            try:
                bench.peer_ports[name] = stack.enter_context(others.a_peer(name, bench.models)).port
            except Exception as error:
                bench.give_up(name, error)
        yield


def cells_of(bench: Bench, connections: Sequence[int]) -> list[Cell]:
    """Single rows of each model with ids, without ids at 16 only; 64 rows of trees at 16."""
    cells = [Cell(model, 1, True, each) for model in bench.models for each in connections]
    if 16 in connections:
        cells += [Cell(model, 1, False, 16) for model in bench.models]
    return cells


# What one figure measures of a server: keys and results.
Measure = Callable[[str, int], Iterator[tuple[str, dict[str, Any]]]]


def side_by_side(
    bench: Bench, servers: Sequence[str], figures: Mapping[str, Measure]
) -> dict[str, dict[str, Any]]:
    """Every server once per round, in another order each; ours is started anew each time.

    Medians over the rounds, by figure, key and server.
    """
    found: dict[str, Any] = {name: defaultdict(lambda: defaultdict(list)) for name in figures}
    failures: Counter[str] = Counter()
    for turn in range(bench.rounds):
        for name in servers if turn % 2 == 0 else list(reversed(servers)):
            if name in bench.absent or failures[name] >= _PATIENCE:
                continue
            try:
                with _place(bench, name) as port:
                    for figure, measure in figures.items():
                        for key, result in measure(name, port):
                            found[figure][key][name].append(result)
                            _tell(turn, name, key, result)
            except Exception as error:
                failures[name] += 1
                bench.tell_of(name, error)
    return {
        figure: {
            key: {name: medians(by_server[name]) for name in servers if name in by_server}
            for key, by_server in keys.items()
        }
        for figure, keys in found.items()
    }


def compare(bench: Bench, cells: Sequence[Cell]) -> Measure:
    """Rates and latencies of all cells."""

    def of(name: str, port: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for cell in cells:
            yield cell.key(), bench.measure(name, port, cell)

    return of


@contextmanager
def _place(bench: Bench, name: str) -> Iterator[int]:
    """Where the server answers."""
    if name in bench.peer_ports:
        yield bench.peer_ports[name]
        return
    with ours.a_server(name, bench.models) as running:
        yield running.port


def _tell(turn: int, name: str, key: str, result: Mapping[str, Any]) -> None:
    rate = result.get("requests_per_second", 0)
    said = f"{turn + 1} {name:16} {key:44} {rate:9.0f}/s p50 {result.get('p50_us', 0):8.0f} us"
    print(f"{time.strftime('%H:%M:%S')} {said}", file=sys.stderr, flush=True)


def medians(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of each number over the rounds; and the lowest and highest rate, to tell the noise."""
    numbers = {
        name: round(median(float(each[name]) for each in results), 3)
        for name, value in results[0].items()
        if isinstance(value, int | float)
    }
    rates = sorted(float(each.get("requests_per_second", 0)) for each in results)
    return {**numbers, "rounds": len(results), "lowest": rates[0], "highest": rates[-1]}


def rows64(bench: Bench) -> Measure:
    """64-row requests beside onnxruntime's own batches of 64 in one process, on one core."""
    cell = Cell(TREES, 64, True, 16)

    def of(name: str, port: int) -> Iterator[tuple[str, dict[str, Any]]]:
        own = in_process_rows(bench.models[TREES], bench.seconds)
        result = bench.measure(name, port, cell)
        rows = result["requests_per_second"] * cell.rows
        result |= {"rows_per_second": rows, "onnxruntime_rows_per_second": own}
        yield cell.key(), {**result, "share_of_onnxruntime": rows / own}

    return of


def in_process_rows(model: BenchModel, seconds: float) -> float:
    """Rows per second of onnxruntime itself, one thread, other 64 rows each time."""
    run = session(model.content).run
    batches = [{INPUT: model.rows[at : at + 64]} for at in range(0, len(model.rows), 64)]
    for batch in batches[:20]:
        run(None, batch)
    begun, count = time.perf_counter(), 0
    while (taken := time.perf_counter() - begun) < seconds:
        for batch in batches[:20]:
            run(None, batch)
        count += 20
    return 64 * count / taken


def one_call(bench: Bench) -> Measure:
    """tritonclient on an idle server, one call after the other, the same script for all."""

    def of(name: str, port: int) -> Iterator[tuple[str, dict[str, Any]]]:
        for model in bench.models.values():
            bench.check(name, port, bench.bodies(model.name))
            command = [str(python_of("tritonclient")), str(_CODE / "one_call.py")]
            command += [f"127.0.0.1:{port}", model.name, str(model.width), str(_CALLS)]
            output = subprocess.run(
                command, capture_output=True, text=True, timeout=_CALL_SECONDS, check=False
            )
            if output.returncode:
                raise AssertionError(output.stderr.strip()[-1000:])
            yield f"{model.name}, tritonclient", json.loads(output.stdout)

    return of
