"""What is tried: other forms of the file, and other ways to run it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Form(StrEnum):
    """How the file is changed."""

    ORIGINAL = "original"
    INT8_STATIC = "int8-static"
    INT8_BY_ROW = "int8-by-row"
    INT8_DYNAMIC = "int8-dynamic"
    FLOAT16 = "float16"
    COMPILED = "compiled"


class Level(StrEnum):
    """onnxruntime's graph optimisation when the file is loaded."""

    OFF = "off"
    BASIC = "basic"
    EXTENDED = "extended"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing to try. The server runs every file on one thread with all optimisations."""

    name: str
    what: str
    form: Form = Form.ORIGINAL
    level: Level = Level.ALL
    threads: int = 1

    @property
    def is_present(self) -> bool:
        """What serves now: the measure of all others."""
        return self == PRESENT

    @property
    def is_file(self) -> bool:
        """Another ONNX file, so something that the registry can be given."""
        return self.form not in (Form.ORIGINAL, Form.COMPILED)


PRESENT = Variant("present", "as it serves now: one thread, all graph optimisations")
_FORMS = (
    Variant(
        Form.INT8_STATIC,
        "8-bit weights and activations, ranges calibrated on the oldest of the rows",
        form=Form.INT8_STATIC,
    ),
    Variant(
        Form.INT8_BY_ROW,
        "8-bit weights and activations, each row with a range of its own",
        form=Form.INT8_BY_ROW,
    ),
    Variant(
        Form.INT8_DYNAMIC,
        "8-bit weights and activations, one range per run",
        form=Form.INT8_DYNAMIC,
    ),
    Variant(Form.FLOAT16, "16-bit floats inside, the same inputs and outputs", form=Form.FLOAT16),
    Variant(Form.COMPILED, "the trees as C, compiled to a shared library", form=Form.COMPILED),
)


def variants(cores: int) -> Sequence[Variant]:
    """All that is tried on a machine with so many cores, the present first."""
    levels = [
        Variant(f"graph-{level}", f"graph optimisations: {level}", level=level)
        for level in (Level.OFF, Level.BASIC, Level.EXTENDED)
    ]
    threads = [
        Variant(f"threads-{count}", f"{count} threads inside one run", threads=count)
        for count in _thread_counts(cores)
    ]
    return [PRESENT, *_FORMS, *threads, *levels]


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _thread_counts(cores: int) -> list[int]:
    """2, 4, 8 … and all of them."""
    doubled = [2**power for power in range(1, 10) if 2**power < cores]
    return [*doubled, cores] if cores > 1 else []
