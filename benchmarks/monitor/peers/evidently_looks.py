"""evidently's data drift preset with its defaults, a report per window."""

import warnings

import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset
from reading import Look, run


def fit(reference: pd.DataFrame, numbers: list[str], categories: list[str]) -> Look:
    """Any column, and half of the columns: the preset's own rule for the whole."""
    form = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    known = Dataset.from_pandas(reference, data_definition=form)
    report = Report([DataDriftPreset()])

    def look(window: pd.DataFrame) -> dict[str, bool]:
        now = Dataset.from_pandas(window, data_definition=form)
        counted = report.run(now, known).dict()["metrics"][0]["value"]
        return {
            "evidently, any column": counted["count"] > 0,
            "evidently, half of the columns": counted["share"] >= 0.5,
        }

    return look


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(fit)
