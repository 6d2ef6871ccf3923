"""How each service is started, and what it is told by its environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from homeostat_local.files import secret
from homeostat_local.launch import Launch
from homeostat_local.processes import Command

# Inference first, that nothing new comes in; the registry last, since the others report to it.
STOP_ORDER = ("inference", "ledger", "monitor", "retrainer", "registry")


def service_command(
    name: str,
    *,
    launch: Launch,
    data_folder: Path,
    kafka: str,
    addresses: Mapping[str, str],
    database_urls: Mapping[str, str],
) -> Command:
    """The command of one service with its whole environment."""
    folder = data_folder / name
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"HOMEOSTAT_{name.upper()}_"
    own = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka,
        "GRPC_ADDRESS": addresses[name],
        "DATA_FOLDER": str(folder),
        "CLIENT_KEY_SECRET": secret(data_folder, "client_key"),
        **{f"{peer.upper()}_ADDRESS": addresses[peer] for peer in addresses if peer != name},
    }
    if name in database_urls:
        own["DATABASE_URL"] = database_urls[name]
    environment = {
        # glibc keeps an arena per thread and core; two are enough and save memory.
        "MALLOC_ARENA_MAX": "2",
        **os.environ,
        **{prefix + setting: value for setting, value in own.items()},
        **launch.environment(),
    }
    return Command(_arguments(name, launch), environment)


def _arguments(name: str, launch: Launch) -> tuple[str, ...]:
    return launch.commands.get(name, (sys.executable, "-m", f"homeostat_{name}"))
