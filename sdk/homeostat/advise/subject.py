"""What is measured: a model file with its signature, and rows to run it on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat.errors import HomeostatError
from homeostat.model_file import feeds
from homeostat.registry.v1.registry_pb2 import Signature

Arrays = Mapping[str, NDArray[Any]]

# Of the rows taken, so many (the oldest) calibrate quantisers; the others judge and time them.
_CALIBRATION_SHARE = 0.2
_MOST_CALIBRATION_ROWS = 1000


class CannotAdvise(HomeostatError):
    """There is nothing to measure, or nothing to measure it with; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A model as it serves now."""

    model_name: str
    version: int
    content: bytes
    signature: Signature

    @property
    def sha256(self) -> str:
        """Of the file, hex."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the model's own arrays, parted so that no form is judged on what calibrated it."""

    calibration: Arrays
    judged: Arrays
    # sha256 of the judged rows.
    sha256: str
    # Where they come from, in words.
    source: str

    @property
    def count(self) -> int:
        """Rows that judge."""
        return len(next(iter(self.judged.values())))

    @property
    def calibration_count(self) -> int:
        """Rows that calibrate."""
        return len(next(iter(self.calibration.values())))


def rows_of(table: pa.Table, signature: Signature, source: str) -> Rows:
    """The rows of ``table`` (columns by input name, oldest first); CannotAdvise where there are
    fewer than two, or an input is no column."""
    missing = [each.name for each in signature.inputs if each.name not in table.column_names]
    if missing:
        raise CannotAdvise(f"the rows lack the model's inputs {', '.join(missing)}")
    if table.num_rows < 2:
        raise CannotAdvise(
            f"{source}: {table.num_rows} rows are too few to measure with; send predictions and "
            "their truth first, or push the model with its history"
        )
    arrays = feeds(table, signature)
    cut = max(1, min(_MOST_CALIBRATION_ROWS, int(table.num_rows * _CALIBRATION_SHARE)))
    judged = {name: values[cut:] for name, values in arrays.items()}
    return Rows(
        {name: values[:cut] for name, values in arrays.items()}, judged, _digest(judged), source
    )


def _digest(arrays: Arrays) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name]
        digest.update(f"{name}\x1f{values.shape}\x1f".encode())
        if values.dtype == object:
            for text in values.reshape(-1):
                encoded = str(text).encode()
                digest.update(len(encoded).to_bytes(4, "little") + encoded)
        else:
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
