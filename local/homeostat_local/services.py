"""How each service is started, and what it is told by its environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from homeostat_local.files import secret
from homeostat_local.launch import SERVICES, Launch, prefix_of
from homeostat_local.processes import Command

# Inference first, that nothing new comes in; the registry last, since the others report to it.
STOP_ORDER = ("inference", "ledger", "monitor", "retrainer", "registry")


# Who turns a client's id into a key; nobody else is told the secret.
_KNOWS_CLIENTS = ("inference", "ledger")


def service_command(
    name: str,
    *,
    launch: Launch,
    data_folder: Path,
    kafka: str,
    addresses: Mapping[str, str],
    database_urls: Mapping[str, str],
    http_address: str | None = None,
) -> Command:
    """The command of one service with its whole environment."""
    folder = data_folder / name
    folder.mkdir(parents=True, exist_ok=True)
    prefix = prefix_of(name)
    own = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "GRPC_ADDRESS": addresses[name],
        "DATA_FOLDER": str(folder),
        **{f"{peer.upper()}_ADDRESS": addresses[peer] for peer in addresses if peer != name},
    }
    if http_address is not None:
        own["HTTP_ADDRESS"] = http_address
    if name in _KNOWS_CLIENTS:
        own["CLIENT_KEY_SECRET"] = secret(data_folder, "client_key")
    if name in database_urls:
        own["DATABASE_URL"] = database_urls[name]
    environment = {
        # glibc keeps an arena per thread and core; two are enough and save memory.
        "MALLOC_ARENA_MAX": "2",
        **{each: value for each, value in os.environ.items() if not _is_of_another(each, name)},
        **{prefix + setting: value for setting, value in own.items()},
        **launch.environment(name),
    }
    return Command(_arguments(name, launch), environment)


def _is_of_another(variable: str, name: str) -> bool:
    return any(variable.startswith(prefix_of(each)) for each in SERVICES if each != name)


def _arguments(name: str, launch: Launch) -> tuple[str, ...]:
    return launch.commands.get(name, (sys.executable, "-m", f"homeostat_{name}"))
