"""Where the services are: told by the environment, or found beside a running embedded stack."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

DEFAULT_FOLDER = Path(".homeostat")
SERVICES = ("registry", "inference", "ledger", "monitor", "retrainer")


class NoEndpoint(LookupError):
    """Nobody said where a service is; the message names the cure."""


def addresses(folder: Path = DEFAULT_FOLDER) -> Mapping[str, str]:
    """Service name to "host:port"; ``HOMEOSTAT_<SERVICE>_ADDRESS`` wins over the stack's file."""
    found = dict(_of_stack(folder))
    for name in SERVICES:
        told = os.environ.get(f"HOMEOSTAT_{name.upper()}_ADDRESS")
        if told:
            found[name] = told
    return found


def address(name: str, folder: Path = DEFAULT_FOLDER) -> str:
    """One service's address; NoEndpoint where nothing tells it."""
    try:
        return addresses(folder)[name]
    except KeyError:
        raise NoEndpoint(
            f"no {name} to talk to: start one with `homeostat up` in this folder, or set "
            f"HOMEOSTAT_{name.upper()}_ADDRESS=host:port"
        ) from None


def _of_stack(folder: Path) -> Mapping[str, str]:
    try:
        stack = json.loads((folder / "endpoints.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NoEndpoint(f"{folder / 'endpoints.json'} can't be read: {error}") from error
    return {name: each["address"] for name, each in stack.get("services", {}).items()}
