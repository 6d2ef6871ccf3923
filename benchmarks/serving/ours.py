"""Our server as a user would run it: the whole process, an embedded broker, a registry's stand-in.

Names say the settings: ours-fast, ours-durable, ours-off (no prediction is
logged: one in 10^12), then any of
-grpcio (the other transport) and -2w (two workers).
"""

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.models import BenchModel, one_request
from benchmarks.serving.processes import Running, start, wait_until_answering
from benchmarks.serving.registry import Registry, a_registry

from homeostat_local.broker import RunningBroker, start_broker
from homeostat_local.ports import choose_port

_DURABILITY = {
    "fast": {"durability": "fast"},
    "durable": {"durability": "durable"},
    "off": {"durability": "sampled", "sample_share": "1e-12"},
}


@dataclass(slots=True)
class Ours:
    """A started server, and what it lives on."""

    running: Running
    registry: Registry
    broker: RunningBroker

    @property
    def port(self) -> int:
        """Where it answers."""
        return self.running.port


def settings_of(name: str) -> dict[str, str]:
    """What a name means; ValueError for an unknown one."""
    parts = name.split("-")
    if parts[0] != "ours" or len(parts) < 2 or parts[1] not in _DURABILITY:
        raise ValueError(f"unknown server: {name}")
    given = {**_DURABILITY[parts[1]], "transport": "native", "workers": "1"}
    for each in parts[2:]:
        if each == "grpcio":
            given["transport"] = "grpcio"
        elif each.endswith("w") and each[:-1].isdigit():
            given["workers"] = each[:-1]
        else:
            raise ValueError(f"unknown server: {name}")
    return given


@contextmanager
def a_server(
    name: str, models: Mapping[str, BenchModel], more: Mapping[str, str] | None = None
) -> Iterator[Ours]:
    """Runs it with version 1 of every model; ``more`` are settings, without the prefix."""
    with (
        contextlib.ExitStack() as stack,
        tempfile.TemporaryDirectory(
            prefix="homeostat-bench-", dir=_disk(), ignore_cleanup_errors=True
        ) as place,
    ):
        folder = Path(place)
        (folder / "broker").mkdir()
        broker = start_broker(folder / "broker")
        stack.callback(broker.stop)
        registry = stack.enter_context(a_registry())
        for each in models.values():
            registry.add(each.name, 1, each.content, each.signature())
            registry.promote(each.name, 1)
        running = _start(name, folder, registry, broker, more or {})
        stack.callback(running.kill)
        first = [one_request(each, 0, 1, has_ids=False) for each in models.values()]
        wait_until_answering(running, first)
        yield Ours(running, registry, broker)


def _disk() -> Path:
    """A folder on a real disk: a durable mode on a RAM disk would be no figure."""
    folder = Path(__file__).resolve().parents[2] / ".bench" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _start(
    name: str, folder: Path, registry: Registry, broker: RunningBroker, more: Mapping[str, str]
) -> Running:
    port = choose_port(0)
    given = {
        "grpc_address": f"127.0.0.1:{port}",
        "kafka_bootstrap_servers": broker.address,
        "registry_address": registry.address,
        # Nobody listens there: without a ledger the journal keeps all, within its quota.
        "ledger_address": "127.0.0.1:1",
        "data_folder": str(folder / "data"),
        "snapshot_interval_seconds": "0.5",
        **settings_of(name),
        **more,
    }
    environment = {f"HOMEOSTAT_INFERENCE_{key.upper()}": value for key, value in given.items()}
    return start(
        name,
        [sys.executable, "-m", "homeostat_inference"],
        port=port,
        log=folder / "inference.log",
        environment=environment,
    )
