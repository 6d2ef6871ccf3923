"""In memory: alerts, counts and remarks."""

from collections import Counter
from collections.abc import Mapping, Sequence

from homeostat_monitor.domain.alerts.alert import Alert, Subject


class MemoryAlerts:
    """Its part of the use cases' port."""

    def __init__(self) -> None:
        self.alerts: dict[str, Alert] = {}
        # Events that were told.
        self.told = 0
        self.tallies: dict[Subject, Counter[str]] = {}
        self.remarks: dict[Subject, Counter[str]] = {}

    async def open_alerts(self, subject: Subject) -> list[Alert]:
        """Of one version, all segments."""
        return [each for each in self._by_id() if each.subject == subject and each.is_open]

    async def input_alerts_at(self, subject: Subject, watermark_us: int) -> list[Alert]:
        """What of the inputs stood open at that watermark."""
        return [
            each
            for each in self._by_id()
            if each.subject == subject
            and not each.is_of_truths
            and each.opened_at <= watermark_us
            and (each.is_open or each.moment.watermark_us > watermark_us)
        ]

    async def open_alerts_of_others(self, model_name: str, version: int) -> list[Alert]:
        """Of every version but this one."""
        return [
            each
            for each in self._by_id()
            if each.subject.model_name == model_name
            and each.subject.version != version
            and each.is_open
        ]

    def _by_id(self) -> list[Alert]:
        return [self.alerts[each] for each in sorted(self.alerts)]

    async def save_alerts(self, alerts: Sequence[Alert]) -> None:
        self.alerts.update({each.alert_id: each for each in alerts})

    async def tell(self, alerts: Sequence[Alert]) -> None:
        self.told += len(alerts)

    async def tally(self, subject: Subject, counts: Mapping[str, int]) -> None:
        await self.tally_many({subject: counts})

    async def tally_many(self, counts: Mapping[Subject, Mapping[str, int]]) -> None:
        for subject, each in counts.items():
            self.tallies.setdefault(subject, Counter()).update(each)

    async def remark(self, subject: Subject, texts: Sequence[str]) -> None:
        self.remarks.setdefault(subject, Counter()).update(dict.fromkeys(texts, 1))
