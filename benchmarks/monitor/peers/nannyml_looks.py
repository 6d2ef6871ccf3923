"""nannyml's univariate drift with its defaults: a window is a chunk."""

import warnings

import nannyml
import pandas as pd
from reading import WINDOW_ROWS, Look, run


def fit(reference: pd.DataFrame, numbers: list[str], categories: list[str]) -> Look:
    """Any column alerts."""
    calculator = nannyml.UnivariateDriftCalculator(
        column_names=[*numbers, *categories],
        treat_as_categorical=categories,
        chunk_size=WINDOW_ROWS,
    )
    calculator.fit(reference)

    def look(window: pd.DataFrame) -> dict[str, bool]:
        found = calculator.calculate(window).filter(period="analysis").to_df()
        alerts = [column for column in found.columns if column[-1] == "alert"]
        return {"nannyml, any column": bool(found[alerts].to_numpy().any())}

    return look


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(fit)
