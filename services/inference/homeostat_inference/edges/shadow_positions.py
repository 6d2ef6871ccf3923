"""How far the shadow process is in each worker's journal: on disk, for its next life and for the
keeper, who must not forget what is still to be read."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from homeostat_inference.edges.journal_reader import Segment
from homeostat_kit.logs import get_logger

# A process that does not come back must not fill the workers' disk: what it has not read after so
# long it would give up anyway.
_HELD_SECONDS = 30.0
log = get_logger("homeostat_inference.shadow")


@dataclass(frozen=True, slots=True)
class Position:
    """In one journal."""

    # Everything before is done.
    floor: int
    # What it had promised by then.
    promised_us: int | None = None


def positions_file(data_folder: Path) -> Path:
    """Where the shadow process keeps them."""
    return data_folder / "shadow" / "positions.json"


def load_positions(file: Path) -> dict[str, Position]:
    """By slot; nothing if the file is absent or damaged."""
    try:
        stored = json.loads(file.read_text())
        return {
            str(slot): Position(int(floor), None if promised is None else int(promised))
            for slot, (floor, promised) in stored.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def save_positions(file: Path, positions: dict[str, Position]) -> None:
    """OSError if the disk fails. Not synced: after a loss of power some blocks are done again,
    under the ids that they had."""
    fresh = file.with_suffix(".new")
    stored = {slot: [each.floor, each.promised_us] for slot, each in positions.items()}
    fresh.write_text(json.dumps(stored))
    fresh.replace(file)


def bounded(position: Position, end: int) -> Position:
    """Where to go on in a journal that ends there: what was read beyond was lost since, and other
    records stand there soon."""
    return Position(min(position.floor, end), position.promised_us)


def bound_positions(file: Path, ends: Mapping[str, int]) -> None:
    """Once, before anybody writes the journals again."""
    known = load_positions(file)
    found = {slot: bounded(each, ends.get(slot, each.floor)) for slot, each in known.items()}
    if found == known:
        return
    log.warning("journals_shorter_than_read", slots=sorted(found))
    try:
        save_positions(file, found)
    except OSError as error:
        log.warning("shadow_positions_not_saved", reason=str(error))


def is_held(segment: Segment, position: Position | None) -> bool:
    """Whether a segment has to wait for the shadow process; only while a model has shadows."""
    if position is None or position.floor >= segment.end:
        return False
    closed_at = segment.closed_at
    return closed_at is None or time.time() - closed_at < _HELD_SECONDS
