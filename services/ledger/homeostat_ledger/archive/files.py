"""Parquet files: durable before anybody names them, and the last ones read kept in memory."""

import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from homeostat_ledger.app.ports import ArchiveFile
from homeostat_ledger.domain.columns import CONTEXT, EVENT_TIME, INPUT, KNOWN_AT, TRUTH

# Below this a file is soon merged, and its encoding is not worth the time.
_SMALL_ROWS = 2_000
# What a table takes beside its values; small ones are mostly that.
_TABLE_BYTES = 20_000
_FEATURES = (EVENT_TIME, KNOWN_AT, TRUTH)


class ParquetArchive:
    """A folder of immutable files. Thread-safe."""

    def __init__(self, folder: Path, *, cache_bytes: int) -> None:
        self._folder = folder
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[str, pa.Table] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, table: pa.Table) -> ArchiveFile:
        """Writes under a name of its own, fsyncs file and folder."""
        name = f"{uuid.uuid4().hex}.parquet"
        path = self._path(name)
        path.parent.mkdir(exist_ok=True)
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            pq.write_table(table, file, **_encoding(table))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        part.rename(path)
        _fsync_folder(path.parent)
        self._keep(name, _features(table))
        return ArchiveFile(name, table.num_rows, size)

    def features(self, name: str) -> pa.Table:
        """Inputs, contexts, times and truth; from memory where the file was used lately."""
        with self._lock:
            table = self._cached.get(name)
            if table is not None:
                self._cached.move_to_end(name)
                return table
        path = self._path(name)
        with pq.ParquetFile(path) as file:
            names = [each for each in file.schema_arrow.names if _is_feature(each)]
            table = file.read(columns=names).unify_dictionaries().combine_chunks()
        self._keep(name, table)
        return table

    def whole(self, name: str) -> pa.Table:
        """All columns."""
        with pq.ParquetFile(self._path(name)) as file:
            return file.read()

    def forget(self, names: Sequence[str]) -> None:
        """Removes the files; none of them needs to be there."""
        for name in names:
            with self._lock:
                table = self._cached.pop(name, None)
                if table is not None:
                    self._cached_bytes -= _size(table)
            self._path(name).unlink(missing_ok=True)

    def clean(self, named: Iterable[str]) -> int:
        """Removes what no transaction names, and says how many files that were."""
        kept = set(named)
        strays = [path for path in self._folder.glob("??/*") if path.name not in kept]
        for path in strays:
            path.unlink(missing_ok=True)
        return len(strays)

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / name

    def _keep(self, name: str, table: pa.Table) -> None:
        with self._lock:
            if name in self._cached:
                return
            self._cached[name] = table
            self._cached_bytes += _size(table)
            while self._cached_bytes > self._cache_bytes and self._cached:
                _, oldest = self._cached.popitem(last=False)
                self._cached_bytes -= _size(oldest)


def _size(table: pa.Table) -> int:
    return int(table.nbytes) + _TABLE_BYTES


def _encoding(table: pa.Table) -> dict[str, object]:
    strings = [field.name for field in table.schema if pa.types.is_dictionary(field.type)]
    encoding: dict[str, object] = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": strings,
        "write_statistics": False,
    }
    if table.num_rows >= _SMALL_ROWS:
        encoding["use_byte_stream_split"] = [
            field.name for field in table.schema if _splits(field.type)
        ]
    return encoding


def _splits(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_float32(kind) or pa.types.is_float64(kind) or kind in (pa.int64(), pa.int32())
    )


def _is_feature(name: str) -> bool:
    return name[:2] in (INPUT, CONTEXT) or name in _FEATURES


def _features(table: pa.Table) -> pa.Table:
    return table.select([name for name in table.column_names if _is_feature(name)])


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
