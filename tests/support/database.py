"""PostgreSQL for tests: one embedded server per session, a fresh database per test."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeostat_local.database import create_service_database, start_database

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
