"""Models, versions, history and audit in PostgreSQL: a change and its events in one transaction."""

import dataclasses
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from homeostat import audit as chain
from homeostat.events.v1.version_changed_pb2 import VersionChanged
from homeostat.ids import event_id
from homeostat.registry.v1.registry_pb2 import AuditEntry
from homeostat.topics import VERSIONS
from homeostat_kit.outbox import Event, put_many
from homeostat_kit.postgres import Connection, Pool, queries, retrying
from homeostat_kit.telemetry import traceparent
from homeostat_registry.domain.errors import UnknownModel, UnknownVersion
from homeostat_registry.domain.facts import (
    Artifact,
    Autonomy,
    Change,
    Evidence,
    Lineage,
    Model,
    Reign,
    Signature,
    Stage,
    Task,
    Tensor,
    Version,
    require_model_name,
)
from homeostat_registry.ports import Clock, Move, Pages

T = TypeVar("T")

_SQL = queries("homeostat_registry")
_MAX_AUDIT_ROWS = 1000


class PostgresBook:
    """The port ``Book``, and the audit's reader."""

    def __init__(self, pool: Pool, clock: Clock, *, committed: Callable[[], None]) -> None:
        """``committed`` is called after each change: there may be events to send."""
        self._pool = pool
        self._clock = clock
        self._committed = committed

    async def change(self, model_name: str, work: Callable[[Pages], Awaitable[T]]) -> T:
        """Runs ``work`` in one transaction under the model's lock; possibly more than once."""
        require_model_name(model_name)

        async def locked(connection: Connection) -> T:
            await connection.execute(_SQL["lock_model"], model_name)
            return await work(PostgresPages(connection, model_name, self._clock))

        answer = await retrying(self._pool, locked)
        self._committed()
        return answer

    async def create_model(self, model: Model, actor: str) -> Model | None:
        """The new model; None if the name is taken."""

        async def create(connection: Connection) -> Model | None:
            await connection.execute(_SQL["lock_model"], model.name)
            row = await connection.fetchrow(
                _SQL["create_model"], model.name, int(model.autonomy), model.created_at_us
            )
            if row is None:
                return None
            pages = PostgresPages(connection, model.name, self._clock)
            await pages.audit("create_model", actor, {"autonomy": model.autonomy.name})
            return _model(row)

        return await retrying(self._pool, create)

    async def model(self, name: str) -> Model:
        """One model; UnknownModel."""
        require_model_name(name)
        return _one_model(await self._pool.fetchrow(_SQL["get_model"], name), name)

    async def models(self) -> Sequence[Model]:
        """All models by name."""
        return [_model(row) for row in await self._pool.fetch(_SQL["list_models"])]

    async def version(self, model_name: str, version: int) -> Version:
        """One version; UnknownVersion."""
        row = await self._pool.fetchrow(_SQL["get_version"], model_name, version)
        return _one_version(row, model_name, version)

    async def versions(self, model_name: str) -> Sequence[Version]:
        """All versions of a model, oldest first."""
        return [_version(row) for row in await self._pool.fetch(_SQL["list_versions"], model_name)]

    async def of_run(self, model_name: str, run_id: str) -> Version | None:
        """What this run registered."""
        row = await self._pool.fetchrow(_SQL["version_of_run"], model_name, run_id)
        return _version(row) if row else None

    async def of_artifact(self, model_name: str, sha256: str) -> Version | None:
        """The first version with this model file."""
        row = await self._pool.fetchrow(_SQL["version_of_artifact"], model_name, sha256)
        return _version(row) if row else None

    async def snapshot(self) -> tuple[Sequence[Model], Sequence[Version]]:
        """All models and all champions, of one moment."""
        async with (
            self._pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            models = await connection.fetch(_SQL["list_models"])
            champions = await connection.fetch(_SQL["list_champions"])
        return [_model(row) for row in models], [_version(row) for row in champions]

    async def history(self, model_name: str) -> Sequence[Reign]:
        """All champions in the order of their revisions."""
        return [_reign(row) for row in await self._pool.fetch(_SQL["list_reigns"], model_name)]

    async def list_audit(
        self, model_name: str, after_sequence: int, limit: int
    ) -> Sequence[AuditEntry]:
        """Entries after a sequence number, oldest first; of all models if none is named."""
        if model_name:
            require_model_name(model_name)
        rows = await self._pool.fetch(
            _SQL["list_audit"], model_name, after_sequence, min(limit or 100, _MAX_AUDIT_ROWS)
        )
        return [_audit_entry(row) for row in rows]


class PostgresPages:
    """The port ``Pages`` in one transaction that holds the model's lock."""

    def __init__(self, connection: Connection, model_name: str, clock: Clock) -> None:
        self._connection = connection
        self._name = model_name
        self._clock = clock

    async def model(self) -> Model:
        """The model; UnknownModel."""
        row = await self._connection.fetchrow(_SQL["get_model"], self._name)
        return _one_model(row, self._name)

    async def version(self, version: int) -> Version:
        """One version; UnknownVersion."""
        row = await self._connection.fetchrow(_SQL["get_version"], self._name, version)
        return _one_version(row, self._name, version)

    async def of_run(self, run_id: str) -> Version | None:
        """What this run registered."""
        row = await self._connection.fetchrow(_SQL["version_of_run"], self._name, run_id)
        return _version(row) if row else None

    async def of_artifact(self, sha256: str) -> Version | None:
        """The first version with this model file."""
        row = await self._connection.fetchrow(_SQL["version_of_artifact"], self._name, sha256)
        return _version(row) if row else None

    async def next_version(self) -> int:
        """The number that a new version gets."""
        return int(await self._connection.fetchval(_SQL["next_version"], self._name))

    async def history(self) -> Sequence[Reign]:
        """All champions in the order of their revisions."""
        rows = await self._connection.fetch(_SQL["list_reigns"], self._name)
        return [_reign(row) for row in rows]

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
            _json(dataclasses.asdict(version.signature)),
            _json(dataclasses.asdict(version.lineage)),
            _json(dataclasses.asdict(version.evidence)) if version.evidence else None,
            version.lineage.run_id or None,
            version.author,
            version.admission,
            version.registered_at_us,
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
        """Writes autonomy, champion and revision."""
        await self._connection.execute(
            _SQL["change_model"],
            model.name,
            int(model.autonomy),
            model.champion_version,
            model.revision,
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
            detail=_json(detail),
            previous_hash=last["hash"] if last else chain.GENESIS,
            occurred_at=_timestamp(self._clock.now_us()),
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
    message = VersionChanged(
        model_name=model.name,
        version=version.version,
        change=move.change.value,  # type: ignore[arg-type]
        revision=model.revision,
        champion_version=model.champion_version,
        previous_champion_version=move.previous_champion,
        model_sha256=version.model.sha256,
        reasons=move.reasons,
        run_id=version.lineage.run_id,
        alert_id=version.lineage.alert_id,
        occurred_at=_timestamp(move.occurred_at_us),
    )
    return Event(
        VERSIONS,
        model.name.encode(),
        message,
        event_id("version_changed", model.name, version.version, move.change.name, model.revision),
        move.occurred_at_us,
        traceparent=traceparent(),
    )


def _timestamp(at_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(at_us)
    return stamp


def _json(value: object) -> str:
    """Canonical: sorted, no blanks; numbers that JSON can't hold as strings."""
    return json.dumps(_speakable(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _speakable(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, Mapping):
        return {key: _speakable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_speakable(each) for each in value]
    return value


def _one_model(row: Any, name: str) -> Model:
    if row is None:
        raise UnknownModel(f"no model {name!r}; create it first with CreateModel")
    return _model(row)


def _model(row: Any) -> Model:
    return Model(
        row["name"],
        Autonomy(row["autonomy"]),
        row["champion_version"],
        row["revision"],
        row["created_at_us"],
        int(row["highest_fencing_token"]),
    )


def _one_version(row: Any, model_name: str, version: int) -> Version:
    if row is None:
        raise UnknownVersion(f"model {model_name} has no version {version}; see ListVersions")
    return _version(row)


def _version(row: Any) -> Version:
    evidence = row["evidence"]
    return Version(
        row["model_name"],
        row["version"],
        Stage(row["stage"]),
        Artifact(row["model_sha256"], row["model_bytes"]),
        Artifact(row["reference_sha256"], row["reference_bytes"])
        if row["reference_sha256"]
        else None,
        _signature(json.loads(row["signature"])),
        Lineage(**json.loads(row["lineage"])),
        _evidence(json.loads(evidence)) if evidence else None,
        row["author"],
        tuple(row["reasons"]),
        row["registered_at_us"],
        row["admission"],
    )


def _signature(said: dict[str, Any]) -> Signature:
    return Signature(
        Task(said["task"]),
        tuple(_tensor(each) for each in said["inputs"]),
        tuple(_tensor(each) for each in said["outputs"]),
        tuple(said["classes"]),
        said["score_output"],
        said["decision_threshold"],
        said["request_id_is_client_id"],
    )


def _tensor(said: dict[str, Any]) -> Tensor:
    return Tensor(said["name"], said["datatype"], tuple(said["shape"]), said["is_nullable"])


def _evidence(said: dict[str, Any]) -> Evidence:
    for name in ("mean_gain", "gain_deviation", "candidate_loss", "champion_loss"):
        said[name] = float(said[name])
    return Evidence(**said)


def _reign(row: Any) -> Reign:
    return Reign(row["revision"], row["version"], row["since_us"], Change(row["change"]))


def _audit_entry(row: Any) -> AuditEntry:
    return AuditEntry(
        sequence=row["sequence"],
        model_name=row["model_name"],
        action=row["action"],
        actor=row["actor"],
        detail=row["detail"],
        previous_hash=row["previous_hash"],
        hash=row["hash"],
        occurred_at=_timestamp(row["occurred_at_us"]),
    )
