"""PostgreSQL for tests: one embedded server per session, a fresh database per test; or a server of
a test's own, that may be killed."""

import asyncio
import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.support.waiting import eventually

from homeostat_local.database import create_service_database, start_database
from homeostat_local.errors import StartFailed

POSTGRES_VARIABLE = "HOMEOSTAT_TEST_POSTGRES"


@pytest.fixture(scope="session")
def postgres_admin_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server's owner; an embedded server unless HOMEOSTAT_TEST_POSTGRES names another."""
    given = os.environ.get(POSTGRES_VARIABLE)
    if given:
        yield given
        return
    folder: Path = tmp_path_factory.mktemp("postgres")
    database = start_database(folder)
    yield database.admin_url
    # Not `stop`: an orderly end would first flush every test's database to disk.
    database.process.kill()
    database.process.wait()


@pytest.fixture
def postgres_url(postgres_admin_url: str) -> str:
    """The URL of a database that is empty."""
    return create_service_database(postgres_admin_url, f"test_{uuid.uuid4().hex[:12]}", "test")


class OwnDatabase:
    """A server that only one service uses."""

    def __init__(self, folder: Path, service: str) -> None:
        self._folder = folder
        self._running = start_database(folder)
        self._port = int(self._running.admin_url.rpartition(":")[2].partition("/")[0])
        self.url = create_service_database(self._running.admin_url, service, "test")

    def kill(self) -> None:
        """Kill -9. Its sessions may answer for a moment longer."""
        self._running.process.kill()
        self._running.process.wait()

    async def start(self) -> None:
        """Sessions of the killed server may take a moment to notice; none starts until then."""

        async def is_started() -> bool:
            with suppress(StartFailed):
                self._running = await asyncio.to_thread(start_database, self._folder, self._port)
                return True
            return False

        await eventually(is_started, what="the database starts again")
