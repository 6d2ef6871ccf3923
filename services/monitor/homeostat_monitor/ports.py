"""What the use cases need from the world."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.alerts.alert import Alert, Subject
from homeostat_monitor.domain.losses.truths import Task
from homeostat_monitor.domain.policies.policy import DEFAULT, Policy
from homeostat_monitor.domain.profile import VersionProfile
from homeostat_monitor.domain.windows.reference import Holdout
from homeostat_monitor.domain.windows.sums import Counts
from homeostat_monitor.domain.windows.window import Window

ID_BYTES = 20
BLOCK_ID_BYTES = 16


class SumKey(NamedTuple):
    """Which total: replaced whole, never added to in place."""

    subject: Subject
    # "": all rows.
    segment: str
    window_start_us: int
    partition: int


class Sum(NamedTuple):
    """A total: until when its rows are, what the numbers mean, and the numbers."""

    end_us: int
    layout: str
    sums: Counts


class StoredSum(NamedTuple):
    """One partition's total of a closed window."""

    segment: str
    start_us: int
    layout: str
    sums: Counts


class StateKey(NamedTuple):
    """Whose state, within a version."""

    segment: str
    name: str


class BlockSegments(NamedTuple):
    """Which of a block's rows belong to which segments."""

    block_id: bytes
    names: tuple[str, ...]
    # One row per segment, one column per row of the block.
    masks: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a version has been judged."""

    subject: Subject
    is_watched: bool = True
    closed_until_us: int | None = None
    judge_from_us: int | None = None
    windows_judged: int = 0
    # The mark at which the first window was judged.
    first_judged_us: int | None = None
    window_us: int | None = None
    accepted: Mapping[str, float] = field(default_factory=dict)
    # When it took over, as far as is remembered.
    serving_since_us: int | None = None


@dataclass(frozen=True, slots=True)
class ModelStanding:
    """A model's champion and up to which marks it has been judged."""

    model_name: str
    champion_version: int | None
    revision: int
    windows_until_us: int | None
    losses_until_us: int | None


@dataclass(frozen=True, slots=True)
class BlockOfLosses:
    """First truths of one version, as one event told them."""

    subject: Subject
    event_id: bytes
    known_at_us: NDArray[np.int64]
    event_times_us: NDArray[np.int64]
    losses: NDArray[np.float64]
    # 20 bytes each.
    prediction_ids: NDArray[np.bytes_]
    # Scores, decisions and truths, shape [3, rows]; None: stored before they were kept.
    said: NDArray[np.float64] | None = None

    def after(self, until_us: int | None) -> "BlockOfLosses":
        """Only what became known at or after that time."""
        if until_us is None or not (self.known_at_us < until_us).any():
            return self
        return self.only(self.known_at_us >= until_us)

    def only(self, keep: NDArray[np.bool_]) -> "BlockOfLosses":
        """Only those rows."""
        return BlockOfLosses(
            self.subject,
            self.event_id,
            self.known_at_us[keep],
            self.event_times_us[keep],
            self.losses[keep],
            self.prediction_ids[keep],
            None if self.said is None else self.said[:, keep],
        )


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """What the registry says of a version, and its model's policy."""

    subject: Subject
    task: Task
    # None: there is no usable reference.
    profile: VersionProfile | None
    remarks: tuple[str, ...] = ()
    policy: Policy = DEFAULT

    @property
    def is_classification(self) -> bool:
        return self.task is not Task.REGRESSION

    def holdout_of(self, segment: str) -> Holdout | None:
        """The hold-out, or a segment's part of it; None where it is not known, or too small."""
        if self.profile is None:
            return None
        return self.profile.segment_holdouts.get(segment) if segment else self.profile.holdout


