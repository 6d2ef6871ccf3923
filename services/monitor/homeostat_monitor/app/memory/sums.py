"""In memory: sums of windows, what is kept of judged ones, and truths in waiting."""

from collections.abc import Mapping, Sequence

from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.windows.sums import Counts
from homeostat_monitor.domain.windows.window import Window
from homeostat_monitor.ports import (
    BlockOfLosses,
    BlockSegments,
    ModelStanding,
    StoredSum,
    Sum,
    SumKey,
)


class MemorySums:
    """Its part of the use cases' port."""

    def __init__(self) -> None:
        self._sums: dict[SumKey, Sum] = {}
        # By version and segment: per start until when, the layout, and the sums.
        self._history: dict[tuple[Subject, str], dict[int, tuple[int, str, Counts]]] = {}
        self._rows: dict[bytes, BlockSegments] = {}
        self._losses: dict[Subject, list[BlockOfLosses]] = {}
        # Per model its first sum's end and its first loss's known-at time.
        self._due: dict[str, tuple[int | None, int | None]] = {}

    async def settle_due(
        self, model: ModelStanding, next_window_us: int | None, next_loss_us: int | None
    ) -> None:
        """What waits for later marks is due then, and perhaps a further look."""
        name, until = model.model_name, model.windows_until_us
        ends = [each.end_us for key, each in self._sums.items() if key.subject.model_name == name]
        windows = [each for each in ends if until is None or each > until]
        losses = [
            int(each.known_at_us.min())
            for subject, blocks in self._losses.items()
            if subject.model_name == name
            for each in blocks
        ]
        first_loss = latest(model.losses_until_us, min(losses)) if losses else None
        self._due[name] = (
            _least(next_window_us, min(windows, default=None)),
            _least(next_loss_us, first_loss),
        )

    def _raise_due(self, name: str, windows_us: int | None, losses_us: int | None) -> None:
        before = self._due.get(name, (None, None))
        self._due[name] = (_least(before[0], windows_us), _least(before[1], losses_us))

    async def add_sums(self, sums: Mapping[SumKey, Sum]) -> None:
        """Replaces each total by itself plus these; sums of another layout are given up."""
        for key, each in sums.items():
            before = self._sums.get(key)
            total = each
            if before is not None:
                same = before.layout == each.layout
                total = Sum(
                    before.end_us, each.layout, before.sums + each.sums if same else each.sums
                )
            self._sums[key] = total
            self._raise_due(key.subject.model_name, each.end_us, None)

    async def sums_until(self, subject: Subject, until_us: int) -> list[StoredSum]:
        """Every partition's totals of windows that end by then, by segment and start."""
        found = sorted(
            key
            for key, each in self._sums.items()
            if key.subject == subject and each.end_us <= until_us
        )
        return [
            StoredSum(
                key.segment, key.window_start_us, self._sums[key].layout, self._sums[key].sums
            )
            for key in found
        ]

    async def drop_sums(self, subject: Subject, segment: str, before_us: int) -> None:
        gone = [
            key
            for key in self._sums
            if key.subject == subject and key.segment == segment and key.window_start_us < before_us
        ]
        for key in gone:
            del self._sums[key]

    async def add_history(
        self, subject: Subject, layout: str, windows: Sequence[tuple[str, Window]]
    ) -> None:
        """Judged windows, each with its segment."""
        for segment, each in windows:
            kept = self._history.setdefault((subject, segment), {})
            kept[each.start_us] = (each.end_us, layout, each.sums)

    async def history(self, subject: Subject, segment: str, layout: str) -> list[Window]:
        """Judged windows as they are kept, oldest first."""
        kept = self._history.get((subject, segment), {})
        return [
            Window(start, end, sums)
            for start, (end, its_layout, sums) in sorted(kept.items(), key=lambda each: each[0])
            if its_layout == layout
        ]

    async def replace_history(
        self, subject: Subject, segment: str, layout: str, windows: Sequence[Window]
    ) -> None:
        """These and no others; those of another layout go too."""
        self._history.pop((subject, segment), None)
        await self.add_history(subject, layout, [(segment, each) for each in windows])

    # Truths

    async def add_block_segments(
        self, blocks: Sequence[BlockSegments], forget_after_us: Sequence[int]
    ) -> None:
        for each in blocks:
            self._rows.setdefault(each.block_id, each)

    async def block_segments(self, block_ids: Sequence[bytes]) -> dict[bytes, BlockSegments]:
        return {each: self._rows[each] for each in block_ids if each in self._rows}

    async def add_losses(self, blocks: Sequence[BlockOfLosses]) -> None:
        """They wait until the watermark has passed them."""
        for each in blocks:
            self._losses.setdefault(each.subject, []).append(each)
            self._raise_due(each.subject.model_name, None, int(each.known_at_us.min()))

    async def losses_before(self, subject: Subject, before_us: int) -> list[BlockOfLosses]:
        waiting = self._losses.get(subject, [])
        return [each for each in waiting if int(each.known_at_us.min()) < before_us]

    async def drop_losses(self, subject: Subject, before_us: int) -> None:
        waiting = self._losses.pop(subject, [])
        left = [each for each in waiting if int(each.known_at_us.max()) >= before_us]
        if left:
            self._losses[subject] = left

    def _forget_others(self, model_name: str, chosen: Subject) -> None:
        """Drops sums and losses of the model's other versions."""
        for key in [each for each in self._sums if _is_other(each.subject, model_name, chosen)]:
            del self._sums[key]
        for each in [each for each in self._losses if _is_other(each, model_name, chosen)]:
            del self._losses[each]

    def _forget_history(self, subject: Subject) -> None:
        for key in [each for each in self._history if each[0] == subject]:
            del self._history[key]


def _is_other(subject: Subject, model_name: str, chosen: Subject) -> bool:
    return subject.model_name == model_name and subject != chosen


def latest(first: int | None, second: int) -> int:
    """The later one."""
    return second if first is None else max(first, second)


def _least(first: int | None, second: int | None) -> int | None:
    known = [each for each in (first, second) if each is not None]
    return min(known, default=None)
