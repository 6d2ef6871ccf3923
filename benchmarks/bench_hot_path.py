"""What one request costs inside a worker, stage by stage: `python -m benchmarks.bench_hot_path`.

In process, without network: CPU time of the calling thread (threads of the model and of the kernel
among it), microseconds per request, for so many requests at once. `taken`: from bytes to columns;
`run`: the model, with looking at values and judging; `model`: onnxruntime alone on the same rows;
`kept`: the journal record and the answers; the totals are `handle` with no journal, a fast and a
durable one.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.serving.models import INPUT, BenchModel, load_models, session

from homeostat.client import infer_request
from homeostat_inference.app.book import BlockBook
from homeostat_inference.app.engine import Engine
from homeostat_inference.app.intake import Rules
from homeostat_inference.app.ports import Chain, Done, Kind
from homeostat_inference.app.running import Runs
from homeostat_inference.app.serving import Served, Table
from homeostat_inference.domain.schema import schema_of
from homeostat_inference.domain.times import bounds
from homeostat_inference.edges.journal_writer import JournalWriter
from homeostat_inference.edges.session import OnnxModel
from homeostat_kit.clock import SystemClock

AT_ONCE = (1, 16, 64)
Stages = dict[str, float]


class _Call:
    """A call that is answered to nobody."""

    __slots__ = ("deadline_ns", "payload", "received_ns")

    def __init__(self, payload: bytes, received_ns: int) -> None:
        self.payload = payload
        self.received_ns = received_ns
        self.deadline_ns = 0

    def respond(self, payload: bytes) -> None:
        pass

    def fail(self, error: Exception) -> None:
        raise error


def _calls(payloads: list[bytes]) -> list[_Call]:
    """Calls that came in together, as the front hands them over."""
    now_ns = time.monotonic_ns()
    return [_Call(each, now_ns) for each in payloads]


class _NoJournal:
    """Keeps nothing and says that it did."""

    def __init__(self) -> None:
        self._told: list[Done] = []

    def append(
        self,
        kind: Kind,
        payload: bytes,
        *,
        done: Done | None = None,
        chain: Chain | None = None,
        must: bool = False,
    ) -> None:
        if done is not None:
            self._told.append(done)

    def commit(self) -> None:
        told, self._told = self._told, []
        for done in told:
            done(None)


@contextmanager
def _journal(folder: Path, kind: str) -> Iterator[Any]:
    if kind == "none":
        yield _NoJournal()
        return
    with JournalWriter(
        folder / kind,
        segment_bytes=16 << 20,
        quota_bytes=1 << 40,
        is_durable=kind == "durable",
    ) as journal:
        yield journal


def _engine(model: BenchModel, journal: Any, durability: str) -> Engine:
    schema = schema_of(model.name, 1, model.signature())
    served = Served(
        schema,
        OnnxModel(model.content, schema),
        run_seconds=lambda rows: 0.0,
        inline_seconds=1.0,
        queue_rows=1 << 20,
        queue_bytes=1 << 30,
    )
    table = Table()
    table.swap(served)
    clock = SystemClock()
    return Engine(
        table=table,
        book=BlockBook(journal, clock),
        clock=clock,
        rules=Rules(1 << 24, b"secret", durability),
        times=lambda now_us: bounds(now_us, None, 1 << 40),
        see=lambda newest_us, now_us: None,
        fetch=lambda call, missing: None,
        log=lambda event, error: print(event, repr(error), file=sys.stderr),
    )


def _payloads(model: BenchModel, rows: int, count: int, *, with_ids: bool) -> list[bytes]:
    made = []
    for number in range(count):
        at = np.arange(number * rows, (number + 1) * rows) % len(model.rows)
        request = infer_request(model.name, {INPUT: model.rows[at]})
        if with_ids:
            request.id = f"customer-{number:011d}"
        made.append(request.SerializeToString())
    return made


def _per_request(work: Callable[[list[_Call]], Any], groups: list[list[bytes]]) -> float:
    """Microseconds of CPU per request: the median of several rounds."""
    rounds = []
    for _ in range(7):
        spent = 0
        for payloads in groups:
            calls = _calls(payloads)
            begun = time.thread_time_ns()
            work(calls)
            spent += time.thread_time_ns() - begun
        rounds.append(spent / 1e3 / sum(map(len, groups)))
    return statistics.median(rounds)


def _stages(model: BenchModel, groups: list[list[bytes]], folder: Path) -> Stages:
    found: Stages = {}
    with _journal(folder, "none") as journal:
        engine = _engine(model, journal, "durable")
        # Layouts are learned from the first requests.
        for payloads in groups[:4]:
            engine.handle(_calls(payloads))
        found["taken"] = _per_request(engine.intake.read, groups)
        found["run"] = _ran(engine, groups)
        found["model"] = _bare(model, engine, groups)
        found["no_journal"] = _per_request(engine.handle, groups)
    found["kept"] = found["no_journal"] - found["taken"] - found["run"]
    for kind in ("fast", "durable"):
        with _journal(folder, kind) as journal:
            engine = _engine(model, journal, kind)
            for payloads in groups[:4]:
                engine.handle(_calls(payloads))
            found[kind] = _per_request(engine.handle, groups)
    return {name: round(value, 2) for name, value in found.items()}


def _ran(engine: Engine, groups: list[list[bytes]]) -> float:
    runs = Runs(lambda served, waiting, error: None, engine.intake.deadlines_ns)
    taken = [engine.intake.read(_calls(payloads)) for payloads in groups]
    rounds = []
    for _ in range(7):
        begun = time.thread_time_ns()
        for each in taken:
            for served, waiting in each.items():
                runs.run(served, waiting, None, None, engine.trace)
        rounds.append((time.thread_time_ns() - begun) / 1e3 / sum(map(len, groups)))
    return statistics.median(rounds)


def _bare(model: BenchModel, engine: Engine, groups: list[list[bytes]]) -> float:
    bare = session(model.content)
    arrays = []
    for payloads in groups:
        taken = engine.intake.read(_calls(payloads))
        arrays += [waiting.part.columns[0] for some in taken.values() for waiting in some]
    rounds = []
    for _ in range(7):
        begun = time.thread_time_ns()
        for each in arrays:
            bare.run(None, {INPUT: each})
        rounds.append((time.thread_time_ns() - begun) / 1e3 / sum(map(len, groups)))
    return statistics.median(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="where the figures go, beside the output")
    parser.add_argument("--requests", type=int, default=4096)
    options = parser.parse_args()
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        models = load_models(Path(tempfile.gettempdir()) / "homeostat-bench-models")
        for model in models.values():
            for rows, at_once, with_ids in (
                *((1, each, False) for each in AT_ONCE),
                (1, 16, True),
                (64, 16, False),
            ):
                count = max(at_once, options.requests // rows // at_once * at_once)
                payloads = _payloads(model, rows, count, with_ids=with_ids)
                groups = [payloads[at : at + at_once] for at in range(0, count, at_once)]
                stages = _stages(model, groups, Path(folder) / f"{model.name}-{len(figures)}")
                told = {
                    "model": model.name,
                    "rows": rows,
                    "at_once": at_once,
                    "ids": with_ids,
                    "cpu_us_per_request": stages,
                }
                figures.append(told)
                print(json.dumps(told), flush=True)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