class Transaction(Protocol):
    """State, offsets and events of one transaction."""

    async def add_models(self, names: Sequence[str]) -> None: ...
    async def share_models(self, names: Sequence[str]) -> None: ...
    async def lock_model(self, name: str) -> ModelStanding: ...
    async def save_model(self, model: ModelStanding) -> None: ...
    async def raise_revision(self, model_name: str, revision: int) -> None: ...
    async def promote(self, model_name: str, version: int, revision: int, at_us: int) -> None:
        """Watches this version only; the others' sums, losses and states are dropped."""
        ...

    async def standing(self, subject: Subject) -> Standing: ...
    async def standings(self, subjects: Sequence[Subject]) -> dict[Subject, Standing]: ...
    async def watched(self, model_name: str) -> list[Standing]: ...
    async def save_standing(self, standing: Standing) -> None: ...

    async def hear(self, event_ids: Sequence[bytes], forget_after_us: Sequence[int]) -> list[bytes]:
        """Those that were not heard before, each once."""
        ...

    async def current_us(self, topic: str) -> int | None:
        """The topic's watermark."""
        ...

    async def add_sums(self, sums: Mapping[SumKey, Sum]) -> None:
        """Replaces each total by itself plus these; sums of another layout are given up."""
        ...

    async def sums_until(self, subject: Subject, until_us: int) -> list[StoredSum]:
        """Every partition's totals of windows that end by then, by segment and start."""
        ...

    async def drop_sums(self, subject: Subject, segment: str, before_us: int) -> None: ...
    async def add_history(
        self, subject: Subject, layout: str, windows: Sequence[tuple[str, Window]]
    ) -> None:
        """Judged windows, each with its segment."""
        ...

    async def history(self, subject: Subject, segment: str, layout: str) -> list[Window]:
        """Judged windows as they are kept, oldest first."""
        ...

    async def replace_history(
        self, subject: Subject, segment: str, layout: str, windows: Sequence[Window]
    ) -> None: ...
    async def add_block_segments(
        self, blocks: Sequence[BlockSegments], forget_after_us: Sequence[int]
    ) -> None: ...
    async def block_segments(self, block_ids: Sequence[bytes]) -> dict[bytes, BlockSegments]: ...
    async def losses_until(self, names: Sequence[str]) -> dict[str, int | None]:
        """Up to which marks the models' losses were judged."""
        ...

    async def add_losses(self, blocks: Sequence[BlockOfLosses]) -> None: ...
    async def losses_before(self, subject: Subject, before_us: int) -> list[BlockOfLosses]: ...
    async def drop_losses(self, subject: Subject, before_us: int) -> None: ...
    async def due_marks(self, model: ModelStanding, *, most: int) -> tuple[list[int], list[int]]:
        """Marks at which windows, and marks at which losses are to be judged, in order."""
        ...

    async def settle_due(
        self, model: ModelStanding, next_window_us: int | None, next_loss_us: int | None
    ) -> None:
        """What waits for later marks is due then, and perhaps a further look."""
        ...

    async def state_revisions(self, subject: Subject) -> dict[StateKey, int]: ...
    async def read_state(self, subject: Subject, key: StateKey) -> tuple[bytes, int] | None: ...
    async def save_states(
        self, subject: Subject, states: Mapping[StateKey, bytes]
    ) -> dict[StateKey, int]:
        """Their new revisions."""
        ...

    async def want_rebuild(self, subject: Subject, key: StateKey) -> None:
        """The ledger's past is to rebuild it."""
        ...

    async def open_alerts(self, subject: Subject) -> list[Alert]: ...
    async def input_alerts_at(self, subject: Subject, watermark_us: int) -> list[Alert]: ...
    async def open_alerts_of_others(self, model_name: str, version: int) -> list[Alert]: ...
    async def save_alerts(self, alerts: Sequence[Alert]) -> None:
        """Stores the state; says nothing."""
        ...

    async def tell(self, alerts: Sequence[Alert]) -> None:
        """Puts the alerts into the outbox, one event each."""
        ...

    async def tally(self, subject: Subject, counts: Mapping[str, int]) -> None: ...
    async def tally_many(self, counts: Mapping[Subject, Mapping[str, int]]) -> None: ...
    async def remark(self, subject: Subject, texts: Sequence[str]) -> None: ...
