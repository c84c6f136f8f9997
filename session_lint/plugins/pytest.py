"""session-lint inside pytest: the tests of a project, watched, and on request with every operation failing in turn.

Off unless asked for: without one of its options nothing of SQLAlchemy is imported and no test is touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from session_lint.runtime.postgres import Database, PostgresServer
    from session_lint.runtime.testing import SessionProbe

_RUN = "session-lint-run"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("session-lint", "SQLAlchemy sessions on a real PostgreSQL")
    group.addoption(
        "--session-lint", action="store_true", help="report what each test leaves behind: connections, dead sessions, …"
    )
    group.addoption(
        "--session-lint-faults",
        action="store_true",
        help="also run each test again with every operation of the application failing in turn",
    )
    group.addoption("--session-lint-report", metavar="FILE", help="write what was proved as JSON")
    group.addoption(
        "--session-lint-limit", metavar="N", type=int, default=100, help="the most runs with a fault for a test [100]"
    )
    group.addoption(
        "--session-lint-timeout", metavar="S", type=float, default=30, help="seconds for a run with a fault [30]"
    )
    group.addoption(
        "--session-lint-resume",
        metavar="FILE",
        help="keep there which runs with a fault are done, so that the same command goes on after an interruption",
    )
    group.addoption("--session-lint-exit-zero", action="store_true", help="what is found does not fail the run")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to watch, if one of the options asks for it."""
    config.addinivalue_line(
        "markers",
        "session_probe: session-lint also makes the operations of the test itself fail, not the application's only",
    )
    if config.option.session_lint or config.option.session_lint_faults or config.option.session_lint_report:
        from session_lint.runtime.testing import Watch

        config.pluginmanager.register(Watch(config), _RUN)


@pytest.fixture(scope="session")
def session_lint_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server: the one that SESSION_LINT_DATABASE_URL names, or one that is started for this run."""
    from session_lint.runtime.postgres import PostgresUnavailableError, running_server

    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(running_server())
        except PostgresUnavailableError as error:
            pytest.fail(str(error), pytrace=False)
        yield server


@pytest.fixture
def session_lint_database(session_lint_postgres: PostgresServer) -> Iterator[Database]:
    """An empty database of the test's own."""
    with session_lint_postgres.new_database() as database:
        yield database


@pytest.fixture
def session_probe(request: pytest.FixtureRequest) -> SessionProbe:
    """What is recorded of this test, and runs at the same time. Needs one of the options `--session-lint…`."""
    run = request.config.pluginmanager.get_plugin(_RUN)
    if run is None:
        pytest.skip("session-lint does not watch this run; ask for it with --session-lint")
    probe: SessionProbe = run.session_probe
    return probe
