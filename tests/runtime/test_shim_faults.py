"""The shim's own faults: the user's tests end as they would without it, and one line says what was lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from children import Run, run_in
from supported import SYNC_DRIVER

from session_lint.runtime.postgres import ENVIRONMENT, Database

pytestmark = pytest.mark.postgres

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


def test_an_exception_in_a_hook_or_a_judgement(run: Run) -> None:
    ran = run(
        """
        import session_lint.runtime.oracles as oracles, session_lint.runtime.probe as probe
        def fails(*_):
            raise ZeroDivisionError("of the\\nshim")
        def test_hooks(engine, monkeypatch):
            monkeypatch.setattr(probe, "here", fails)
            assert closes(engine) == 1
        def test_oracles(engine, monkeypatch):
            monkeypatch.setattr(oracles, "_ORACLES", (fails,))
            assert closes(engine) == 1
        def test_later(engine):
            assert leaks(engine) == 1
        """,
        "--session-lint-faults",
        "--session-lint-exit-zero",
    )
    assert (ran.status, "3 passed" in ran.output) == (0, True), ran.output
    assert ran.report["lost"] in ran.output.splitlines()
    assert ran.report["lost"].startswith("the shim lost ")
    assert ran.report["lost"].endswith(" events: ZeroDivisionError: of the shim")
    assert "leaked connection" in ran.oracles


def test_a_fault_that_fails_by_itself(run: Run) -> None:
    ran = run(
        """
        import session_lint.runtime.faults as faults
        def test_it(engine, monkeypatch):
            monkeypatch.setattr(faults.Injector, "_due", lambda *_: 1 / 0)
            assert closes(engine) == 1
        """,
        "--session-lint-faults",
    )
    assert (ran.status, ran.report["evidence"]) == (0, [])
    assert ran.report["lost"] == "the shim lost a fault: ZeroDivisionError: division by zero"


def test_a_database_that_goes_away_in_the_middle(run: Run) -> None:
    ran = run(
        """
        def test_it(engine, session_lint_database):
            session = Session(engine)
            session.scalar(text("SELECT 1"))
            session_lint_database.drop()
        """,
        "--session-lint",
        "--session-lint-exit-zero",
    )
    assert ran.status == 0
    assert ran.oracles == ["leaked connection"]
    (note,) = ran.report["notes"]
    assert note.startswith("a second connection could not look: ")
    assert note in ran.output.splitlines()


def test_nobody_is_kept_from_dropping_or_copying_a_database(run: Run) -> None:
    ran = run(
        """
        @pytest.fixture
        def own(session_lint_postgres):
            with session_lint_postgres.new_database() as database:
                engine = create_engine(database.url(SYNC_DRIVER))
                Base.metadata.create_all(engine)
                yield engine
                with engine.begin() as connection:
                    connection.execute(text("DELETE FROM users"))
                engine.dispose()
                with session_lint_postgres.connect() as connection:  # without FORCE
                    connection.query(f'DROP DATABASE "{database.name}"')
        from sqlalchemy import create_engine
        def test_it(own):
            with Session(own) as session:
                session.add(User(name="a"))
                session.commit()
        """,
        "--session-lint-faults",
    )
    assert "1 passed" in ran.output, ran.output


def test_a_child_process_and_a_closed_loop(run: Run) -> None:
    ran = run(
        """
        import gc, os
        from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
        def test_fork(engine):
            closes_unless_it_fails(engine)
            if not (child := os.fork()):
                try:
                    engine.dispose(close=False)
                    closes_unless_it_fails(engine)
                    leaks(engine)
                    os._exit(7)
                finally:
                    os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            closes_unless_it_fails(engine)
            with Session(engine) as session:
                assert session.scalar(text("SELECT count(*) FROM users")) == 3
        def test_loop(session_lint_database):
            async def leak():
                session = AsyncSession(create_async_engine(session_lint_database.url("asyncpg")))
                await session.execute(text("SELECT 1"))
            asyncio.run(leak())
        """,
        "--session-lint",
        "--session-lint-exit-zero",
    )
    assert "2 passed" in ran.output, ran.output
    assert (ran.status, ran.report["lost"], ran.report["notes"]) == (0, "", [])
    assert {evidence["test"] for evidence in ran.report["evidence"]} == {"test_it.py::test_loop"}


AT_EXIT = """
import atexit, sys, threading
from session_lint.runtime.probe import Probe
probe = Probe(thorough=True)
probe.start()
from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session
engine = create_engine(sys.argv[1])
left = Session(engine)
left.execute(text("SELECT 1"))
threading.Thread(target=Session(engine).execute, args=(text("SELECT pg_sleep(60)"),), daemon=True).start()
atexit.register(Session(engine).execute, text("SELECT 1"))
"""


def test_the_interpreters_exit(database: Database) -> None:
    command = [sys.executable, "-c", AT_EXIT, database.url(SYNC_DRIVER)]
    done = subprocess.run(command, check=False, text=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_that_hangs_is_stopped(run: Run) -> None:
    ran = run(
        """
        import time
        def test_it(engine):
            try:
                closes(engine)
            except Exception:
                time.sleep(600)
        async def in_two_tasks(engine):
            async def waits():
                try:
                    await asyncio.to_thread(closes, engine)
                except Exception:
                    while True:  # takes the first signal, and goes on
                        try:
                            time.sleep(600)
                        except BaseException:
                            await asyncio.sleep(600)
            await asyncio.create_task(waits())
        def test_in_a_loop(engine):
            asyncio.run(in_two_tasks(engine))
        """,
        "--session-lint-faults",
        "--session-lint-timeout=1",
    )
    assert ran.status == 0, ran.output
    assert ran.output.count("stopped after it took too long") == len(ran.report["notes"]) >= 2


def test_a_slow_fixture_is_not_stopped_half_way(run: Run) -> None:
    """Nothing is made to fail there, and pytest would find its remains when it sets up the next test."""
    ran = run(
        """
        import time
        @pytest.fixture
        def slow(engine):
            time.sleep(0.7)
            return engine
        def test_it(slow):
            closes(slow)
        def test_next(slow):
            closes(slow)
        """,
        "--session-lint-faults",
        "--session-lint-timeout=0.5",
    )
    assert (ran.status, ran.report["notes"], ran.report["runs"]) == (0, [], 2), ran.output


def test_an_engine_that_is_not_postgresql_is_left_alone(run: Run) -> None:
    ran = run(
        """
        from sqlalchemy import create_engine
        def test_it():
            assert closes(create_engine("sqlite://")) == 1
        """,
        "--session-lint-faults",
    )
    assert (ran.status, ran.report["runs"], ran.report["evidence"]) == (0, 0, [])
    assert "on sqlite nothing is made to fail" in ran.output


def test_sessions_that_tests_share_are_left_whole(run: Run) -> None:
    ran = run(
        """
        def use(session):
            return session.scalar(text("SELECT 1"))
        import app
        app.use = use
        @pytest.mark.session_probe
        def test_one(long_lived):
            assert app.use(long_lived) == 1
        def test_two(long_lived):
            assert long_lived.in_transaction()
            assert app.use(long_lived) == 1
        """,
        "--session-lint-faults",
    )
    assert "2 passed" in ran.output, ran.output
    assert "shares with other tests" in ran.output


def test_no_postgresql_is_one_line_where_one_is_asked_for(tmp_path: Path) -> None:
    ran = run_in(tmp_path, NOWHERE)(
        """
        def test_it(engine):
            assert closes(engine) == 1
        def test_that_needs_none():
            assert True
        """,
        "--session-lint",
    )
    assert "1 passed, 1 error" in ran.output
    assert f"{ENVIRONMENT}: cannot use " in ran.output
    assert "Traceback" not in ran.output
    assert "runtime/postgres.py" not in ran.output


def test_no_postgresql_is_one_line_of_confirm(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "session_lint", "confirm", "--no-cache", ".", "--", "pytest"],
        cwd=tmp_path, env={**os.environ, ENVIRONMENT: NOWHERE}, check=False, text=True, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"session-lint: error: {ENVIRONMENT}: cannot use postgresql://")
