"""The open alerts of one version while it is judged, and what changed about them."""

from collections.abc import Iterable
from dataclasses import replace

from homeostat_monitor.domain.alerts.alert import Alert
from homeostat_monitor.domain.alerts.lanes import of_lane
from homeostat_monitor.domain.judges import Rule
from homeostat_monitor.ports import Transaction


class Book:
    """At most one open alert per rule and segment; of a person's thresholds one on windows and one
    on truths."""

    def __init__(self, alerts: Iterable[Alert]) -> None:
        self._alerts = {_place(each): each for each in map(_of_one_lane, alerts)}
        self.told: list[Alert] = []
        # Of all alerts that were open at any time of this judging.
        self.ids = {each.alert_id for each in self._alerts.values()}
        self._changed: dict[str, Alert] = {}

    def get(self, rule: Rule, segment: str = "", *, of_truths: bool = False) -> Alert | None:
        """The one that was open last; ``of_truths`` asks for that of a person's thresholds on
        them."""
        return self._alerts.get((rule, segment, of_truths and rule is Rule.POLICY))

    def open(self) -> list[Alert]:
        """Those that stand open."""
        return [each for each in self._alerts.values() if each.is_open]

    def is_news(self, after: Alert | None) -> bool:
        """Whether it is an event that was not told yet."""
        if after is None:
            return False
        before = self._alerts.get(_place(after))
        is_same = before is not None and before.alert_id == after.alert_id
        return not is_same or before is None or before.revision != after.revision

    def put(self, after: Alert | None) -> None:
        """The alert as it is now."""
        if after is None or after is self._alerts.get(_place(after)):
            return
        is_news = self.is_news(after)
        self._alerts[_place(after)] = after
        self._changed[after.alert_id] = after
        self.ids.add(after.alert_id)
        if is_news:
            self.told.append(after)

    async def save(self, tx: Transaction) -> None:
        """Stores what changed; those that ended first, so that one at most is open."""
        changed = sorted(self._changed.values(), key=lambda each: each.is_open)
        await tx.save_alerts(changed)
        self._changed.clear()


def _place(alert: Alert) -> tuple[Rule, str, bool]:
    return alert.rule, alert.segment, alert.rule is Rule.POLICY and alert.is_of_truths


def _of_one_lane(alert: Alert) -> Alert:
    """Stored before thresholds on windows and on truths had an alert each."""
    if alert.rule is not Rule.POLICY:
        return alert
    kept = of_lane(alert.shares, of_truths=alert.is_of_truths)
    return alert if len(kept) == len(alert.shares) else replace(alert, shares=tuple(kept))
