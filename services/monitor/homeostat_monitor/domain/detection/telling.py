"""What a look found, as findings that a person understands."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from homeostat_monitor.domain.detection.looking import Cellwise, Looked, Looker
from homeostat_monitor.domain.detection.spans import Looks
from homeostat_monitor.domain.detection.tails import Floats
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
# Features' kinds of cells, in one number with the pane.
_MOST_KINDS = 2**20
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
        self._kind_of = cells.feature * (len(_RATES) + 1) + self._rule_of
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
        if looked.is_quiet():
            return [list(self._quiet) if each else [] for each in judged.tolist()]
        found: list[list[Finding]] = [[] for _ in range(panes)]
        self._tell_cells(found, looks, looked)
        self._tell_moved(found, looks, looked)
        for pane, number, look in _worst(looks.panes, looked.pair_excess):
            found[pane].append(self._pair(number, look, looks, looked))
        for pane, _, look in _worst(looks.panes, looked.joint_excess[:, None]):
            if not found[pane]:
                found[pane].append(self._together(look, looks, looked))
        for pane, is_judged in enumerate(judged.tolist()):
            told = {each.rule for each in found[pane]}
            quiet = self._quiet if is_judged else []
            found[pane] += [each for each in quiet if each.rule not in told]
        return found

    def _tell_cells(self, found: list[list[Finding]], looks: Looks, looked: Looked) -> None:
        """Of each feature its nulls, unseen texts, numbers out of range, and a value it is stuck
        at: the worst look of each pane."""
        cells = looked.cells
        at = np.flatnonzero((cells.excess > 0) & cells.is_more)
        at = at[np.argsort(cells.excess[at], kind="stable")]
        look, cell = cells.look[at], cells.cell[at]
        keys = looks.panes[look] * _MOST_KINDS + self._kind_of[cell]
        # The last one of a key is the worst.
        for place in dict(zip(keys.tolist(), at.tolist(), strict=True)).values():
            one, kind = int(cells.look[place]), int(cells.cell[place])
            rule = self._rule_of[kind]
            number = int(self._plan.cells.feature[kind])
            told = (self._still if rule == len(_RATES) else self._rate)(number, place, cells, looks)
            if told is not None:
                found[int(looks.panes[one])].append(told)

    def _rate(self, number: int, place: int, cells: Cellwise, looks: Looks) -> Finding:
        look, cell = int(cells.look[place]), int(cells.cell[place])
        rule, statistic = list(_RATES.items())[self._rule_of[cell]]
        k, m = self._looker.count(looks.sums[look], cell)
        r, n = float(self._plan.cells.reference[cell]), float(self._plan.cells.rows[cell])
        log_p = float(cells.log_p[place])
        least = _least(log_p + float(cells.excess[place]), m, r, n) / m
        if rule is Rule.OUT_OF_RANGE and number == self._score:
            rule = Rule.PREDICTION
        figures, since = (k / m, r / n, least), int(looks.since_us[look])
        return self._finding(
            rule, self._name(number), statistic, figures, True, since, math.exp(log_p)
        )

    def _still(self, number: int, place: int, cells: Cellwise, looks: Looks) -> Finding | None:
        """Too many of one value: with no other beside it the feature is stuck."""
        look, cell = int(cells.look[place]), int(cells.cell[place])
        if not self._looker.stands_still(looks.sums[look], number):
            return None
        typical = float(self._plan.cells.reference[cell] / self._plan.cells.rows[cell])
        since, p = int(looks.since_us[look]), math.exp(cells.log_p[place])
        figures, name = (1.0, typical, typical), self._name(number)
        return self._finding(Rule.STUCK, name, "still_share", figures, True, since, p)

    def _tell_moved(self, found: list[list[Finding]], looks: Looks, looked: Looked) -> None:
        """Of each feature that its histogram is another, by its worst test and look."""
        excess, log_p, cells = looked.excess.copy(), looked.log_p.copy(), looked.cells
        at = np.flatnonzero((self._rule_of[cells.cell] == len(_RATES)) & (cells.excess > 0))
        at = at[np.argsort(cells.excess[at], kind="stable")]
        features = self._plan.cells.feature[cells.cell[at]]
        worse = cells.excess[at] > excess[cells.look[at], features]
        at, features = at[worse], features[worse]
        excess[cells.look[at], features] = cells.excess[at]
        log_p[cells.look[at], features] = cells.log_p[at]
        for pane, number, look in _worst(looks.panes, excess):
            rule = Rule.PREDICTION if number == self._score else Rule.COVARIATE
            p, over = float(log_p[look, number]), float(excess[look, number])
            figures = (-p / math.log(10), 0.0, -(p + over) / math.log(10))
            since, name = int(looks.since_us[look]), self._name(number)
            told = self._finding(rule, name, SURPRISE, figures, True, since, math.exp(p))
            found[pane].append(told)

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


def _worst(panes: Places, excess: Floats) -> list[tuple[int, int, int]]:
    """Of looks ([looks, things]) that breach the worst per pane and thing: pane, thing, look."""
    look, thing = np.nonzero(excess > 0)
    order = np.argsort(excess[look, thing], kind="stable")
    look, thing = look[order], thing[order]
    keys = zip(panes[look].tolist(), thing.tolist(), strict=True)
    # The last one of a key is the worst.
    worst = dict(zip(keys, look.tolist(), strict=True))
    return sorted((pane, number, at) for (pane, number), at in worst.items())


@lru_cache(maxsize=4096)
def _least(log_level: float, m: int, r: float, n: float) -> int:
    """The fewest of m rows that would have been told."""
    low, high = min(math.ceil(m * r / n), m), m
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
