"""Where the services are: told by the environment, or found beside a running embedded stack."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def http_address(folder: Path = DEFAULT_FOLDER) -> str:
    """Where inference speaks HTTP, "host:port"; ``HOMEOSTAT_INFERENCE_HTTP_ADDRESS`` wins.
    NoEndpoint without either."""
    told = os.environ.get("HOMEOSTAT_INFERENCE_HTTP_ADDRESS")
    found = _stack(folder).get("services", {}).get("inference", {}).get("http_address")
    if not (told or found):
        raise NoEndpoint(
            "no inference that speaks HTTP: start one with `homeostat up` in this folder, or set "
            "HOMEOSTAT_INFERENCE_HTTP_ADDRESS=host:port"
        )
    return str(told or found)


def kafka_address(folder: Path = DEFAULT_FOLDER) -> str:
    """The broker's "host:port"; ``HOMEOSTAT_KAFKA_ADDRESS`` wins. NoEndpoint without either."""
    told = os.environ.get("HOMEOSTAT_KAFKA_ADDRESS") or _stack(folder).get("kafka")
    if not told:
        raise NoEndpoint(
            "no broker to listen to: start one with `homeostat up` in this folder, or set "
            "HOMEOSTAT_KAFKA_ADDRESS=host:port"
        )
    return str(told)


def _of_stack(folder: Path) -> Mapping[str, str]:
    return {name: each["address"] for name, each in _stack(folder).get("services", {}).items()}


def _stack(folder: Path) -> Mapping[str, Any]:
    try:
        found: Mapping[str, Any] = json.loads((folder / "endpoints.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NoEndpoint(f"{folder / 'endpoints.json'} can't be read: {error}") from error
    return found
