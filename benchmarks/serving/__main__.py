"""Measures our server beside its peers, or by itself; writes tables and JSON.

python -m benchmarks.serving --only compare,rows64,call --rounds 5 --seconds 1 --json FILE
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.serving import further, report
from benchmarks.serving.compare import (
    Bench,
    Measure,
    cells_of,
    compare,
    one_call,
    rows64,
    side_by_side,
    started_peers,
)
from benchmarks.serving.generator import Load, build
from benchmarks.serving.install import FOLDER, install
from benchmarks.serving.models import load_models
from benchmarks.serving.others import PEERS

OURS = ("ours-fast", "ours-durable", "ours-off")
MORE_OF_OURS = "ours-fast-grpcio, ours-durable-grpcio, and any of them with -2w for two workers"
FIGURES = ("compare", "rows64", "call", "swaps", "memory", "overload", "fairness", "shadow")
# Those that need the peers.
BESIDE = {"compare", "rows64", "call"}
_REPORTS = {"compare": report.comparison, "rows64": report.rows64, "call": report.one_call}
_TITLES = {
    "swaps": "Versions swapped under load",
    "memory": "Memory (MiB)",
    "overload": "More requests than it can answer",
    "fairness": "A light load beside a flood of another model",
    "shadow": "A shadow beside the champion",
}


def main() -> None:
    """What the command line asks for."""
    given = _arguments()
    # Servers are ended on every way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    servers = _servers(given)
    begun = time.monotonic()
    found: dict[str, Any] = {"machine": _machine(), "settings": _settings(given)}
    with tempfile.TemporaryDirectory(prefix="homeostat-bench-") as folder:
        place = Path(folder)
        bench = Bench(
            Load(build(FOLDER), place),
            load_models(FOLDER / "models"),
            place,
            given.seconds,
            given.rounds,
            given.warm_up,
        )
        wanted = {PEERS[each].environment for each in servers if each in PEERS}
        missing = install([*sorted(wanted), "tritonclient"])
        for name in [each for each in servers if each in PEERS]:
            if PEERS[name].environment in missing:
                bench.absent[name] = missing[PEERS[name].environment]
        peers = [each for each in servers if each in PEERS] if {*given.only} & BESIDE else []
        with started_peers(bench, peers):
            figures = _beside(bench, given)
            found |= side_by_side(bench, servers, figures) if figures else {}
        texts = [
            _REPORTS[each](found[each]) if each in BESIDE else _alone(each, bench, given, found)
            for each in given.only
        ]
    found["absent"], found["failures"] = bench.absent, bench.failures
    found["seconds"] = round(time.monotonic() - begun)
    text = "\n".join([_head(found), *texts, *_absent(bench)])
    print(text)
    _write(given.json, json.dumps(found, indent=1))
    _write(given.table, text)


def _beside(bench: Bench, given: argparse.Namespace) -> dict[str, Measure]:
    """What is measured of every server."""
    cells = [
        each
        for each in cells_of(bench, given.connections)
        if given.ids_or(each.has_ids) and each.model in given.models
    ]
    figures = {"compare": compare(bench, cells), "rows64": rows64(bench), "call": one_call(bench)}
    return {name: each for name, each in figures.items() if name in given.only}


def _alone(figure: str, bench: Bench, given: argparse.Namespace, found: dict[str, Any]) -> str:
    """One figure of each of our servers, into ``found``, and as text."""
    more = {"swaps": {"count": given.swaps}, "memory": {"requests": given.requests}}
    texts = []
    for server in [each for each in given.servers if each != "none"]:
        title = f"{_TITLES[figure]}: {server}"
        try:
            result = getattr(further, figure)(bench, server, **more.get(figure, {}))
        except Exception as error:
            bench.tell_of(f"{figure} of {server}", error)
            continue
        found.setdefault(figure, {})[server] = result
        texts.append(report.plain(title, result))
    return "\n".join(texts)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", type=_names, default=["compare", "rows64", "call"], help=", ".join(FIGURES))
    add("--servers", type=_names, default=[*OURS], help=f"of ours: {MORE_OF_OURS}")
    add("--peers", type=_names, default=[*PEERS], help=f"of {', '.join(PEERS)}, or none")
    add("--models", type=_names, default=["trees", "logistic"])
    add("--connections", type=_numbers, default=[1, 16, 64])
    add("--ids", choices=("both", "with", "without"), default="both")
    add("--rounds", type=int, default=5)
    add("--seconds", type=float, default=1.0, help="of each measurement")
    add("--warm-up", type=float, default=0.3, help="seconds before each measurement")
    add("--swaps", type=int, default=200)
    add("--requests", type=int, default=1_000_000, help="of the memory figure")
    add("--json", type=Path)
    add("--table", type=Path)
    given = parser.parse_args()
    unknown = [each for each in given.only if each not in FIGURES]
    unknown += [each for each in given.peers if each not in (*PEERS, "none")]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}")
    given.ids_or = lambda has_ids: given.ids == "both" or (given.ids == "with") == has_ids
    return given


def _names(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _numbers(text: str) -> list[int]:
    return [int(each) for each in _names(text)]


def _servers(given: argparse.Namespace) -> list[str]:
    return [each for each in (*given.servers, *given.peers) if each != "none"]


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "at": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    }


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    return {
        name: getattr(given, name)
        for name in ("only", "servers", "peers", "connections", "rounds", "seconds", "warm_up")
    }


def _head(found: dict[str, Any]) -> str:
    machine, settings = found["machine"], found["settings"]
    return (
        f"{machine['at']}, {machine['cores']} cores, load before {machine['load_before']:.2f}, "
        f"{settings['rounds']} rounds of {settings['seconds']} s, medians; {found['seconds']} s"
    )


def _absent(bench: Bench) -> list[str]:
    lines = [f"- {name} is absent: {why}" for name, why in bench.absent.items()]
    lines += [f"- {each}" for each in bench.failures]
    return ["", "### Absent and failed", "", *lines] if lines else []


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


if __name__ == "__main__":
    main()
