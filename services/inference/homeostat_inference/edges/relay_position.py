"""How far a relay is in one life of the broker, kept in a file."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from homeostat_kit.logs import get_logger

Positions = dict[tuple[str, int], int]
log = get_logger("homeostat_inference.relay")


@dataclass(slots=True)
class Sent:
    """How far the relay is in one life of the broker."""

    epoch: str
    # Everything before was acknowledged.
    position: int
    produced: Positions = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path) -> "Sent":
        """As it was saved; of no life where it was not."""
        try:
            state = json.loads(file.read_text())
            produced = {(topic, part): at for topic, part, at in state["produced"]}
            return cls(str(state["epoch"]), int(state["position"]), produced)
        except (OSError, ValueError, KeyError, TypeError):
            # Without a position everything that is retained is sent again.
            return cls("", 0)

    def save(self, file: Path, *, slot: str) -> None:
        """``slot``: whose position it is."""
        state = {
            "epoch": self.epoch,
            "position": self.position,
            "produced": [[topic, part, at] for (topic, part), at in self.produced.items()],
        }
        fresh = file.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(state))
            fresh.replace(file)
        except OSError as error:
            # An older position only means that something is sent again.
            log.warning("relay_position_not_saved", slot=slot, reason=str(error))

    def note_produced(self, topic: str, partition: int, offset: int) -> None:
        """The broker has acknowledged this."""
        key = topic, partition
        self.produced[key] = max(self.produced.get(key, 0), offset + 1)
