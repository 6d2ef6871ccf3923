"""One model's pages in one transaction that holds the model's lock."""

import dataclasses
from collections.abc import Mapping, Sequence

from homeostat import audit as chain
from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.ids import event_id
from homeostat.registry.v1.registry_pb2 import AuditEntry
from homeostat.topics import VERSIONS
from homeostat_kit.outbox import Event, put_many
from homeostat_kit.postgres import Connection, queries
from homeostat_kit.telemetry import traceparent
from homeostat_registry import messages
from homeostat_registry.domain.facts import Model, Reign, Stage, Version
from homeostat_registry.ports import Clock, Move
from homeostat_registry.store import rows

_SQL = queries("homeostat_registry")


class PostgresPages:
    """The port ``Pages`` in one transaction that holds the model's lock."""

    def __init__(self, connection: Connection, model_name: str, clock: Clock) -> None:
        self._connection = connection
        self._name = model_name
        self._clock = clock

    async def model(self) -> Model:
        """The model; UnknownModel."""
        row = await self._connection.fetchrow(_SQL["get_model"], self._name)
        return rows.one_model(row, self._name)

    async def version(self, version: int) -> Version:
        """One version; UnknownVersion."""
        row = await self._connection.fetchrow(_SQL["get_version"], self._name, version)
        return rows.one_version(row, self._name, version)

    async def of_run(self, run_id: str) -> Version | None:
        """What this run registered."""
        row = await self._connection.fetchrow(_SQL["version_of_run"], self._name, run_id)
        return rows.version(row) if row else None

    async def of_artifact(self, sha256: str) -> Version | None:
        """The first version with this model file."""
        row = await self._connection.fetchrow(_SQL["version_of_artifact"], self._name, sha256)
        return rows.version(row) if row else None

    async def waiting(self) -> Sequence[Version]:
        """All versions that await approval, oldest first."""
        found = await self._connection.fetch(_SQL["list_waiting"], self._name)
        return [rows.version(row) for row in found]

    async def newest(self) -> Version | None:
        """The version that was registered last."""
        found = await self.versions(1, 0)
        return found[0] if found else None

    async def next_version(self) -> int:
        """The number that a new version gets."""
        return int(await self._connection.fetchval(_SQL["next_version"], self._name))

    async def history(self) -> Sequence[Reign]:
        """All champions in the order of their revisions."""
        found = await self._connection.fetch(_SQL["list_reigns"], self._name)
        return [rows.reign(row) for row in found]

    async def versions(self, limit: int, before: int) -> Sequence[Version]:
        """The newest ``limit`` versions below ``before`` (0: all), oldest first."""
        found = await self._connection.fetch(_SQL["list_versions"], self._name, limit, before)
        return [rows.version(row) for row in reversed(found)]

    async def challenger(self) -> int | None:
        """The newest version that awaits approval."""
        found: int | None = await self._connection.fetchval(_SQL["challenger"], self._name)
        return found

    async def add_version(self, version: Version) -> None:
        """Writes a new version."""
        reference = version.reference
        await self._connection.execute(
            _SQL["insert_version"],
            version.model_name,
            version.version,
            version.model.sha256,
            version.model.size_bytes,
            reference.sha256 if reference else None,
            reference.size_bytes if reference else None,
            rows.canonical_json(dataclasses.asdict(version.signature)),
            rows.canonical_json(dataclasses.asdict(version.lineage)),
            rows.canonical_json(dataclasses.asdict(version.evidence)) if version.evidence else None,
            version.lineage.run_id or None,
            version.author,
            version.admission,
            version.registered_at_us,
            rows.canonical_json(dataclasses.asdict(version.equivalence))
            if version.equivalence
            else None,
        )
        await self._connection.execute(
            _SQL["insert_stage"],
            version.model_name,
            version.version,
            int(version.stage),
            list(version.reasons),
        )

    async def move_stage(self, version: int, stage: Stage, reasons: Sequence[str]) -> None:
        """Moves one version."""
        await self._connection.execute(
            _SQL["move_stage"], self._name, version, int(stage), list(reasons)
        )

    async def change_model(self, model: Model) -> None:
        """Writes autonomy, champion, serving and revisions."""
        await self._connection.execute(
            _SQL["change_model"],
            model.name,
            int(model.autonomy),
            model.champion_version,
            model.revision,
            rows.canonical_json(dataclasses.asdict(model.serving)),
            model.settled_revision,
        )

    async def raise_fencing_token(self, token: int) -> None:
        """Remembers the highest token seen."""
        await self._connection.execute(_SQL["raise_fencing_token"], self._name, token)

    async def add_reign(self, reign: Reign) -> None:
        """Writes a new line into the history of champions."""
        await self._connection.execute(
            _SQL["insert_reign"],
            self._name,
            reign.revision,
            reign.version,
            reign.since_us,
            int(reign.change),
        )

    async def tell(self, moves: Sequence[Move]) -> None:
        """Puts events into the outbox."""
        await put_many(self._connection, [_event(each) for each in moves])

    async def audit(self, action: str, actor: str, detail: Mapping[str, object]) -> None:
        """Appends to the audit chain. Last in a transaction."""
        await self._connection.execute(_SQL["lock_audit"])
        last = await self._connection.fetchrow(_SQL["last_audit"])
        entry = AuditEntry(
            sequence=last["sequence"] + 1 if last else 1,
            model_name=self._name,
            action=action,
            actor=actor,
            detail=rows.canonical_json(detail),
            previous_hash=last["hash"] if last else chain.GENESIS,
            occurred_at=rows.timestamp(self._clock.now_us()),
        )
        await self._connection.execute(
            _SQL["insert_audit"],
            entry.sequence,
            entry.model_name,
            entry.action,
            entry.actor,
            entry.detail,
            entry.occurred_at.ToMicroseconds(),
            entry.previous_hash,
            chain.entry_hash(entry),
        )


def _event(move: Move) -> Event:
    version, model = move.version, move.model
    number = version.version if version else 0
    message = VersionChanged(
        model_name=model.name,
        version=number,
        change=move.change.value,  # type: ignore[arg-type]
        revision=model.revision,
        champion_version=model.champion_version,
        previous_champion_version=move.previous_champion,
        model_sha256=version.model.sha256 if version else "",
        reasons=move.reasons,
        run_id=version.lineage.run_id if version else "",
        alert_id=version.lineage.alert_id if version else "",
        occurred_at=rows.timestamp(move.occurred_at_us),
        serving=messages.serving_message(model.serving),
    )
    return Event(
        VERSIONS,
        model.name.encode(),
        message,
        event_id("version_changed", model.name, number, move.change.name, model.revision),
        move.occurred_at_us,
        traceparent=traceparent(),
    )
