"""On which machine a figure was measured."""

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from homeostat.advise.forms import usable_cores

_LIBRARIES = ("onnxruntime", "onnx", "treelite", "tl2cgen", "numpy")


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures depend on."""

    processor: str
    usable_cores: int
    memory_bytes: int
    libraries: dict[str, str]

    @property
    def short(self) -> str:
        """Processor and cores."""
        return f"{self.processor}, {self.usable_cores} cores"


def this_machine() -> Machine:
    """As far as the system tells."""
    return Machine(
        _processor(), usable_cores(), _memory_bytes(), {name: _version(name) for name in _LIBRARIES}
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
