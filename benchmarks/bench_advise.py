"""What `homeostat advise` measures of 150 boosted trees and of a network, on made-up rows.

`python -m benchmarks.bench_advise --seconds 60 --json advise.json`; no service runs, so the figures
are the machine's alone.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from tests.support.wide_models import a_network

from homeostat.advise.equivalence import Tolerance
from homeostat.advise.forms import usable_cores, variants
from homeostat.advise.machine import this_machine
from homeostat.advise.measuring import Plan, measure
from homeostat.advise.report import Report, as_json
from homeostat.advise.subject import Subject, rows_of
from homeostat.advise.words import advice
from homeostat.cli.advising import forms_table, rows_table
from homeostat_retrainer import recipes

_BATCHES = (1, 8, 16, 64, 256, 512)
_SERVING_ROWS = 64
_ROWS = 6000


def subjects() -> Iterator[tuple[Subject, pa.Table]]:
    """The models, each with rows."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(_ROWS, 30)).astype(np.float32)
    noise = rng.normal(size=_ROWS)
    truths = (values[:, 0] + values[:, 1] * values[:, 2] + noise > 0).astype(np.float64)
    table = pa.table({f"x{at}": values[:, at] for at in range(30)})
    signature = recipes.signature_for(table, classes=("no", "yes"), nullable=())
    trees = recipes.load("lightgbm").train(table, truths, signature).onnx
    yield Subject("trees", 1, trees, signature), table
    network = a_network(inputs=30, hidden=1024, rows=_ROWS)
    yield Subject("network", 1, network.content, network.signature), network.table


def advised(subject: Subject, table: pa.Table, seconds: float) -> Report:
    """All that is measured of one model."""
    rows = rows_of(table, subject.signature, "made up")
    plan = Plan(variants(usable_cores()), _BATCHES, Tolerance(), seconds)
    found = measure(subject, rows, plan)
    return Report(
        subject.model_name, subject.version, subject.sha256, this_machine(), rows.source,
        rows.count, rows.calibration_count, rows.sha256, plan.tolerance, _SERVING_ROWS, "as told",
        0.04, found.rounds, found.outcomes,
    )  # fmt: skip


def main() -> None:
    """Prints tables and words, and writes all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for timing, per model")
    parser.add_argument("--json", type=Path, default=Path("advise.json"))
    arguments = parser.parse_args()
    console = Console()
    figures = []
    for subject, table in subjects():
        report = advised(subject, table, arguments.seconds)
        told = advice(report)
        console.print(f"{report.model_name} on {report.machine.short}", highlight=False)
        console.print(forms_table(report), rows_table(report), *told, sep="\n")
        figures.append(as_json(report, told))
    arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
