"""PostgreSQL: sums of windows, what is kept of judged ones, and truths in waiting."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat_kit.postgres import Connection, queries
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.windows.sums import Counts
from homeostat_monitor.domain.windows.window import Window
from homeostat_monitor.ports import (
    ID_BYTES,
    BlockOfLosses,
    BlockSegments,
    StoredSum,
    Sum,
    SumKey,
)

_SQL = queries("homeostat_monitor")
# Of loss_block.rows: with scores, decisions and truths.
_WITH_SAID = 1


class SumsStore:
    """Its part of the use cases' port."""

    _on: Connection

    async def add_sums(self, sums: Mapping[SumKey, Sum]) -> None:
        """Replaces each total by itself plus these; sums of another layout are given up."""
        if not sums:
            return
        keys = sorted(sums)
        columns = _key_columns(keys)
        stored = {
            SumKey(
                Subject(row["model_name"], row["version"]),
                row["segment"],
                row["window_start_us"],
                row["partition"],
            ): (row["layout"], row["sums"])
            for row in await self._on.fetch(_SQL["read_sums"], *columns)
        }
        await self._on.execute(
            _SQL["replace_sums"],
            *columns,
            [sums[key].end_us for key in keys],
            [sums[key].layout for key in keys],
            [_total(sums[key], stored.get(key)) for key in keys],
        )
        first: dict[str, int] = {}
        for key in keys:
            name, end = key.subject.model_name, sums[key].end_us
            first[name] = min(end, first.get(name, end))
        names = sorted(first)
        await self._raise_due(names, [first[each] for each in names], [None] * len(names))

    async def _raise_due(
        self, names: list[str], windows_us: Sequence[int | None], losses_us: Sequence[int | None]
    ) -> None:
        await self._on.execute(_SQL["raise_due"], names, list(windows_us), list(losses_us))

    async def sums_until(self, subject: Subject, until_us: int) -> list[StoredSum]:
        """Every partition's totals of windows that end by then, by segment and start."""
        rows = await self._on.fetch(
            _SQL["closed_sums"], subject.model_name, subject.version, until_us
        )
        return [
            StoredSum(row["segment"], row["window_start_us"], row["layout"], _counts(row["sums"]))
            for row in rows
        ]

    async def drop_sums(self, subject: Subject, segment: str, before_us: int) -> None:
        await self._on.execute(
            _SQL["drop_sums"], subject.model_name, subject.version, segment, before_us
        )

    # Judged windows

    async def add_history(
        self, subject: Subject, layout: str, windows: Sequence[tuple[str, Window]]
    ) -> None:
        """Judged windows, each with its segment."""
        if not windows:
            return
        await self._on.execute(
            _SQL["add_closed"],
            subject.model_name,
            subject.version,
            layout,
            [segment for segment, _ in windows],
            [each.start_us for _, each in windows],
            [each.end_us for _, each in windows],
            [zlib.compress(each.sums.astype("<i8").tobytes(), 1) for _, each in windows],
        )

    async def history(self, subject: Subject, segment: str, layout: str) -> list[Window]:
        """Judged windows as they are kept, oldest first."""
        rows = await self._on.fetch(
            _SQL["closed_windows"], subject.model_name, subject.version, segment, layout
        )
        return [
            Window(row["start_us"], row["end_us"], _counts(zlib.decompress(row["sums"])))
            for row in rows
        ]

    async def replace_history(
        self, subject: Subject, segment: str, layout: str, windows: Sequence[Window]
    ) -> None:
        """These and no others; those of another layout go too."""
        await self._on.execute(_SQL["drop_closed"], subject.model_name, subject.version, segment)
        await self.add_history(subject, layout, [(segment, each) for each in windows])

    # Rows of segments

    async def add_block_segments(
        self, blocks: Sequence[BlockSegments], forget_after_us: Sequence[int]
    ) -> None:
        """Kept until then, for the truths that are still to come."""
        if not blocks:
            return
        await self._on.execute(
            _SQL["add_block_segments"],
            [each.block_id for each in blocks],
            ["\n".join(each.names) for each in blocks],
            [zlib.compress(np.packbits(each.masks, axis=1).tobytes(), 1) for each in blocks],
            list(forget_after_us),
        )

    async def block_segments(self, block_ids: Sequence[bytes]) -> dict[bytes, BlockSegments]:
        """Those that are remembered. Masks are padded to whole bytes."""
        if not block_ids:
            return {}
        rows = await self._on.fetch(_SQL["block_segments"], list(block_ids))
        return {row["block_id"]: _block_segments(row) for row in rows}

    # Losses

    async def losses_until(self, names: Sequence[str]) -> dict[str, int | None]:
        """Up to which marks the models' losses were judged."""
        rows = await self._on.fetch(_SQL["read_models"], list(names))
        return {row["model_name"]: row["losses_until_us"] for row in rows}

    async def add_losses(self, blocks: Sequence[BlockOfLosses]) -> None:
        """They wait until the watermark has passed them."""
        if not blocks:
            return
        firsts = [int(each.known_at_us.min()) for each in blocks]
        await self._on.execute(
            _SQL["add_losses"],
            [each.subject.model_name for each in blocks],
            [each.subject.version for each in blocks],
            firsts,
            [int(each.known_at_us.max()) for each in blocks],
            [len(each.losses) for each in blocks],
            [_loss_bytes(each) for each in blocks],
        )
        due: dict[str, int] = {}
        for each, first in zip(blocks, firsts, strict=True):
            name = each.subject.model_name
            due[name] = min(first, due.get(name, first))
        names = sorted(due)
        await self._raise_due(names, [None] * len(names), [due[each] for each in names])

    async def losses_before(self, subject: Subject, before_us: int) -> list[BlockOfLosses]:
        rows = await self._on.fetch(
            _SQL["due_losses"], subject.model_name, subject.version, before_us
        )
        return [_losses(subject, row["row_count"], row["rows"], row["form"]) for row in rows]

    async def drop_losses(self, subject: Subject, before_us: int) -> None:
        await self._on.execute(_SQL["drop_losses"], subject.model_name, subject.version, before_us)


