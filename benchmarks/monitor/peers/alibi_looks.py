"""alibi-detect's TabularDrift: Kolmogorov-Smirnov and chi-square with Bonferroni."""

import warnings

import numpy as np
import pandas as pd
from alibi_detect.cd import TabularDrift
from numpy.typing import NDArray
from reading import Look, run

# Of the test as a whole, as its documentation has it, and a stricter one.
_LEVELS = (0.05, 0.001)


def fit(reference: pd.DataFrame, numbers: list[str], categories: list[str]) -> Look:
    """At the level of its documentation, and at a stricter one. It takes no nulls: numbers get the
    reference's median, texts a text of their own. Nor does it take texts that are neither in the
    reference nor in the window: one more row of the reference has a text that nothing else has."""
    medians = reference[numbers].median()
    codes = {name: _codes(reference[name]) for name in categories}

    def encoded(frame: pd.DataFrame) -> NDArray[np.float64]:
        columns = [frame[name].fillna(medians[name]).to_numpy(float) for name in numbers]
        columns += [
            frame[name].fillna("").map(codes[name]).fillna(len(codes[name])).to_numpy(float)
            for name in categories
        ]
        return np.stack(columns, axis=1)

    places = {
        len(numbers) + i: list(range(len(codes[name]) + 1)) for i, name in enumerate(categories)
    }
    rows = encoded(reference)
    known = np.vstack([rows, rows[-1]])
    for i, name in enumerate(categories):
        known[-1, len(numbers) + i] = len(codes[name])
    tests = {
        level: TabularDrift(known, p_val=level, categories_per_feature=places or None)
        for level in _LEVELS
    }

    def look(window: pd.DataFrame) -> dict[str, bool]:
        now = encoded(window)
        return {
            f"alibi-detect, level {level}": bool(test.predict(now)["data"]["is_drift"])
            for level, test in tests.items()
        }

    return look


def _codes(texts: "pd.Series[str]") -> dict[str, int]:
    return {text: place for place, text in enumerate(sorted(texts.fillna("").unique()))}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(fit)
