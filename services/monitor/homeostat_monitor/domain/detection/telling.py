"""What a look found, as findings that a person understands."""

import math

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.looking import Cellwise, Looked, Looker
from homeostat_monitor.domain.detection.spans import Looks
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.layout import SCORE

Places = NDArray[np.intp]

# Logarithm (base 10) of how unlikely it is: what a histogram as a whole is measured in.
SURPRISE = "surprise"
_RATES = {
    Rule.MISSING_VALUES: "null_rate",
    Rule.UNSEEN_VALUES: "unseen_rate",
    Rule.OUT_OF_RANGE: "out_of_range_rate",
}
# One deviation of a score, squared: products of scores are told as correlations.
_UNIT = 64.0**2


class Teller:
    """Names what a look found."""

    def __init__(self, looker: Looker, segment: str, log_level: float) -> None:
        plan = looker.plan
        self._looker = looker
        self._plan = plan
        self._segment = segment
        self._score = plan.names.index(SCORE)
        cells = plan.cells
        is_null = np.arange(len(cells.at)) >= cells.bins
        self._rule_of = np.where(
            is_null, 0, np.where(cells.is_unseen, 1, np.where(cells.is_outside, 2, 3))
        )
        self._quiet = [
            self._finding(rule, "", SURPRISE, (0.0, 0.0, -log_level / math.log(10)), False, None, 1)
            for rule in self._rules()
        ]

    def _rules(self) -> list[Rule]:
        cells, present = self._plan.cells, self._plan.present > 0
        rules = {
            Rule.MISSING_VALUES: True,
            Rule.UNSEEN_VALUES: bool(cells.is_unseen.any()),
            Rule.OUT_OF_RANGE: bool(cells.is_outside[: cells.starts[self._score]].any()),
            Rule.STUCK: bool(len(self._plan.numbers)),
            Rule.COVARIATE: bool(present[: self._score].any()),
            Rule.PREDICTION: bool(present[self._score]),
            Rule.CORRELATION: bool(self._plan.pairs),
        }
        return [rule for rule, applies in rules.items() if applies]

    def told(self, panes: int, looks: Looks, looked: Looked) -> list[list[Finding]]:
        """Per pane its findings; none where nothing was looked at."""
        judged = np.zeros(panes, dtype=bool)
        judged[looks.panes] = True
        found = [list(self._quiet) if each else [] for each in judged.tolist()]
        if not looked.is_quiet():
            worst = np.maximum(looked.excess.max(axis=1), looked.joint_excess)
            worst = np.maximum(worst, looked.pair_excess.max(axis=1, initial=-1.0))
            np.maximum.at(worst, looked.cells.look, looked.cells.excess)
            for pane in np.unique(looks.panes[worst > 0]):
                found[pane] = self._pane(np.flatnonzero(looks.panes == pane), looks, looked)
        return found

    def _pane(self, mine: Places, looks: Looks, looked: Looked) -> list[Finding]:
        cells = looked.cells
        of_mine = np.flatnonzero(np.isin(cells.look, mine) & (cells.excess > 0))
        features = self._plan.cells.feature[cells.cell[of_mine]]
        moved = looked.excess[mine].max(axis=0) > 0
        moved[features] = True
        found: list[Finding] = []
        for number in np.flatnonzero(moved).tolist():
            at = of_mine[features == number]
            found += self._rates(number, at, cells, looks)
            found += self._moved(number, mine, at, looks, looked)
        if looked.pair_excess.size:
            broken = looked.pair_excess[mine]
            for number in np.flatnonzero(broken.max(axis=0) > 0).tolist():
                look = int(mine[np.argmax(broken[:, number])])
                found.append(self._pair(number, look, looks, looked))
        if not found:
            found.append(
                self._together(int(mine[np.argmax(looked.joint_excess[mine])]), looks, looked)
            )
        told = {each.rule for each in found}
        return found + [each for each in self._quiet if each.rule not in told]

    def _rates(self, number: int, at: Places, cells: Cellwise, looks: Looks) -> list[Finding]:
        """Nulls, unseen texts and numbers out of range of one feature."""
        found = []
        kinds = self._rule_of[cells.cell[at]]
        for kind, (rule, statistic) in enumerate(_RATES.items()):
            of_kind = at[(kinds == kind) & cells.is_more[at]]
            if not len(of_kind):
                continue
            worst = int(of_kind[np.argmax(cells.excess[of_kind])])
            look, cell = int(cells.look[worst]), int(cells.cell[worst])
            held, of = self._looker.counts(looks.sums[look])
            k, m = int(held[cell]), int(of[cell])
            r, n = self._plan.cells.reference[cell], self._plan.cells.rows[cell]
            level = float(cells.log_p[worst] + cells.excess[worst])
            least = _least(level, k, m, float(r), float(n)) / m
            if rule is Rule.OUT_OF_RANGE and number == self._score:
                rule = Rule.PREDICTION  # noqa: PLW2901
            found.append(
                self._finding(
                    rule,
                    self._name(number),
                    statistic,
                    (k / m, r / n, least),
                    cells.excess[worst] > 0,
                    int(looks.since_us[look]),
                    math.exp(cells.log_p[worst]),
                )
            )
        return found

    def _moved(
        self, number: int, mine: Places, at: Places, looks: Looks, looked: Looked
    ) -> list[Finding]:
        """The histogram of one feature, and whether it stands still."""
        if not self._plan.present[number]:
            return []
        cells = looked.cells
        look = int(mine[np.argmax(looked.excess[mine, number])])
        log_p, excess = looked.log_p[look, number], looked.excess[look, number]
        plain = at[self._rule_of[cells.cell[at]] == len(_RATES)]
        found = []
        if len(plain):
            worst = int(plain[np.argmax(cells.excess[plain])])
            if cells.excess[worst] > excess:
                log_p, excess = cells.log_p[worst], cells.excess[worst]
                look = int(cells.look[worst])
            found = self._still(number, worst, cells, looks)
        rule = Rule.PREDICTION if number == self._score else Rule.COVARIATE
        figures = (-log_p / math.log(10), 0.0, -(log_p + excess) / math.log(10))
        since, p = int(looks.since_us[look]), math.exp(log_p)
        name = self._name(number)
        return [*found, self._finding(rule, name, SURPRISE, figures, excess > 0, since, p)]

    def _still(self, number: int, worst: int, cells: Cellwise, looks: Looks) -> list[Finding]:
        """Too many of one value: with no other beside it the feature is stuck."""
        span = looks.sums[int(cells.look[worst])]
        if cells.excess[worst] <= 0 or not self._looker.stands_still(span)[number]:
            return []
        cell = int(cells.cell[worst])
        typical = self._plan.cells.reference[cell] / self._plan.cells.rows[cell]
        since, p = int(looks.since_us[int(cells.look[worst])]), math.exp(cells.log_p[worst])
        figures = (1.0, float(typical), float(typical))
        return [
            self._finding(Rule.STUCK, self._name(number), "still_share", figures, True, since, p)
        ]

    def _pair(self, number: int, look: int, looks: Looks, looked: Looked) -> Finding:
        (a, b), place = self._plan.pairs[number], 2 * len(self._plan.names) + number
        rows, product = self._looker.pair(looks.sums[look], number)
        log_p, excess = looked.pair_log_p[look, number], looked.pair_excess[look, number]
        change = abs(product / max(rows, 1) - self._plan.trends.mean[place]) / _UNIT
        # The bound is quadratic in the change where the tail is normal.
        least = change * math.sqrt(max((log_p + excess) / log_p, 0.0)) if log_p < 0 else 1.0
        since, p = int(looks.since_us[look]), math.exp(log_p)
        figures = (change, 0.0, max(least, 1e-9))
        name = "correlation_change"
        return self._finding(Rule.CORRELATION, a, name, figures, excess > 0, since, p, b)

    def _together(self, look: int, looks: Looks, looked: Looked) -> Finding:
        """Many features a little; told of the one that moved most."""
        log_p, excess = float(looked.joint_log_p[look]), float(looked.joint_excess[look])
        figures = (-log_p / math.log(10), 0.0, -(log_p + excess) / math.log(10))
        name = self._name(int(looked.foremost[look]))
        since = int(looks.since_us[look])
        return self._finding(
            Rule.COVARIATE, name, "joint_surprise", figures, True, since, math.exp(log_p)
        )

    def _name(self, number: int) -> str:
        return "" if number == self._score else self._plan.names[number]

    def _finding(
        self,
        rule: Rule,
        feature: str,
        statistic: str,
        figures: tuple[float, float, float],
        is_breach: bool,
        since_us: int | None,
        p_value: float,
        other: str = "",
    ) -> Finding:
        observed, reference, threshold = figures
        return Finding(
            rule,
            feature,
            statistic,
            float(observed),
            float(reference),
            float(threshold),
            is_breach=bool(is_breach),
            segment=self._segment,
            other_feature=other,
            since_us=since_us,
            p_value=p_value,
        )


def _least(log_level: float, most: int, m: int, r: float, n: float) -> int:
    """The fewest of m rows that would have been told, where ``most`` were."""
    low, high = min(math.ceil(m * r / n), most), most
    while low < high:
        middle = (low + high) // 2
        if _log_more(middle, m, r, n) < log_level:
            high = middle
        else:
            low = middle + 1
    return high


def _log_more(k: int, m: int, r: float, n: float) -> float:
    """tails.log_tail of one number, many times as fast as of an array of one."""
    ratio = (m - k) * r / ((k + 1) * (n - r + 1))
    if ratio >= 1:
        return 0.0
    first = _log_choose(m, k) + _log_choose(n, r) - _log_choose(m + n, k + r)
    return first - math.log1p(-ratio)


def _log_choose(n: float, k: float) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
