"""The file that says where everything is and who runs it: `endpoints.json` in the data folder."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from homeostat_local.files import write_atomically
from homeostat_local.processes import is_same

FILE_NAME = "endpoints.json"
_PORTS_FILE = "ports.json"


class State(StrEnum):
    """Where a process is in its life."""

    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"  # dead, and to be started again after a delay
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """One supervised process; `mark` tells it from a later process with the same pid."""

    address: str
    pid: int | None = None
    mark: str | None = None
    state: State = State.STARTING
    started_at: float = 0.0  # seconds since 1970, UTC
    start_seconds: float | None = None  # from its latest start until it answered
    restarts: int = 0
    was_ready: bool = False  # in this life or an earlier one
    http_address: str | None = None  # of a service that speaks HTTP too

    def is_alive(self) -> bool:
        """Whether that very process still runs."""
        return self.pid is not None and is_same(self.pid, self.mark)

    def is_ready(self) -> bool:
        """Whether it answered, and still runs."""
        return self.state is State.READY and self.is_alive()


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What runs in a data folder. `cluster_id` names the epoch of the broker."""

    supervisor: ProcessRecord
    kafka: str
    cluster_id: str | None = None
    broker: ProcessRecord | None = None  # None where Kafka is somebody else's
    database: ProcessRecord | None = None
    services: Mapping[str, ProcessRecord] = field(default_factory=dict)

    def processes(self) -> Iterator[tuple[str, ProcessRecord]]:
        """Every supervised process by name."""
        yield from self.services.items()
        if self.broker is not None:
            yield "broker", self.broker
        if self.database is not None:
            yield "database", self.database

    def process(self, name: str) -> ProcessRecord:
        """The process of this name; KeyError if the stack has none."""
        return dict(self.processes())[name]

    def all_ready(self, names: Collection[str] = ()) -> bool:
        """Whether the supervisor and these processes (default: all) run and have answered."""
        waited_for = [record for name, record in self.processes() if not names or name in names]
        return (
            bool(waited_for)
            and self.supervisor.is_alive()
            and all(record.is_ready() for record in waited_for)
        )

    def write(self, data_folder: Path) -> None:
        """Replaces the file in one step."""
        write_atomically(data_folder / FILE_NAME, json.dumps(asdict(self), indent=2) + "\n")


def read_endpoints(data_folder: Path) -> Endpoints | None:
    """What the folder's supervisor wrote last; None if nothing runs there or it cannot be read."""
    try:
        return _parse(json.loads((data_folder / FILE_NAME).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_ports(data_folder: Path) -> dict[str, int]:
    """The ports of the folder's last run by process name; empty if there was none."""
    try:
        ports = json.loads((data_folder / _PORTS_FILE).read_text())
        return {str(name): int(port) for name, port in ports.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_ports(data_folder: Path, ports: Mapping[str, int]) -> None:
    """Remembers ports for the next run, so that clients outside find it where it was."""
    write_atomically(data_folder / _PORTS_FILE, json.dumps(dict(ports), indent=2) + "\n")


def _parse(document: Mapping[str, Any]) -> Endpoints:
    def record(found: Mapping[str, Any]) -> ProcessRecord:
        return ProcessRecord(**{**found, "state": State(found["state"])})

    return Endpoints(
        supervisor=record(document["supervisor"]),
        kafka=document["kafka"],
        cluster_id=document["cluster_id"],
        broker=record(document["broker"]) if document["broker"] else None,
        database=record(document["database"]) if document["database"] else None,
        services={name: record(found) for name, found in document["services"].items()},
    )
