"""The port of one transaction in memory: for playing the past through the code that judges.

It does what PostgreSQL does (one suite of tests holds for both), forgets nothing by time, and
undoes nothing: what it was told stays, also where the one who told it fails.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_monitor.app.memory.alerts import MemoryAlerts
from homeostat_monitor.app.memory.sums import MemorySums, latest
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import UnknownModel
from homeostat_monitor.ports import ModelStanding, Standing, StateKey


class MemoryTransaction(MemoryAlerts, MemorySums):
    """Everything that judging remembers. One at a time may use it."""

    def __init__(self) -> None:
        MemoryAlerts.__init__(self)
        MemorySums.__init__(self)
        self.models: dict[str, ModelStanding] = {}
        self.wanted_rebuilds: set[tuple[Subject, StateKey]] = set()
        self._versions: dict[Subject, Standing] = {}
        self._heard: set[bytes] = set()
        self._marks: dict[str, list[int]] = {}
        self._states: dict[Subject, dict[StateKey, tuple[bytes, int]]] = {}
        self._revision = 0

    # Models and versions

    async def add_models(self, names: Sequence[str]) -> None:
        for name in names:
            self.models.setdefault(name, ModelStanding(name, None, 0, None, None))

    async def share_models(self, names: Sequence[str]) -> None:
        """There is nobody else."""

    async def lock_model(self, name: str) -> ModelStanding:
        if name not in self.models:
            raise UnknownModel(f"nothing is known of the model {name!r}")
        return self.models[name]

    async def save_model(self, model: ModelStanding) -> None:
        self.models[model.model_name] = replace(
            self.models[model.model_name],
            windows_until_us=model.windows_until_us,
            losses_until_us=model.losses_until_us,
        )

    async def raise_revision(self, model_name: str, revision: int) -> None:
        model = self.models[model_name]
        self.models[model_name] = replace(model, revision=max(model.revision, revision))

    async def promote(self, model_name: str, version: int, revision: int, at_us: int) -> None:
        """Watches this version only; the others' sums, losses and states are dropped."""
        model = self.models[model_name]
        self.models[model_name] = replace(model, champion_version=version, revision=revision)
        chosen = Subject(model_name, version)
        before = self._versions.get(chosen)
        for each in [*self._versions]:
            if each.model_name == model_name and each != chosen:
                self._versions[each] = replace(self._versions[each], is_watched=False)
        for each, standing in self._versions.items():
            if each.model_name == model_name and not standing.is_watched:
                self._forget(each)
        accepted = before.accepted if before is not None and before.is_watched else {}
        standing = before or Standing(chosen)
        self._versions[chosen] = replace(
            standing, is_watched=True, serving_since_us=at_us, accepted=accepted
        )
        self._forget_others(model_name, chosen)

    def _forget(self, subject: Subject) -> None:
        self._states.pop(subject, None)
        self._forget_history(subject)

    async def standing(self, subject: Subject) -> Standing:
        return (await self.standings([subject]))[subject]

    async def standings(self, subjects: Sequence[Subject]) -> dict[Subject, Standing]:
        """Those that were not known are by now."""
        for each in subjects:
            if each not in self._versions:
                model = self.models.get(each.model_name)
                champion = model.champion_version if model is not None else None
                is_watched = champion is None or each.version >= champion
                self._versions[each] = Standing(each, is_watched=is_watched)
        return {each: self._versions[each] for each in subjects}

    async def watched(self, model_name: str) -> list[Standing]:
        return [
            standing
            for subject, standing in sorted(self._versions.items())
            if subject.model_name == model_name and standing.is_watched
        ]

    async def save_standing(self, standing: Standing) -> None:
        before = self._versions[standing.subject]
        self._versions[standing.subject] = replace(
            standing,
            is_watched=before.is_watched,
            serving_since_us=before.serving_since_us,
        )

    async def losses_until(self, names: Sequence[str]) -> dict[str, int | None]:
        """Up to which marks the models' losses were judged."""
        return {each: self.models[each].losses_until_us for each in names if each in self.models}

    # Events and marks

    async def hear(self, event_ids: Sequence[bytes], forget_after_us: Sequence[int]) -> list[bytes]:
        """Those that were not heard before, each once."""
        fresh = [each for each in dict.fromkeys(event_ids) if each not in self._heard]
        self._heard.update(fresh)
        return fresh

    async def current_us(self, topic: str) -> int | None:
        """The topic's watermark."""
        marks = self._marks.get(topic)
        return marks[-1] if marks else None

    def reach(self, topic: str, marks: Iterable[int]) -> None:
        """The topic's watermark takes these values, one after the other; those that are not
        above the present one are nothing."""
        passed = self._marks.setdefault(topic, [])
        for each in marks:
            if not passed or each > passed[-1]:
                passed.append(each)

    async def due_marks(self, model: ModelStanding, *, most: int) -> tuple[list[int], list[int]]:
        """Marks at which windows, and marks at which losses are to be judged, in order."""
        windows_us, losses_us = self._due.get(model.model_name, (None, None))
        reached = await self.current_us(PREDICTIONS.name)
        if reached is None:
            return [], []
        windows: list[int] = []
        if windows_us is not None:
            after = latest(model.windows_until_us, windows_us - 1)
            windows = self._between(PREDICTIONS.name, after, reached, most)
            if len(windows) == most:
                reached = windows[-1]
        if losses_us is None:
            return windows, []
        after = latest(model.losses_until_us, losses_us)
        return windows, self._between(JOINED.name, after, reached, most)

    def _between(self, topic: str, after: int, to: int, most: int) -> list[int]:
        marks = self._marks.get(topic, [])
        begin = bisect_right(marks, after)
        return marks[begin : min(bisect_right(marks, to), begin + most)]

    # Detectors

    async def state_revisions(self, subject: Subject) -> dict[StateKey, int]:
        return {key: revision for key, (_, revision) in self.states(subject).items()}

    async def read_state(self, subject: Subject, key: StateKey) -> tuple[bytes, int] | None:
        """A state and its revision."""
        return self.states(subject).get(key)

    def states(self, subject: Subject) -> Mapping[StateKey, tuple[bytes, int]]:
        """All of a version."""
        return self._states.get(subject, {})

    async def save_states(
        self, subject: Subject, states: Mapping[StateKey, bytes]
    ) -> dict[StateKey, int]:
        """Their new revisions; no two states ever have one."""
        revisions = {}
        for key in sorted(states):
            self._revision += 1
            revisions[key] = self._revision
            self._states.setdefault(subject, {})[key] = (states[key], self._revision)
        return revisions

    async def want_rebuild(self, subject: Subject, key: StateKey) -> None:
        self.wanted_rebuilds.add((subject, key))
