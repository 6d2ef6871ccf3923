"""What the ledger counts per model."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """Changes of one transaction, or totals. Shadow rows repeat champion rows: they are joined and
    sent on, but neither counted as predictions and joins nor summed into the checksum."""

    predictions: int = 0
    blocks: int = 0
    history_rows: int = 0
    outcomes_received: int = 0
    predictions_joined: int = 0
    outcomes_parked: int = 0
    outcomes_dead_lettered: int = 0
    outcomes_repeated: int = 0
    corrections: int = 0
    duplicate_blocks: int = 0
    # Modulo 2^64.
    joined_checksum: int = 0
