"""Looking predictions up: what was asked, what was answered, what turned out to be true."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from homeostat_ledger.app.ports import Archive, PartPlace
from homeostat_ledger.domain.blocks import StoredBlock
from homeostat_ledger.domain.columns import CONTEXT, INPUT
from homeostat_ledger.domain.errors import UnknownPrediction

Value = float | str | None


@dataclass(frozen=True, slots=True)
class Told:
    """One truth of a prediction."""

    truth: float
    known_at_us: int
    revision: int
    source: str


@dataclass(frozen=True, slots=True)
class Found:
    """A prediction in the index."""

    model_name: str
    block: StoredBlock
    row: int
    # Oldest first; the last holds.
    told: Sequence[Told]


@dataclass(frozen=True, slots=True)
class LookedUp:
    """A prediction with its features."""

    found: Found
    inputs: Sequence[tuple[str, Value]]
    contexts: Sequence[tuple[str, Value]]


class Finder(Protocol):
    """The index, as far as single predictions go."""

    async def by_prediction(self, block_id: bytes, row: int) -> Sequence[Found]:
        """One or none."""
        ...

    async def by_client(self, model_name: str, key: bytes) -> Sequence[Found]:
        """All under the key, oldest first."""
        ...

    async def place(self, part_id: int) -> PartPlace:
        """Where the part lies now."""
        ...


async def look_up_prediction(
    block_id: bytes, row: int, *, finder: Finder, archive: Archive
) -> list[LookedUp]:
    """UnknownPrediction if it is not archived (yet)."""
    found = await finder.by_prediction(block_id, row)
    if not found:
        raise UnknownPrediction(
            f"no prediction {block_id.hex()}-{row} in the archive; one that was just answered "
            "arrives within a second"
        )
    return await _with_features(found, finder, archive)


async def look_up_client(
    model_name: str, key: bytes, *, finder: Finder, archive: Archive
) -> list[LookedUp]:
    """UnknownPrediction if there is none under the client's id."""
    found = await finder.by_client(model_name, key)
    if not found:
        raise UnknownPrediction(f"model {model_name!r} has no prediction under that client id")
    return await _with_features(found, finder, archive)


async def _with_features(
    found: Sequence[Found], finder: Finder, archive: Archive
) -> list[LookedUp]:
    looked_up = []
    for each in found:
        features = await _row(each, finder, archive)
        looked_up.append(LookedUp(each, _named(features, INPUT), _named(features, CONTEXT)))
    return looked_up


async def _row(found: Found, finder: Finder, archive: Archive) -> pa.Table:
    while True:
        place = await finder.place(found.block.part_id)
        try:
            table = await asyncio.to_thread(archive.features, place.file_name)
        except FileNotFoundError:
            # Merged away meanwhile: the part lies elsewhere now.
            if await finder.place(found.block.part_id) == place:
                raise
            continue
        return table.slice(place.first_row + found.block.part_row + found.row, 1)


def _named(row: pa.Table, prefix: str) -> list[tuple[str, Value]]:
    named: list[tuple[str, Value]] = []
    for name in row.column_names:
        if name[:2] == prefix:
            value = row[name][0].as_py()
            plain = name[2:]
            if isinstance(value, list):
                named += [(f"{plain}[{at}]", _value(each)) for at, each in enumerate(value)]
            else:
                named.append((plain, _value(value)))
    return named


def _value(value: object) -> Value:
    if value is None or isinstance(value, str):
        return value
    return float(value)  # type: ignore[arg-type]
