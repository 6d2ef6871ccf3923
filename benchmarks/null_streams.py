"""How often the monitor's i.i.d. mode alarms where nothing happens, against the signed budget.

Streams of several kinds, each with a reference of its own drawn from the same distribution; a false
alarm is counted once per 1,000 rows. Prints JSON and a table: measured rate with its exact 95 %
interval (Garwood's, of a Poisson count), beside detectors that know nothing. `make bench-null`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))

from referee.iid import EVENTS, PANE_ROWS, SIGNED, Iid
from referee_adapter import Always, Never, Random

Matrix = NDArray[np.float64]
Rng = np.random.Generator

BATCH = 100
# An alarm that goes on is one alarm.
COOL = 1000


def normal(rng: Rng, rows: int, world: int) -> tuple[Matrix, int]:
    """Eight normal numbers."""
    return rng.normal(size=(rows, 8)), 8


def heavy(rng: Rng, rows: int, world: int) -> tuple[Matrix, int]:
    """Tails without a mean, without a variance, and log-normal ones."""
    tails = [rng.standard_t(each, rows) for each in (1, 2, 3)]
    skewed = [np.exp(spread * rng.normal(size=rows)) for spread in (1.0, 2.0, 3.0)]
    return np.stack([*tails, *skewed], axis=1), 6


def integers(rng: Rng, rows: int, world: int) -> tuple[Matrix, int]:
    """Counts, mostly zeros, two values, nearly constant, mostly null."""
    columns = [
        rng.poisson(3, rows),
        rng.poisson(0.05, rows),
        rng.integers(0, 2, rows),
        rng.random(rows) < 1e-3,
        np.where(rng.random(rows) < 0.98, np.nan, rng.normal(size=rows)),
        np.where(rng.random(rows) < 0.3, np.nan, rng.integers(0, 24, rows)),
        rng.geometric(0.3, rows),
    ]
    return np.stack([np.asarray(each, dtype=np.float64) for each in columns], axis=1), 7


def categories(rng: Rng, rows: int, world: int) -> tuple[Matrix, int]:
    """Texts of 3, 100, 100 with a long tail, 1,000 and ever new kinds; one number."""
    tail = np.minimum(rng.zipf(1.3, rows), 100_000)
    ever_new = np.where(rng.random(rows) < 0.02, rng.integers(0, 2**30, rows), 0)
    columns = [
        rng.normal(size=rows),
        rng.integers(0, 3, rows),
        rng.integers(0, 100, rows),
        np.minimum(rng.zipf(1.6, rows), 100),
        rng.integers(0, 1000, rows),
        tail,
        ever_new,
    ]
    return np.stack([np.asarray(each, dtype=np.float64) for each in columns], axis=1), 1


def correlated(rng: Rng, rows: int, world: int) -> tuple[Matrix, int]:
    """Eight numbers of two factors, a number that repeats another, texts that follow them."""
    mixing = np.random.default_rng(world).normal(size=(2, 8))
    factors = rng.normal(size=(rows, 2))
    numbers = factors @ mixing + 0.3 * rng.normal(size=(rows, 8))
    texts = np.floor(4 * stats.norm.cdf(factors)) + 0.0
    many = np.floor(60 * stats.norm.cdf(numbers[:, :1] / numbers[:, :1].std()))
    return np.hstack([numbers, numbers[:, :1] ** 3, texts, many]), 9


# Name -> how rows are drawn, rows of the reference.
KINDS: dict[str, tuple[Callable[[Rng, int, int], tuple[Matrix, int]], int]] = {
    "normal": (normal, 5000),
    "heavy tails": (heavy, 5000),
    "integers and nulls": (integers, 5000),
    "categories": (categories, 5000),
    "correlated": (correlated, 5000),
    "normal, small reference": (normal, 1000),
    "integers, small reference": (integers, 800),
    "categories, small reference": (categories, 1000),
    "correlated, small reference": (correlated, 1000),
    "heavy tails, large reference": (heavy, 30_000),
}


def encoded(rows: Matrix, reference: int, numbers: int) -> Matrix:
    """Texts as places among the reference's, -2 for those it never had."""
    found = rows.copy()
    for column in range(numbers, rows.shape[1]):
        known = np.unique(rows[:reference, column])
        places = np.minimum(np.searchsorted(known, rows[:, column]), len(known) - 1)
        found[:, column] = np.where(known[places] == rows[:, column], places, -2)
    return found


def false_alarms(detector: Any, rows: Matrix) -> int:
    """Alarms of a stream where nothing happens, one per COOL rows."""
    alarms, last = 0, -COOL
    for start in range(0, len(rows), BATCH):
        for offset in detector.update(rows[start : start + BATCH], None, None):
            if start + offset - last >= COOL:
                alarms, last = alarms + 1, start + offset
    return alarms


def run(kind: str, seed: int, rows: int, makers: dict[str, Callable[[], Any]]) -> dict[str, int]:
    """False alarms of each detector on one stream."""
    draw, size = KINDS[kind]
    rng = np.random.default_rng([seed, len(kind)])
    drawn, numbers = draw(rng, size + rows, seed)
    matrix = encoded(drawn, size, numbers)
    names = [f"x{each}" for each in range(matrix.shape[1])]
    found = {}
    for name, make in makers.items():
        detector = make()
        detector.fit(matrix[:size], None, names[:numbers], names[numbers:], None)
        found[name] = false_alarms(detector, matrix[size:])
    return found


def interval(count: int, events: int) -> tuple[float, float]:
    """Exact 95 % interval of the rate per EVENTS events."""
    low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    high = stats.chi2.ppf(0.975, 2 * count + 2) / 2
    return float(low) * EVENTS / events, float(high) * EVENTS / events


def main() -> None:
    """Runs all kinds and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000, help="events per stream")
    parser.add_argument("--first-seed", type=int, default=0, help="another gives other streams")
    parser.add_argument("--out", type=Path, help="also written there as JSON")
    given = parser.parse_args()
    makers: dict[str, Callable[[], Any]] = {
        "iid": Iid,
        "always": Always,
        "never": Never,
        "random": Random,
    }
    per_kind = -(-given.streams // len(KINDS))
    events = per_kind * given.rows
    counted = {kind: dict.fromkeys(makers, 0) for kind in KINDS}
    noisy: list[tuple[str, int]] = []
    begun = time.process_time()
    for kind, totals in counted.items():
        for seed in range(given.first_seed, given.first_seed + per_kind):
            for name, count in run(kind, seed, given.rows, makers).items():
                totals[name] += count
                if name == "iid" and count:
                    noisy.append((kind, seed))
        print(f"{kind:30}", dict(totals.items()), file=sys.stderr)
    figures: dict[str, Any] = {
        "benchmark": "null_streams",
        "streams": per_kind * len(KINDS),
        "events": events * len(KINDS),
        "pane_rows": PANE_ROWS,
        "first_seed": given.first_seed,
        "signed_per_100k_events": SIGNED,
        "by_kind": counted,
        "noisy_streams": noisy,
        "cpu_seconds": round(time.process_time() - begun),
    }
    for name in makers:
        total = sum(totals[name] for totals in counted.values())
        low, high = interval(total, events * len(KINDS))
        rate = total * EVENTS / (events * len(KINDS))
        figures[name] = {"alarms": total, "per_100k": round(rate, 3), "low": low, "high": high}
    figures["is_within_budget"] = figures["iid"]["per_100k"] <= SIGNED
    text = json.dumps(figures, indent=1)
    if given.out:
        given.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
