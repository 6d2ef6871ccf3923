"""How long `homeostat up` takes, and each service alone: `python benchmarks/bench_start_up.py`.

The whole: from nothing to ready, then again on the data of the first time. Each service: killed in
the running stack, and timed from its new start until gRPC health says SERVING; best of three.
Arguments: the services to start (default: all).
"""

import sys
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from homeostat_local.launch import SERVICES
from homeostat_local.stack import Stack, running_stack

_ROUNDS = 3


def main(services: tuple[str, ...]) -> None:
    """Measures and prints a table."""
    table = Table("what", "seconds", "CPU seconds")
    with tempfile.TemporaryDirectory() as folder:
        for what in ("up, first time", "up, second time"):
            started = time.perf_counter()
            with running_stack(Path(folder), services=services) as stack:
                table.add_row(what, f"{time.perf_counter() - started:.2f}")
                if what == "up, second time":
                    for name in services:
                        table.add_row(name, *(f"{figure:.2f}" for figure in _best(stack, name)))
                    table.add_row("memory, MiB", f"{stack.pss_mb():.0f}")
                leaving = time.perf_counter()
            table.add_row("down", f"{time.perf_counter() - leaving:.2f}")
    Console().print(table)


def _best(stack: Stack, name: str) -> tuple[float, float]:
    """Seconds and CPU seconds of one start; machines that do other work blur the former."""
    taken = []
    for _ in range(_ROUNDS):
        stack.kill(name)
        stack.wait_ready()
        used = psutil.Process(stack.pid(name)).cpu_times()
        taken.append((stack.endpoints.process(name).start_seconds or 0.0, used.user + used.system))
    return min(taken)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or SERVICES)
