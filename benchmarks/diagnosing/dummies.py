"""Diagnoses that know nothing, of the same alarms: what a share of right ones is worth."""

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from homeostat_monitor.domain.alerts.causes import Cause

Row = dict[str, Any]


def dummies(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Name and answers of each, of the rows that were detected.

    One says the same class each time, a data break or the most frequent class, and blames the
    first column; one draws the class from those of the corpus, and a column.
    """
    seen = [each for each in rows if each["detected"]]
    if not seen:
        return
    true = Counter(each["cause"] for each in seen)
    most = true.most_common(1)[0][0]
    for cause in dict.fromkeys((str(Cause.DATA_BREAK), most)):
        name = f"always {cause}" + (" (most frequent)" if cause == most else "")
        yield name, [_answered(each, cause, each["columns"][0]) for each in seen]
    # The same draws in every run.
    drawn = random.Random(0)
    classes = sorted(true)
    chance = [
        _answered(each, drawn.choice(classes), drawn.choice(each["columns"])) for each in seen
    ]
    yield "random", chance


def _answered(row: Mapping[str, Any], cause: str, column: str) -> Row:
    blamed = row["blamed"]
    return {
        "detected": True,
        "right_cause": cause == row["cause"],
        "right_feature": column in blamed if blamed else None,
    }
