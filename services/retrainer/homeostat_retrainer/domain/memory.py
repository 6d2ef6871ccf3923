"""All that the retrainer remembers between events, and what each event makes due."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from homeostat_retrainer.domain.policy import (
    AlertSeen,
    Due,
    ModelState,
    Policy,
    Skipped,
    Trigger,
)
from homeostat_retrainer.domain.runs import Run, run_of
from homeostat_retrainer.domain.truths import Waiting


@dataclass(frozen=True, slots=True)
class HeldAlert:
    """An alert that was judged on more than we have heard yet."""

    model_name: str
    seen: AlertSeen
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class SkippedRun:
    """A run that is not done, told all the same."""

    run: Run
    reason: str


Wanted = Run | SkippedRun


@dataclass(slots=True)
class Memory:
    """Per model the policy's state; truths and alerts that wait for the watermark."""

    models: dict[str, ModelState] = field(default_factory=dict)
    waiting: Waiting = field(default_factory=Waiting)
    held: list[HeldAlert] = field(default_factory=list)
    # Everything known earlier has been counted; None before the first mark.
    watermark_us: int | None = None
    # What caused what, for the telemetry alone: the span behind each alert that may be followed up,
    # and behind each model's newest truth.
    alert_traces: dict[str, str] = field(default_factory=dict)
    truth_traces: dict[str, str] = field(default_factory=dict)

    def model(self, name: str) -> ModelState:
        """The model's state, new if it was never heard of."""
        return self.models.setdefault(name, ModelState())

    def truths_joined(
        self, model_name: str, known_to_us: int, rows: int, traceparent: str | None = None
    ) -> None:
        """A block with so many first truths, known up to then."""
        self.waiting.add(model_name, known_to_us, rows, self.watermark_us)
        if traceparent is not None:
            self.truth_traces[model_name] = traceparent

    def mark(self, watermark_us: int, policy: Policy) -> list[Wanted]:
        """Every truth known earlier has come. Runs that are due now, and alerts that waited."""
        if self.watermark_us is not None and watermark_us <= self.watermark_us:
            return []
        self.watermark_us = watermark_us
        released = self.waiting.release(watermark_us)
        for name in released:
            self.model(name)
        wanted: list[Wanted] = []
        for name, state in sorted(self.models.items()):
            due = state.truths_known(released.get(name, 0), watermark_us, policy)
            if due is not None:
                wanted.append(self._run(name, due, watermark_us, self._trace(name, due)))
        return wanted + self._take_held(policy)

    def version_changed(
        self,
        model_name: str,
        version: int,
        revision: int,
        champion: tuple[int, int | None] | None,
        policy: Policy,
    ) -> list[Wanted]:
        """A version was heard of; ``champion``: which one serves now, and W if a person set it."""
        state = self.model(model_name)
        state.newest_version = max(version, state.newest_version)
        if champion is not None and revision >= state.revision:
            state.revision = revision
            state.champion_changed(*champion)
        return self._take_held(policy)

    def alert(self, alert: HeldAlert, policy: Policy) -> list[Wanted]:
        """An alert's event; it waits until we have heard what it was judged on."""
        self.held.append(alert)
        return self._take_held(policy)

    def _take_held(self, policy: Policy) -> list[Wanted]:
        reached = self.watermark_us
        if reached is None:
            return []
        ripe = [each for each in self.held if self._is_ripe(each, reached)]
        self.held = [each for each in self.held if not self._is_ripe(each, reached)]
        # In the order in which they were judged, however they arrived.
        ripe.sort(key=lambda each: each.seen.watermark_us)
        wanted = (self._judge(each, policy) for each in ripe)
        return [each for each in wanted if each is not None]

    def _is_ripe(self, alert: HeldAlert, reached_us: int) -> bool:
        """Its truth was counted, and the version that it is about was heard of."""
        known = self.model(alert.model_name).newest_version
        return alert.seen.watermark_us <= reached_us and alert.seen.version <= known

    def _trace(self, name: str, due: Due) -> str | None:
        return self.alert_traces.get(due.alert_id) or self.truth_traces.get(name)

    def _judge(self, alert: HeldAlert, policy: Policy) -> Wanted | None:
        state = self.model(alert.model_name)
        asked = state.alert_changed(alert.seen, policy)
        if alert.traceparent is not None:
            self.alert_traces.setdefault(alert.seen.alert_id, alert.traceparent)
        still_open = {each for model in self.models.values() for each in model.open_alerts}
        self.alert_traces = {
            alert_id: trace
            for alert_id, trace in self.alert_traces.items()
            if alert_id in still_open
        }
        if asked is None:
            return None
        due = asked if isinstance(asked, Due) else Due(Trigger.ALERT, asked.alert_id)
        run = self._run(alert.model_name, due, alert.seen.watermark_us, alert.traceparent)
        return SkippedRun(run, asked.reason) if isinstance(asked, Skipped) else run

    def _run(self, name: str, due: Due, watermark_us: int, traceparent: str | None) -> Run:
        return run_of(
            due,
            model_name=name,
            watermark_us=watermark_us,
            reference_rows=self.model(name).reference_rows,
            traceparent=traceparent,
        )

    def to_plain(self) -> dict[str, Any]:
        """For JSON; ``from_plain`` gives it back."""
        return {
            "models": {name: state.to_plain() for name, state in self.models.items()},
            "waiting": self.waiting.to_plain(),
            "held": [asdict(each) for each in self.held],
            "watermark_us": self.watermark_us,
            "alert_traces": self.alert_traces,
            "truth_traces": self.truth_traces,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """What ``to_plain`` gave."""
        held = [
            HeldAlert(each["model_name"], AlertSeen(**each["seen"]), each["traceparent"])
            for each in plain["held"]
        ]
        models = {name: ModelState.from_plain(state) for name, state in plain["models"].items()}
        return cls(
            models,
            Waiting.from_plain(plain["waiting"]),
            held,
            plain["watermark_us"],
            dict(plain.get("alert_traces", {})),
            dict(plain.get("truth_traces", {})),
        )
