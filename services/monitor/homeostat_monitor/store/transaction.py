"""PostgreSQL: rows to domain objects and back, one function per query."""

import json
from collections.abc import Mapping, Sequence

import asyncpg

from homeostat.topics import JOINED, PREDICTIONS
from homeostat_kit.postgres import Connection, queries
from homeostat_kit.watermarks import Watermarks
from homeostat_monitor.domain.alerts.alert import Subject
from homeostat_monitor.domain.errors import UnknownModel
from homeostat_monitor.ports import ModelStanding, Standing, StateKey
from homeostat_monitor.store.alerts import AlertsStore
from homeostat_monitor.store.reader import Reader
from homeostat_monitor.store.rows import alert_of, standing_of
from homeostat_monitor.store.sums import SumsStore

__all__ = ["Reader", "StoreTransaction", "alert_of"]

_SQL = queries("homeostat_monitor")


class StoreTransaction(AlertsStore, SumsStore):
    """The use cases' port on one connection that is in a transaction."""

    def __init__(self, connection: Connection) -> None:
        self._on = connection

    # Models and versions

    async def add_models(self, names: Sequence[str]) -> None:
        await self._on.execute(_SQL["add_models"], list(names))

    async def share_models(self, names: Sequence[str]) -> None:
        await self._on.fetch(_SQL["share_models"], list(names))

    async def lock_model(self, name: str) -> ModelStanding:
        row = await self._on.fetchrow(_SQL["lock_model"], name)
        if row is None:
            raise UnknownModel(f"nothing is known of the model {name!r}")
        return ModelStanding(**dict(row))

    async def save_model(self, model: ModelStanding) -> None:
        await self._on.execute(
            _SQL["save_model"], model.model_name, model.windows_until_us, model.losses_until_us
        )

    async def raise_revision(self, model_name: str, revision: int) -> None:
        await self._on.execute(_SQL["raise_revision"], model_name, revision)

    async def promote(self, model_name: str, version: int, revision: int, at_us: int) -> None:
        """Watches this version only; the others' sums, losses and states are dropped."""
        await self._on.execute(_SQL["promote"], model_name, version, revision)
        await self._on.execute(_SQL["unwatch_others"], model_name, version)
        # A version that comes back finds nothing of its former life.
        await self._on.execute(_SQL["drop_states_of_unwatched"], model_name)
        await self._on.execute(_SQL["drop_history_of_unwatched"], model_name)
        await self._on.execute(_SQL["watch"], model_name, version, at_us)
        await self._on.execute(_SQL["drop_sums_of_others"], model_name, version)
        await self._on.execute(_SQL["drop_losses_of_others"], model_name, version)

    async def standing(self, subject: Subject) -> Standing:
        return (await self.standings([subject]))[subject]

    async def standings(self, subjects: Sequence[Subject]) -> dict[Subject, Standing]:
        """Those that were not known are by now."""
        names = [each.model_name for each in subjects]
        numbers = [each.version for each in subjects]
        await self._on.execute(_SQL["add_versions"], names, numbers)
        rows = await self._on.fetch(_SQL["read_versions"], names, numbers)
        found = [standing_of(row) for row in rows]
        return {each.subject: each for each in found}

    async def watched(self, model_name: str) -> list[Standing]:
        return [
            standing_of(row) for row in await self._on.fetch(_SQL["watched_versions"], model_name)
        ]

    async def save_standing(self, standing: Standing) -> None:
        await self._on.execute(
            _SQL["save_version"],
            standing.subject.model_name,
            standing.subject.version,
            standing.closed_until_us,
            standing.judge_from_us,
            standing.windows_judged,
            standing.window_us,
            json.dumps(dict(standing.accepted), sort_keys=True),
            standing.first_judged_us,
        )

    # Events

    async def hear(self, event_ids: Sequence[bytes], forget_after_us: Sequence[int]) -> list[bytes]:
        """Those that were not heard before, each once."""
        if not event_ids:
            return []
        rows = await self._on.fetch(_SQL["hear"], list(event_ids), list(forget_after_us))
        return [row["event_id"] for row in rows]

    async def forget(self, before_us: int) -> None:
        """Drops the ids of events that no broker sends again, and rows whose truth is overdue."""
        await self._on.execute(_SQL["forget"], before_us)
        await self._on.execute(_SQL["forget_block_segments"], before_us)

    # Watermarks

    async def current_us(self, topic: str) -> int | None:
        """The topic's watermark."""
        row = await self._on.fetchrow(_SQL["read_watermark"], topic)
        return row["current_us"] if row is not None else None

    async def watermarks(self, topic: str, epoch: str) -> tuple[Watermarks, int | None]:
        """The marks of a topic's partitions, and the least of them; others wait until we end.

        A source that sent none in this epoch of the broker holds nothing back: it may be gone.
        """
        (row,) = await self._on.fetch(_SQL["lock_watermark"], topic)
        return _marks_of(row, epoch), row["current_us"]

    async def seen_watermarks(self, topic: str, epoch: str) -> Watermarks:
        """The same marks, and nobody waits: those of the partitions that we read are ours alone."""
        row = await self._on.fetchrow(_SQL["read_watermark"], topic)
        return Watermarks() if row is None else _marks_of(row, epoch)

    async def save_watermarks(
        self,
        topic: str,
        epoch: str,
        marks: Watermarks,
        current_us: int | None,
        passed: Sequence[int],
    ) -> None:
        """Stores them, and the values passed on the way, which are to be judged one by one."""
        await self._on.execute(_SQL["save_watermark"], topic, marks.to_json(), current_us, epoch)
        if passed:
            await self._on.execute(_SQL["add_marks"], topic, list(passed))

    async def due_marks(self, model: ModelStanding, *, most: int) -> tuple[list[int], list[int]]:
        """Marks at which windows, and marks at which losses are to be judged, in order.

        Marks before the first thing that is due are passed over. Losses wait for the predictions'
        mark, so that what is known of the inputs then is known.
        """
        due = await self._on.fetchrow(_SQL["read_due"], model.model_name, PREDICTIONS.name)
        if due is None or due["reached_us"] is None:
            return [], []
        windows: list[int] = []
        reached: int = due["reached_us"]
        if due["windows_us"] is not None:
            after = _latest(model.windows_until_us, due["windows_us"] - 1)
            windows = await self._marks(PREDICTIONS.name, after, reached, most)
            if len(windows) == most:
                reached = windows[-1]
        if due["losses_us"] is None:
            return windows, []
        after = _latest(model.losses_until_us, due["losses_us"])
        return windows, await self._marks(JOINED.name, after, reached, most)

    async def _marks(self, topic: str, after: int, to: int, most: int) -> list[int]:
        rows = await self._on.fetch(_SQL["marks_after"], topic, after, to, most)
        return [row["watermark_us"] for row in rows]

    async def settle_due(
        self, model: ModelStanding, next_window_us: int | None, next_loss_us: int | None
    ) -> None:
        """What waits for later marks is due then, and perhaps a further look."""
        await self._on.execute(
            _SQL["settle_due"],
            model.model_name,
            model.windows_until_us,
            model.losses_until_us,
            next_window_us,
            next_loss_us,
        )

    async def drop_marks(self) -> None:
        """Forgets marks that nobody is to be judged at."""
        await self._on.execute(_SQL["drop_marks"], PREDICTIONS.name, True)
        await self._on.execute(_SQL["drop_marks"], JOINED.name, False)

    # Detectors

    async def state_revisions(self, subject: Subject) -> dict[StateKey, int]:
        """Which states are stored."""
        rows = await self._on.fetch(_SQL["state_revisions"], subject.model_name, subject.version)
        return {StateKey(row["segment"], row["name"]): row["revision"] for row in rows}

    async def read_state(self, subject: Subject, key: StateKey) -> tuple[bytes, int] | None:
        """A state and its revision."""
        row = await self._on.fetchrow(
            _SQL["read_state"], subject.model_name, subject.version, key.segment, key.name
        )
        return None if row is None else (row["state"], row["revision"])

    async def save_states(
        self, subject: Subject, states: Mapping[StateKey, bytes]
    ) -> dict[StateKey, int]:
        """Their new revisions; no two states ever have one."""
        if not states:
            return {}
        keys = sorted(states)
        rows = await self._on.fetch(
            _SQL["save_states"],
            subject.model_name,
            subject.version,
            [each.segment for each in keys],
            [each.name for each in keys],
            [states[each] for each in keys],
        )
        return {StateKey(row["segment"], row["name"]): row["revision"] for row in rows}

    async def want_rebuild(self, subject: Subject, key: StateKey) -> None:
        """The ledger's past is to rebuild it."""
        await self._on.execute(
            _SQL["add_rebuild"], subject.model_name, subject.version, key.segment, key.name
        )

    # Counts and remarks

    async def tally(self, subject: Subject, counts: Mapping[str, int]) -> None:
        await self.tally_many({subject: counts})

    async def tally_many(self, counts: Mapping[Subject, Mapping[str, int]]) -> None:
        """Adds to the totals; in one order, so that two who do so do not wait for one another."""
        rows = [
            (subject.model_name, subject.version, name, total)
            for subject in sorted(counts)
            for name, total in sorted(counts[subject].items())
            if total
        ]
        if rows:
            columns = (list(each) for each in zip(*rows, strict=True))
            await self._on.execute(_SQL["add_tallies"], *columns)

    async def remark(self, subject: Subject, texts: Sequence[str]) -> None:
        distinct = list(dict.fromkeys(texts))
        if distinct:
            await self._on.execute(
                _SQL["add_remarks"],
                [subject.model_name] * len(distinct),
                [subject.version] * len(distinct),
                distinct,
            )


def _marks_of(row: asyncpg.Record, epoch: str) -> Watermarks:
    marks = Watermarks.from_json(row["marks"])
    # Stored before epochs were: of which one is not known.
    if row["epoch"] not in (None, epoch):
        marks.begin_anew()
    return marks


def _latest(first: int | None, second: int) -> int:
    return second if first is None else max(first, second)
