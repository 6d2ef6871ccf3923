"""What every peer's script does: read episodes, time the peer, write its alarms as JSON lines."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

# Rows per look: what the peers' documentation and most users take.
WINDOW_ROWS = 1000

# From a window of rows to which of the peer's rules alarm.
Look = Callable[[pd.DataFrame], dict[str, bool]]
# From the reference and the columns to a look.
Fit = Callable[[pd.DataFrame, list[str], list[str]], Look]


def run(fit: Fit) -> None:
    """Reads folders from the standard input; one line per episode with the alarms of each rule
    (row of the last event that was needed) and the seconds that fitting and looking took."""
    for line in sys.stdin:
        folder = Path(line.strip())
        print(json.dumps({"folder": folder.name, **_episode(fit, folder)}), flush=True)


def _episode(fit: Fit, folder: Path) -> dict[str, Any]:
    info = json.loads((folder / "info.json").read_text())
    reference = pd.read_parquet(folder / "reference.parquet")
    stream = pd.read_parquet(folder / "stream.parquet")
    began = time.perf_counter()
    look = fit(reference, info["numbers"], info["categories"])
    fitted = time.perf_counter()
    alarms: dict[str, list[int]] = {}
    for last, window in _windows(stream):
        for rule, is_alarm in look(window).items():
            alarms.setdefault(rule, []).extend([last] * is_alarm)
    return {
        "alarms": alarms,
        "fit_seconds": fitted - began,
        "look_seconds": time.perf_counter() - fitted,
    }


def _windows(stream: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    for end in range(WINDOW_ROWS, len(stream) + 1, WINDOW_ROWS):
        yield end - 1, stream.iloc[end - WINDOW_ROWS : end].reset_index(drop=True)
