"""New truths counted up to the watermark: blocks wait until every earlier one must have come."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class Waiting:
    """Rows of blocks whose truths are not all below the watermark yet, per model.

    A block read again (a new life of the broker repeats blocks) counts once: what lies wholly below
    the watermark was counted, and what waits is forgotten with the life of the broker it came from.
    """

    epoch: str = ""
    # model -> greatest known-at of a block -> rows
    rows: dict[str, dict[int, int]] = field(default_factory=dict)

    def enter(self, epoch: str) -> None:
        """From here on blocks come from that life of the broker."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.rows.clear()

    def add(self, model_name: str, known_to_us: int, rows: int, watermark_us: int | None) -> None:
        """One block's rows with a first truth."""
        if not rows or (watermark_us is not None and known_to_us < watermark_us):
            return
        waiting = self.rows.setdefault(model_name, {})
        waiting[known_to_us] = waiting.get(known_to_us, 0) + rows

    def release(self, watermark_us: int) -> dict[str, int]:
        """Rows per model that are known before the mark; they wait no longer."""
        released: dict[str, int] = {}
        for model_name, waiting in self.rows.items():
            known = [at_us for at_us in waiting if at_us < watermark_us]
            count = sum(waiting.pop(at_us) for at_us in known)
            if count:
                released[model_name] = count
        return released

    def to_plain(self) -> dict[str, Any]:
        """For JSON; ``from_plain`` gives it back."""
        rows = {name: list(waiting.items()) for name, waiting in self.rows.items() if waiting}
        return {"epoch": self.epoch, "rows": rows}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """What ``to_plain`` gave."""
        return cls(plain["epoch"], {name: dict(pairs) for name, pairs in plain["rows"].items()})