def _key_columns(keys: Iterable[SumKey]) -> tuple[list[Any], ...]:
    rows = [(key.subject.model_name, key.subject.version, *key[1:]) for key in keys]
    return tuple(list(column) for column in zip(*rows, strict=True))


def _total(added: Sum, stored: tuple[str, bytes] | None) -> bytes:
    sums = added.sums
    if stored is not None and stored[0] == added.layout:
        sums = sums + _counts(stored[1])
    return sums.astype("<i8").tobytes()


def _counts(data: bytes) -> Counts:
    return np.frombuffer(data, dtype="<i8").astype(np.int64)


def _block_segments(row: Any) -> BlockSegments:
    names = tuple(row["names"].split("\n"))
    bits = np.frombuffer(zlib.decompress(row["bits"]), dtype=np.uint8).reshape(len(names), -1)
    masks: NDArray[np.bool_] = np.unpackbits(bits, axis=1).astype(bool)
    return BlockSegments(row["block_id"], names, masks)


def _loss_bytes(block: BlockOfLosses) -> bytes:
    rows = len(block.losses)
    said = np.full((3, rows), np.nan) if block.said is None else block.said
    return b"".join(
        (
            block.known_at_us.astype("<i8").tobytes(),
            block.event_times_us.astype("<i8").tobytes(),
            block.losses.astype("<f8").tobytes(),
            block.prediction_ids.tobytes(),
            said.astype("<f8").tobytes(),
        )
    )


def _losses(subject: Subject, rows: int, data: bytes, form: int) -> BlockOfLosses:
    ids_end = (24 + ID_BYTES) * rows
    said = None
    if form == _WITH_SAID:
        said = np.frombuffer(data[ids_end:], dtype="<f8", count=3 * rows).reshape(3, rows)
    return BlockOfLosses(
        subject,
        b"",
        np.frombuffer(data, dtype="<i8", count=rows),
        np.frombuffer(data, dtype="<i8", count=rows, offset=8 * rows),
        np.frombuffer(data, dtype="<f8", count=rows, offset=16 * rows),
        np.frombuffer(data, dtype=f"S{ID_BYTES}", count=rows, offset=24 * rows),
        said,
    )
