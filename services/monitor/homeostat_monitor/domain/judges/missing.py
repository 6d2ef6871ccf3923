"""Are more values null than the reference explains?"""

from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.domain.judges.rate_judge import RateJudge
from homeostat_monitor.domain.judges.rates import ALPHA, ExplainedRates, explained_rates
from homeostat_monitor.domain.windows.layout import SCORE, Counts, Layout
from homeostat_monitor.domain.windows.reference import ReferenceCounts


def nulls(layout: Layout, name: str, sums: Counts) -> tuple[int, int]:
    """Null rows, and all rows."""
    missing = int(layout.nulls(name, sums))
    return missing, missing + int(layout.histogram(name, sums).sum())


def missing_values_judge(counts: ReferenceCounts, level: float = ALPHA) -> RateJudge:
    """The explained rate: what the reference as a whole and its blocks show."""
    blocks = list(counts.blocks())
    rates = {}
    for name in counts.features:
        missing = int(counts.layout.nulls(name, counts.sums))
        # One null more than was seen, so that the first null ever is not an alert by itself.
        expected = (missing + 1) / (counts.rows + 2)
        shares = ((each.rows, counts.layout.nulls(name, each.sums) / each.rows) for each in blocks)
        rates[name] = explained_rates(missing / max(counts.rows, 1), expected, shares)
    if counts.score_rows:
        rates[SCORE] = _rates_of_scores(counts)
    return RateJudge(Rule.MISSING_VALUES, "null_rate", nulls, rates, level)


def _rates_of_scores(counts: ReferenceCounts) -> ExplainedRates:
    """Of scores that are no finite numbers, among honest rows."""
    holes = counts.score_holes
    missing, rows = int(holes.sum()), len(holes)
    cuts = ((size, holes[: rows // size * size]) for size in counts.block_sizes(rows))
    shares = ((size, each.reshape(-1, size).mean(axis=1)) for size, each in cuts)
    return explained_rates(missing / rows, (missing + 1) / (rows + 2), shares)
