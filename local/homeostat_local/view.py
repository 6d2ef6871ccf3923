"""What `up`, `down` and `status` put on the terminal."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import Popen

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from homeostat_local import control
from homeostat_local.endpoints import Endpoints, ProcessRecord, State
from homeostat_local.memory import pss_mib, tree
from homeostat_local.probes import is_serving

_STYLES = {"ready": "green", "starting": "yellow", "waiting": "yellow"}


@dataclass(frozen=True, slots=True)
class Line:
    """One process as `status` shows it."""

    name: str
    state: str
    pid: int | None
    address: str
    uptime_seconds: int
    restarts: int
    pss_mib: int
    http_address: str | None


def await_ready(console: Console, folder: Path, supervisor: Popen[bytes] | None) -> Endpoints:
    """Waits with a display of who is not ready yet."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("starting", total=None)

        def show(endpoints: Endpoints) -> None:
            late = [name for name, record in endpoints.processes() if not record.is_ready()]
            progress.update(task, description=f"waiting for {', '.join(late)}")

        return control.wait_ready(folder, supervisor, progress=show)


def stop(console: Console, folder: Path) -> None:
    """Stops the stack and says what was done."""
    with console.status("stopping") as spinner:
        stopped = control.stop(
            folder, progress=lambda left: spinner.update(f"waiting for {left or 'the supervisor'}")
        )
    if stopped.in_order:
        console.print(f"Stopped {', '.join(stopped.in_order)}.")
    if stopped.supervisor_killed:
        console.print("The supervisor did not leave and was killed.")
    if stopped.orphans:
        console.print(f"Ended what a dead supervisor had left: {', '.join(stopped.orphans)}.")
    if not stopped.in_order and not stopped.orphans:
        console.print(f"Nothing runs in {folder}.", highlight=False, markup=False)


def endpoints_table(endpoints: Endpoints) -> Table:
    """Where everything is."""
    table = Table(title="Homeostat is up")
    for heading in ("process", "address"):
        table.add_column(heading)
    table.add_column("ready after", justify="right")
    for name, record in endpoints.processes():
        seconds = "" if record.start_seconds is None else f"{record.start_seconds:.2f} s"
        table.add_row(name, record.address, seconds)
        if record.http_address is not None:
            table.add_row(f"{name} (HTTP)", f"http://{record.http_address}", "")
    if endpoints.broker is None:
        table.add_row("kafka (yours)", endpoints.kafka, "")
    return table


def show_status(console: Console, folder: Path, *, as_json: bool) -> bool:
    """Prints every process; whether all are well."""
    endpoints = control.running(folder)
    lines = [] if endpoints is None else _lines(endpoints)
    is_well = bool(lines) and all(line.state == "ready" for line in lines)
    if as_json:
        report = {
            "ok": is_well,
            "folder": str(folder),
            "cluster_id": endpoints.cluster_id if endpoints else None,
            "kafka": endpoints.kafka if endpoints else None,
            "processes": [asdict(line) for line in lines],
        }
        console.print_json(json.dumps(report))
    elif endpoints is None:
        console.print(
            f"Nothing runs in {folder}; start it with `homeostat up`.",
            highlight=False,
            markup=False,
        )
    else:
        console.print(_status_table(lines))
    return is_well


def _lines(endpoints: Endpoints) -> list[Line]:
    services = endpoints.services
    return [
        _line(name, record, serves=name in services)
        for name, record in (("supervisor", endpoints.supervisor), *endpoints.processes())
    ]


def _line(name: str, record: ProcessRecord, *, serves: bool) -> Line:
    pids = [] if record.pid is None else tree(record.pid)
    if name == "supervisor":
        pids = pids[:1]  # its children have lines of their own
    return Line(
        name=name,
        state=_state(record, serves=serves),
        pid=record.pid,
        address=record.address,
        uptime_seconds=int(time.time() - record.started_at) if record.is_alive() else 0,
        restarts=record.restarts,
        pss_mib=round(pss_mib(pids)),
        http_address=record.http_address,
    )


def _state(record: ProcessRecord, *, serves: bool) -> str:
    if record.state is State.READY and not record.is_alive():
        return "dead"
    if record.state is State.READY and serves and not is_serving(record.address):
        return "not serving"
    return record.state.value


def _status_table(lines: list[Line]) -> Table:
    table = Table()
    for heading in ("process", "state", "pid", "address"):
        table.add_column(heading)
    for heading in ("up", "restarts", "memory"):
        table.add_column(heading, justify="right")
    for line in lines:
        style = _STYLES.get(line.state, "red")
        table.add_row(
            line.name, f"[{style}]{line.state}[/{style}]", str(line.pid or ""),
            line.address + (f", http://{line.http_address}" if line.http_address else ""),
            _span(line.uptime_seconds), str(line.restarts), f"{line.pss_mib} MiB",
        )  # fmt: skip
    table.add_section()
    table.add_row("in all", "", "", "", "", "", f"{sum(line.pss_mib for line in lines)} MiB")
    return table


def _span(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
