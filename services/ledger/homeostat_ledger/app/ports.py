"""What the ledger's use cases need of the world."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from homeostat_ledger.domain.blocks import Block, Keys, Micros, OutcomeBatch, Outcomes, StoredBlock
from homeostat_ledger.domain.counts import Counts
from homeostat_ledger.domain.joins import Joined
from homeostat_ledger.domain.truths import Truths

T = TypeVar("T")
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file that is written, fsynced and under its final name."""

    name: str
    row_count: int
    byte_count: int


@dataclass(frozen=True, slots=True)
class Written:
    """A new file of blocks of one model and layout, in the order of its rows."""

    file: ArchiveFile
    model_name: str
    layout: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Marks:
    """How far the sources have promised, in one life of the broker."""

    epoch: str
    # The state to go on from after a restart.
    text: str
    # What may be promised to subscribers, microseconds UTC: every value that the watermark took,
    # mark by mark, so that subscribers see the same values however the stream was cut into polls.
    rises_us: Sequence[int]


@dataclass(frozen=True, slots=True)
class Intake:
    """One poll's records, readable and within bounds."""

    # Moves the offsets; the store knows how.
    position: Any
    blocks: Sequence[Block]
    outcomes: Sequence[OutcomeBatch]
    # None where nothing was promised anew.
    marks: Marks | None
    traceparent: str | None = None
    # Blocks of this poll that can't be read and are in the dead letters.
    set_aside: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Expired:
    """Truths of one model that are parked no longer."""

    model_name: str
    rows: Outcomes


@dataclass(frozen=True, slots=True)
class MergeCandidate:
    """A file small enough to be merged."""

    file_id: int
    model_id: int
    layout: str
    name: str
    row_count: int


@dataclass(frozen=True, slots=True)
class Question:
    """Which rows a data set is of. Times in microseconds UTC."""

    model_name: str
    known_at_most_us: int
    event_from_us: int
    event_before_us: int
    newest_rows: int | None
    arms: Sequence[int]


@dataclass(frozen=True, slots=True)
class Answered:
    """Truths that held at the cut, and where their rows lie."""

    # Known at: since when the value holds.
    truths: Truths
    first_known_at_us: Micros
    event_times_us: Micros
    part_ids: Numbers
    part_rows: Numbers


@dataclass(frozen=True, slots=True)
class PartPlace:
    """Where a part lies now."""

    file_name: str
    first_row: int


@dataclass(frozen=True, slots=True)
class HistoryBlock:
    """Rows of history, whose truth lies beside them."""

    part_id: int
    part_row: int
    row_count: int


class Archive(Protocol):
    """The Parquet files. Slow: call from a thread."""

    def write(self, table: pa.Table) -> ArchiveFile:
        """Durable when it returns; no transaction knows of it yet."""
        ...

    def features(self, name: str) -> pa.Table:
        """What was asked and known of a file's rows; FileNotFoundError when it was merged away."""
        ...

    def whole(self, name: str) -> pa.Table:
        """All columns of a file; FileNotFoundError when it was merged away."""
        ...

    def forget(self, names: Sequence[str]) -> None:
        """Removes files that nothing names any longer."""
        ...


class Memory(Protocol):
    """The index within one transaction."""

    async def advance(self, position: Any) -> None:
        """Moves the consumer's offsets; raises if somebody else did."""
        ...

    async def number(self, written: Sequence[Written]) -> list[StoredBlock]:
        """Numbers for all blocks of new files, in order; nothing is stored yet."""
        ...

    async def add_blocks(self, written: Sequence[Written], stored: Sequence[StoredBlock]) -> None:
        """Stores files, parts and blocks, and the rows under clients' ids."""
        ...

    async def waiting_for(
        self, model_name: str, blocks: Sequence[StoredBlock]
    ) -> tuple[Truths, int]:
        """Truths that came before these new blocks: parked, or joined to an earlier prediction
        under the same client id, or to the rows that a shadow repeats. And how many are parked no
        longer."""
        ...

    async def unseen_outcomes(self, block_ids: Sequence[bytes]) -> set[bytes]:
        """Those taken in for the first time; they are remembered as seen."""
        ...

    async def source_id(self, source: str) -> int:
        """A small number for who said it."""
        ...

    async def rows_of_clients(self, model_name: str, keys: Keys) -> tuple[Numbers, ...]:
        """Place in ``keys``, block and row of every prediction under them."""
        ...

    async def rows_of_blocks(
        self, model_name: str, block_ids: Sequence[bytes]
    ) -> Mapping[bytes, tuple[int, int]]:
        """Number and row count of those that are the model's."""
        ...

    async def shadows_of_blocks(
        self, model_name: str, block_ids: Sequence[bytes]
    ) -> Sequence[tuple[bytes, int, int]]:
        """Origin, number and row count of the model's blocks that repeat the rows of these."""
        ...

    async def set_aside(self, block_ids: Sequence[bytes]) -> None:
        """Remembers blocks that will never be archived."""
        ...

    async def truths_of(self, blocks: Numbers, rows: Numbers) -> Truths:
        """All truths so far of these predictions."""
        ...

    async def blocks(self, numbers: Sequence[int]) -> Mapping[int, StoredBlock]:
        """What joining needs of these blocks."""
        ...

    async def remember(
        self, model_name: str, truths: Truths, blocks: Mapping[int, StoredBlock]
    ) -> None:
        """Adds truths to the history."""
        ...

    async def park(self, model_name: str, outcomes: Outcomes) -> None:
        """Keeps truths until their prediction comes or their time is over."""
        ...

    async def publish(self, joined: Sequence[Joined], traceparent: str | None) -> None:
        """Into the outbox, in order."""
        ...

    async def count(self, model_name: str, counts: Counts) -> None:
        """Adds to what is counted."""
        ...

    async def mark(self, marks: Marks) -> None:
        """Stores the marks, and forwards the watermark if it rose."""
        ...

    async def expire(self, before_us: int) -> Sequence[Expired]:
        """Takes parked truths known before away, some thousands at once."""
        ...

    async def add_history(self, model_name: str, history_id: str, rows: int) -> bool:
        """False if it is there already."""
        ...


class Index(Protocol):
    """What stands in the database."""

    async def known_blocks(self, block_ids: Sequence[bytes]) -> set[bytes]:
        """Those of the blocks that are archived."""
        ...

    async def change(self, work: Callable[[Memory], Awaitable[T]]) -> T:
        """All of ``work`` or nothing; it may run more than once."""
        ...

    async def has_history(self, model_name: str, history_id: str) -> bool:
        """Whether it was imported."""
        ...

    async def answer(self, question: Question) -> Answered:
        """Truths that held at the cut; more than asked for where the last are known at one time."""
        ...

    async def history_blocks(self, model_name: str) -> Sequence[HistoryBlock]:
        """Of the model; UnknownModel."""
        ...

    async def parts(self, part_ids: Sequence[int]) -> Mapping[int, PartPlace]:
        """Where each of these parts lies now."""
        ...

    async def merge_candidates(self, below_rows: int) -> Sequence[MergeCandidate]:
        """Files with fewer rows, by model, layout and age."""
        ...

    async def replace_files(self, old: Sequence[MergeCandidate], new: ArchiveFile) -> None:
        """Moves the parts of ``old``, in order, into ``new``."""
        ...
