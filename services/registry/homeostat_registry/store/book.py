"""The port ``Book``: every read and every change, with patience for a database that restarts."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import asyncpg

from homeostat.registry.v1.registry_pb2 import AuditEntry
from homeostat_kit.postgres import Connection, Pool, queries, retrying
from homeostat_registry.domain.errors import BookAway
from homeostat_registry.domain.facts import Model, Reign, Version, require_model_name
from homeostat_registry.ports import Clock, Pages, Snapshot
from homeostat_registry.store import rows
from homeostat_registry.store.pages import PostgresPages

T = TypeVar("T")

_SQL = queries("homeostat_registry")
_AUDIT_ROWS = 100
_MAX_AUDIT_ROWS = 1000
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,
    OSError,
)


class PostgresBook:
    """The port ``Book``, and the audit's reader. BookAway if the database stays away for 30 s."""

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

        answer = await self._run(locked)
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
            return rows.model(row)

        return await self._run(create)

    async def model(self, name: str) -> Model:
        """One model; UnknownModel."""
        return await self._read(name, lambda pages: pages.model())

    async def models(self) -> Sequence[Model]:
        """All models by name."""
        found = await self._run(lambda connection: connection.fetch(_SQL["list_models"]))
        return [rows.model(row) for row in found]

    async def version(self, model_name: str, version: int) -> Version:
        """One version; UnknownVersion."""
        return await self._read(model_name, lambda pages: pages.version(version))

    async def versions(self, model_name: str, limit: int, before: int) -> Sequence[Version]:
        """The newest ``limit`` versions below ``before`` (0: all), oldest first."""
        return await self._read(model_name, lambda pages: pages.versions(limit, before))

    async def challenger(self, model_name: str) -> int | None:
        """The newest version that awaits approval."""
        return await self._read(model_name, lambda pages: pages.challenger())

    async def of_run(self, model_name: str, run_id: str) -> Version | None:
        """What this run registered."""
        return await self._read(model_name, lambda pages: pages.of_run(run_id))

    async def of_artifact(self, model_name: str, sha256: str) -> Version | None:
        """The first version with this model file."""
        return await self._read(model_name, lambda pages: pages.of_artifact(sha256))

    async def history(self, model_name: str) -> Sequence[Reign]:
        """All champions in the order of their revisions."""
        return await self._read(model_name, lambda pages: pages.history())

    async def newest(self, model_name: str) -> Version | None:
        """The version that was registered last."""
        return await self._read(model_name, lambda pages: pages.newest())

    async def snapshot(self) -> Snapshot:
        """All models and all versions that serve, of one moment."""

        async def all_of_it(connection: Connection) -> Snapshot:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            models = [rows.model(each) for each in await connection.fetch(_SQL["list_models"])]
            champions = await connection.fetch(_SQL["list_champions"])
            named = [(each.name, number) for each in models for number in each.serving.versions()]
            others = await connection.fetch(
                _SQL["list_named"], [name for name, _ in named], [number for _, number in named]
            )
            return Snapshot(
                models,
                [rows.version(each) for each in champions],
                [rows.version(each) for each in others],
            )

        return await self._run(all_of_it)

    async def list_audit(
        self, model_name: str, after_sequence: int, limit: int
    ) -> Sequence[AuditEntry]:
        """Entries after a sequence number, oldest first; of all models if none is named."""
        if model_name:
            require_model_name(model_name)
        most = min(limit or _AUDIT_ROWS, _MAX_AUDIT_ROWS)
        found = await self._run(
            lambda connection: connection.fetch(
                _SQL["list_audit"], model_name, after_sequence, most
            )
        )
        return [rows.audit_entry(row) for row in found]

    async def _read(self, model_name: str, work: Callable[[PostgresPages], Awaitable[T]]) -> T:
        require_model_name(model_name)
        return await self._run(
            lambda connection: work(PostgresPages(connection, model_name, self._clock))
        )

    async def _run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            return await retrying(self._pool, work)
        except _AWAY as error:
            raise BookAway("the registry's database is away; try again") from error
