"""PostgreSQL: rows to domain objects and back, one function per query."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from homeostat.ids import event_id
from homeostat.topics import ALERTS, JOINED, PREDICTIONS
from homeostat_kit import outbox
from homeostat_kit.postgres import Connection, Pool, queries
from homeostat_kit.telemetry import traceparent
from homeostat_kit.watermarks import Watermarks
from homeostat_monitor import store_notices
from homeostat_monitor.alert_messages import message_of
from homeostat_monitor.domain.alerts import Alert, Moment, Resolution, Severity, State, Subject
from homeostat_monitor.domain.causes import Cause
from homeostat_monitor.domain.errors import UnknownModel
from homeostat_monitor.domain.judges import Finding, Rule
from homeostat_monitor.domain.policy import Policy
from homeostat_monitor.domain.sums import Counts
from homeostat_monitor.ports import ID_BYTES, BlockOfLosses, ModelStanding, Standing, SumKey

# Alerts in one answer: about 10 MB.
_MOST_LISTED = 10_000

_SQL = queries("homeostat_monitor")


class StoreTransaction:
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

    async def promote(self, model_name: str, version: int, revision: int) -> None:
        """Watches this version only; the others' unjudged sums and losses are dropped."""
        await self._on.execute(_SQL["promote"], model_name, version, revision)
        await self._on.execute(_SQL["unwatch_others"], model_name, version)
        await self._on.execute(_SQL["watch"], model_name, version)
        await self._on.execute(_SQL["drop_sums_of_others"], model_name, version)
        await self._on.execute(_SQL["drop_losses_of_others"], model_name, version)

    async def standing(self, subject: Subject) -> Standing:
        await self._on.execute(_SQL["add_version"], subject.model_name, subject.version)
        row = await self._on.fetchrow(_SQL["read_version"], subject.model_name, subject.version)
        return _standing(row)

    async def watched(self, model_name: str) -> list[Standing]:
        return [
            _standing(row) for row in await self._on.fetch(_SQL["watched_versions"], model_name)
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
            standing.loss_state,
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
        """Drops the ids of events that no broker sends again."""
        await self._on.execute(_SQL["forget"], before_us)

    # Sums

    async def add_sums(self, sums: Mapping[SumKey, tuple[str, Counts]]) -> None:
        """Replaces each total by itself plus these; sums of another layout are given up."""
        if not sums:
            return
        keys = sorted(sums)
        columns = _key_columns(keys)
        stored = {
            SumKey(
                Subject(row["model_name"], row["version"]),
                row["window_start_us"],
                row["partition"],
            ): (row["layout"], row["sums"])
            for row in await self._on.fetch(_SQL["read_sums"], *columns)
        }
        totals = [_total(sums[key], stored.get(key)) for key in keys]
        await self._on.execute(
            _SQL["replace_sums"], *columns, [sums[key][0] for key in keys], totals
        )

    async def sums_before(
        self, subject: Subject, before_us: int
    ) -> list[tuple[int, str, NDArray[np.int64]]]:
        rows = await self._on.fetch(
            _SQL["closed_sums"], subject.model_name, subject.version, before_us
        )
        return [(row["window_start_us"], row["layout"], _counts(row["sums"])) for row in rows]

    async def drop_sums(self, subject: Subject, before_us: int) -> None:
        await self._on.execute(_SQL["drop_sums"], subject.model_name, subject.version, before_us)

    # Losses

    async def losses_until(self, model_name: str) -> int | None:
        row = await self._on.fetchrow(_SQL["read_model"], model_name)
        return row["losses_until_us"] if row is not None else None

    async def add_losses(self, blocks: Sequence[BlockOfLosses]) -> None:
        if not blocks:
            return
        await self._on.execute(
            _SQL["add_losses"],
            [each.subject.model_name for each in blocks],
            [each.subject.version for each in blocks],
            [int(each.known_at_us.min()) for each in blocks],
            [int(each.known_at_us.max()) for each in blocks],
            [len(each.losses) for each in blocks],
            [_loss_bytes(each) for each in blocks],
        )

    async def losses_before(self, subject: Subject, before_us: int) -> list[BlockOfLosses]:
        rows = await self._on.fetch(
            _SQL["due_losses"], subject.model_name, subject.version, before_us
        )
        return [_losses(subject, row["row_count"], row["rows"]) for row in rows]

    async def drop_losses(self, subject: Subject, before_us: int) -> None:
        await self._on.execute(_SQL["drop_losses"], subject.model_name, subject.version, before_us)

    # Watermarks

    async def watermarks(self, topic: str, epoch: str) -> tuple[Watermarks, int | None]:
        """The marks of a topic's partitions, and the least of them.

        A source that sent none in this epoch of the broker holds nothing back: it may be gone.
        """
        row = await self._on.fetchrow(_SQL["read_watermark"], topic)
        if row is None:
            return Watermarks(), None
        marks = Watermarks.from_json(row["marks"])
        # Stored before epochs were: of which one is not known.
        if row["epoch"] not in (None, epoch):
            marks.begin_anew()
        return marks, row["current_us"]

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

        Losses wait for the predictions' mark, so that what is known of the inputs then is known.
        """
        windows = await self._marks(PREDICTIONS.name, model.windows_until_us, 2**63 - 1, most)
        reached = windows[-1] if windows else model.windows_until_us
        if reached is None:
            return windows, []
        return windows, await self._marks(JOINED.name, model.losses_until_us, reached, most)

    async def _marks(self, topic: str, after: int | None, to: int, most: int) -> list[int]:
        rows = await self._on.fetch(_SQL["marks_after"], topic, after, to, most)
        return [row["watermark_us"] for row in rows]

    async def drop_marks(self) -> None:
        """Forgets marks that every model was judged at."""
        await self._on.execute(_SQL["drop_marks"], PREDICTIONS.name, True)
        await self._on.execute(_SQL["drop_marks"], JOINED.name, False)

    # Policies

    async def policy(self, model_name: str) -> Policy:
        """The newest one, DEFAULT where nobody set any."""
        return await store_notices.read_policy(self._on, model_name)

    # Alerts

    async def open_alerts(self, subject: Subject) -> list[Alert]:
        return await self._alerts("open_alerts", subject.model_name, subject.version)

    async def input_alerts_at(self, subject: Subject, watermark_us: int) -> list[Alert]:
        return await self._alerts(
            "input_alerts_at", subject.model_name, subject.version, watermark_us
        )

    async def open_alerts_of_others(self, model_name: str, version: int) -> list[Alert]:
        return await self._alerts("open_alerts_of_others", model_name, version)

    async def _alerts(self, query: str, *arguments: Any) -> list[Alert]:
        return [alert_of(row["body"]) for row in await self._on.fetch(_SQL[query], *arguments)]

    async def save_alerts(self, alerts: Sequence[Alert]) -> None:
        """Stores the state; says nothing."""
        if not alerts:
            return
        await self._on.execute(
            _SQL["save_alerts"],
            [each.alert_id for each in alerts],
            [each.subject.model_name for each in alerts],
            [each.subject.version for each in alerts],
            [str(each.rule) for each in alerts],
            [each.is_open for each in alerts],
            [each.opened_at for each in alerts],
            [None if each.is_open else each.moment.watermark_us for each in alerts],
            [each.moment.occurred_us for each in alerts],
            [json.dumps(asdict(each)) for each in alerts],
        )

    async def tell(self, alerts: Sequence[Alert]) -> None:
        """Puts the alerts into the outbox, one event each, and out for the webhooks that hear."""
        if not alerts:
            return
        said = await store_notices.note_told(self._on, alerts)
        await self.save_alerts(
            [each for each, was in zip(said, alerts, strict=True) if each is not was]
        )
        await outbox.put_many(
            self._on,
            [
                outbox.Event(
                    topic=ALERTS,
                    key=each.subject.model_name.encode(),
                    message=message_of(each),
                    event_id=event_id("alert", each.alert_id, each.revision),
                    occurred_at_us=each.moment.occurred_us,
                    traceparent=traceparent(),
                )
                for each in said
            ],
        )

    # Counts and remarks

    async def tally(self, subject: Subject, counts: Mapping[str, int]) -> None:
        named = {name: total for name, total in counts.items() if total}
        if named:
            await self._on.execute(
                _SQL["add_tallies"],
                [subject.model_name] * len(named),
                [subject.version] * len(named),
                list(named),
                list(named.values()),
            )

    async def remark(self, subject: Subject, texts: Sequence[str]) -> None:
        distinct = list(dict.fromkeys(texts))
        if distinct:
            await self._on.execute(
                _SQL["add_remarks"],
                [subject.model_name] * len(distinct),
                [subject.version] * len(distinct),
                distinct,
            )


class Reader:
    """What is asked outside of transactions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def models(self) -> list[str]:
        """Every model, by name."""
        return [row["model_name"] for row in await self._pool.fetch(_SQL["models"])]

    async def watched(self, model_name: str) -> list[Subject]:
        """The versions of a model that are judged."""
        rows = await self._pool.fetch(_SQL["watched_versions"], model_name)
        return [Subject(row["model_name"], row["version"]) for row in rows]

    async def current_us(self, topic: str) -> int | None:
        """The topic's watermark."""
        row = await self._pool.fetchrow(_SQL["read_watermark"], topic)
        return row["current_us"] if row is not None else None

    async def open_work(self) -> int:
        """Marks that models are still to be judged at."""
        return int(await self._pool.fetchval(_SQL["open_work"], PREDICTIONS.name, JOINED.name))

    async def list_alerts(self, model_name: str, *, open_only: bool) -> list[Alert]:
        """The last event of each alert, the newest 10,000 first to last; "" means all models."""
        rows = await self._pool.fetch(_SQL["list_alerts"], model_name, open_only, _MOST_LISTED)
        return [alert_of(row["body"]) for row in rows]

    async def champion(self, model_name: str) -> Standing | None:
        """The version that serves, or the newest that was seen; None before any was."""
        model = await self._pool.fetchrow(_SQL["read_model"], model_name)
        if model is None:
            raise UnknownModel(f"nothing is known of the model {model_name!r}")
        row = await self._pool.fetchrow(_SQL["newest_version"], model_name)
        if model["champion_version"] is not None:
            champion = await self._pool.fetchrow(
                _SQL["read_version"], model_name, model["champion_version"]
            )
            row = champion or row
        return _standing(row) if row is not None else None

    async def tallies(self, subject: Subject) -> Mapping[str, int]:
        """Counts of what happened, by name."""
        rows = await self._pool.fetch(_SQL["read_tallies"], subject.model_name, subject.version)
        return {row["name"]: row["total"] for row in rows}

    async def remarks(self, subject: Subject) -> list[str]:
        """What was skipped or could not be judged."""
        rows = await self._pool.fetch(_SQL["read_remarks"], subject.model_name, subject.version)
        return [row["text"] for row in rows]

    async def open_alert_count(self, model_name: str) -> int:
        """Alerts of all its versions that are open."""
        return int(await self._pool.fetchval(_SQL["count_open_alerts"], model_name))


def alert_of(body: str) -> Alert:
    """An alert from its stored JSON."""
    data: dict[str, Any] = json.loads(body)
    data["subject"] = Subject(**data["subject"])
    data["moment"] = Moment(**data["moment"])
    data["rule"], data["cause"] = Rule(data["rule"]), Cause(data["cause"])
    data["state"], data["severity"] = State(data["state"]), Severity(data["severity"])
    data["resolution"] = Resolution(data["resolution"]) if data["resolution"] else None
    data["shares"] = tuple(
        Finding(**{**each, "rule": Rule(each["rule"])}) for each in data["shares"]
    )
    return Alert(**data)


def _standing(row: Any) -> Standing:
    return Standing(
        subject=Subject(row["model_name"], row["version"]),
        is_watched=row["is_watched"],
        closed_until_us=row["closed_until_us"],
        judge_from_us=row["judge_from_us"],
        windows_judged=row["windows_judged"],
        first_judged_us=row["first_judged_us"],
        window_us=row["window_us"],
        loss_state=row["loss_state"],
        accepted=json.loads(row["accepted"]),
    )


def _key_columns(keys: Iterable[SumKey]) -> tuple[list[Any], ...]:
    rows = [(*_subject(key.subject), key.window_start_us, key.partition) for key in keys]
    return tuple(list(column) for column in zip(*rows, strict=True))


def _subject(subject: Subject) -> tuple[str, int]:
    return subject.model_name, subject.version


def _total(added: tuple[str, Counts], stored: tuple[str, bytes] | None) -> bytes:
    layout, sums = added
    if stored is not None and stored[0] == layout:
        sums = sums + _counts(stored[1])
    return sums.astype("<i8").tobytes()


def _counts(data: bytes) -> Counts:
    return np.frombuffer(data, dtype="<i8").astype(np.int64)


def _loss_bytes(block: BlockOfLosses) -> bytes:
    return b"".join(
        (
            block.known_at_us.astype("<i8").tobytes(),
            block.event_times_us.astype("<i8").tobytes(),
            block.losses.astype("<f8").tobytes(),
            block.prediction_ids.tobytes(),
        )
    )


def _losses(subject: Subject, rows: int, data: bytes) -> BlockOfLosses:
    return BlockOfLosses(
        subject,
        b"",
        np.frombuffer(data, dtype="<i8", count=rows),
        np.frombuffer(data, dtype="<i8", count=rows, offset=8 * rows),
        np.frombuffer(data, dtype="<f8", count=rows, offset=16 * rows),
        np.frombuffer(data, dtype=f"S{ID_BYTES}", count=rows, offset=24 * rows),
    )
