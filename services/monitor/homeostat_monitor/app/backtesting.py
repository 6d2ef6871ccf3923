"""What a policy would have told over the past, beside what the present one tells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from homeostat_monitor.app.portions import Portion
from homeostat_monitor.app.replaying import Marks, Player, Promotion
from homeostat_monitor.domain.alerts.alert import Alert, Subject
from homeostat_monitor.domain.policies.policy import Policy
from homeostat_monitor.ports import KnownVersion

# A tally of live traffic, and what it means for a comparison with it.
_OTHERWISE_LIVE = {
    "late_rows": "predictions came late when they were live and were not judged; here they are",
    "late_losses": "truths came late when they were live and were not fed; here they are",
    "corrections": "truths were corrected since: here the corrected ones are fed",
}


@dataclass(frozen=True, slots=True)
class BacktestResult:
    """Alerts are in their last state, the oldest first."""

    alerts: Sequence[Alert]
    # Under the present policy, over the same past.
    present: Sequence[Alert]
    rows: int
    truths: int
    remarks: Sequence[str]


@dataclass(slots=True)
class Backtest:
    """Two policies side by side; one player does where they judge alike."""

    proposed: Player
    present: Player
    _missing: set[Subject] = field(default_factory=set)

    @classmethod
    def begun(
        cls,
        model_name: str,
        marks: Marks,
        promotions: Sequence[Promotion],
        *,
        is_same: bool,
    ) -> Self:
        """Before the first row."""
        proposed = Player(model_name, marks, {}, promotions)
        return cls(proposed, proposed if is_same else Player(model_name, marks, {}, promotions))

    @property
    def players(self) -> Sequence[Player]:
        """The proposed policy's first."""
        return (self.proposed,) if self.is_same else (self.proposed, self.present)

    @property
    def is_same(self) -> bool:
        return self.proposed is self.present

    def know(
        self, place: int, subject: Subject, known: KnownVersion | None, fallback: KnownVersion
    ) -> None:
        """What one of the players is to know of a version; None: the registry knows none such."""
        if known is None:
            self._missing.add(subject)
        self.players[place].known[subject] = known or fallback

    def play(self, portion: Portion) -> None:
        """Takes long: not for the event loop."""
        for each in self.players:
            each.play(portion)

    def finish(self, until: Mapping[str, int]) -> BacktestResult:
        """Judges up to these marks. Takes long."""
        for each in self.players:
            each.finish(until)
        return BacktestResult(
            self.proposed.alerts,
            self.present.alerts,
            self.proposed.rows,
            self.proposed.truths,
            list(dict.fromkeys(self._remarks())),
        )

    def _remarks(self) -> list[str]:
        missing = [
            f"the registry knows no version {each.version} any more: its predictions are left out"
            for each in sorted(self._missing)
        ]
        known = [text for each in self.proposed.known.values() for text in each.remarks]
        judged = [text for each in self.proposed.tx.remarks.values() for text in each]
        return [*missing, *known, *judged]


def judges_alike(one: Policy, other: Policy) -> bool:
    """Whether two policies tell the same alerts: who is told of them does not matter."""
    return _judged(one) == _judged(other)


def _judged(policy: Policy) -> Policy:
    return replace(
        policy, revision=0, set_by="", set_at_us=0, webhooks=(), throttle_seconds=0.0, fault=""
    )


def live_remarks(tallies: Mapping[str, int]) -> list[str]:
    """Why live traffic may have told something else."""
    return [
        f"{tallies[name]} {text}" for name, text in _OTHERWISE_LIVE.items() if tallies.get(name)
    ]
