"""Fixtures that every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from session_lint.runtime.postgres import Database, PostgresServer, running_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server: one for each worker of pytest-xdist, unless SESSION_LINT_DATABASE_URL names one."""
    with running_server() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[Database]:
    """An empty database of the test's own."""
    with postgres.new_database() as database:
        yield database
