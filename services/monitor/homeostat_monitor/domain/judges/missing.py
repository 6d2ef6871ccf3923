"""Are more values null than the reference explains?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.judges.rates import ExplainedRates, critical_count, explained_rates
from homeostat_monitor.domain.reference import ReferenceCounts
from homeostat_monitor.domain.sums import Layout
from homeostat_monitor.domain.windows import Window


@dataclass(frozen=True, slots=True)
class MissingValuesJudge:
    """Exact binomial test of the null rate per feature, Bonferroni over the features."""

    rates: Mapping[str, ExplainedRates]
    remarks: Sequence[str] = ()
    rule: Rule = Rule.MISSING_VALUES

    def judge(self, layout: Layout, window: Window) -> list[Finding]:
        """A finding per feature."""
        found = []
        for name, rates in self.rates.items():
            nulls = int(layout.nulls(name, window.sums))
            limit = critical_count(window.rows, rates.at(window.rows), len(self.rates))
            found.append(
                Finding(
                    self.rule,
                    name,
                    "null_rate",
                    nulls / window.rows,
                    rates.typical,
                    limit / window.rows,
                    is_breach=nulls >= limit,
                )
            )
        return found


def missing_values_judge(counts: ReferenceCounts) -> MissingValuesJudge:
    """The explained rate: what the reference as a whole and its blocks show."""
    blocks = list(counts.blocks())
    rates = {}
    for name in counts.features:
        nulls = int(counts.layout.nulls(name, counts.sums))
        # One null more than was seen, so that the first null ever is not an alert by itself.
        expected = (nulls + 1) / (counts.rows + 2)
        shares = ((each.rows, counts.layout.nulls(name, each.sums) / each.rows) for each in blocks)
        rates[name] = explained_rates(nulls / max(counts.rows, 1), expected, shares)
    return MissingValuesJudge(rates)
