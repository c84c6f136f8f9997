"""Real failures at every operation in turn: what each one is, that it comes where it should, and what it shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import create_engine, exc, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from supported import ASYNC_DRIVERS, SYNC_DRIVER
from watching import User, create_tables, without_garbage_collection

from session_lint.runtime.drivers import sqlstate
from session_lint.runtime.evidence import Oracle
from session_lint.runtime.exploring import Explorer, Program, Run
from session_lint.runtime.faults import Fault, all_faults, steps
from session_lint.runtime.postgres import Database
from session_lint.runtime.probe import Probe
from session_lint.runtime.recording import Kind

pytestmark = pytest.mark.postgres

no_garbage_collection = pytest.fixture(autouse=True)(without_garbage_collection)

LEAK, OPEN, DEAD = Oracle.LEAKED_CONNECTION, Oracle.OPEN_TRANSACTION, Oracle.DEAD_SESSION
SQLSTATES = {
    Fault.UNIQUE_VIOLATION: "23505",
    Fault.STATEMENT_TIMEOUT: "57014",
    Fault.LOCK_TIMEOUT: "55P03",
    Fault.SERIALIZATION_FAILURE: "40001",
    Fault.DEFERRED_CONSTRAINT: "23514",
    Fault.SERIALIZATION_AT_COMMIT: "40001",
}


@pytest.fixture(autouse=True)
def tables(database: Database) -> Database:
    create_tables(database)
    return database


def sync_program(database: Database, driver: str, *, careful: bool) -> Program:
    engine = create_engine(database.url(driver))

    def work() -> None:
        session = Session(engine)
        try:
            session.add(User(name="a"))
            session.flush()
            session.scalars(select(User)).all()
            session.commit()
        except exc.SQLAlchemyError:
            if careful:
                session.close()
            raise
        session.close()

    return work


def async_program(database: Database, driver: str, *, careful: bool) -> Program:
    async def work() -> None:
        session = AsyncSession(create_async_engine(database.url(driver)))
        try:
            session.add(User(name="a"))
            await session.flush()
            await asyncio.sleep(0)
            await session.commit()
        except BaseException:
            if careful:
                await session.close()
            raise
        await session.close()

    return work


def explore(probe: Probe, database: Database, make: Any, **options: Any) -> list[Run]:
    def prepare() -> Program:
        with database.connect() as connection:
            connection.query("TRUNCATE users, orders")
        program: Program = make(database, **options)
        return program

    runs = list(Explorer(probe, faults=all_faults).explore(prepare))
    probe.observers.close()
    assert probe.lost == ""
    return runs


@pytest.fixture(params=sorted({SYNC_DRIVER, "psycopg2"}) + [f"{driver}_async" for driver in ASYNC_DRIVERS])
def runs_of(request: pytest.FixtureRequest, probe: Probe, database: Database) -> Any:
    def run(*, careful: bool) -> list[Run]:
        driver, _, asynchronous = request.param.partition("_")
        program = async_program if asynchronous else sync_program
        return explore(probe, database, program, driver=driver, careful=careful)

    return run


def test_every_operation_fails_once_with_every_fault(runs_of: Any) -> None:
    first, *others = runs_of(careful=True)
    assert (first.step, first.error) == (None, None)
    assert [run.step for run in others] == steps(first.recording.operations, all_faults)
    assert all(run.reached and not run.diverged for run in others)
    kinds = [o.kind for o in first.recording.operations if o.kind in (Kind.STATEMENT, Kind.WAIT, Kind.COMMIT)]
    tried = {(run.step.point, run.step.kind) for run in others}
    assert [kind for _, kind in sorted(tried)][: len(kinds)] == kinds


def test_failures_are_the_servers_own(runs_of: Any) -> None:
    for run in runs_of(careful=True)[1:]:
        if run.step.fault in SQLSTATES:
            assert isinstance(run.error, exc.DBAPIError), run
            assert sqlstate(run.error) == SQLSTATES[run.step.fault]
        elif run.step.fault is Fault.CANCELLED:
            assert isinstance(run.error, asyncio.CancelledError), run
        elif run.step.fault is Fault.IDLE_CONNECTION_LOST:
            assert run.error is None
        else:
            assert isinstance(run.error, exc.DBAPIError), run
            assert run.error.connection_invalidated


def test_a_program_that_cleans_up_shows_nothing(runs_of: Any) -> None:
    assert [(run.step, run.evidence) for run in runs_of(careful=True) if run.evidence] == []


def test_a_program_that_does_not_leaves_something_behind_after_every_failure(runs_of: Any) -> None:
    first, *others = runs_of(careful=False)
    assert first.evidence == []
    for run in others:
        seen = {evidence.oracle for evidence in run.evidence}
        if run.step.fault is Fault.IDLE_CONNECTION_LOST:
            assert seen == set()
        elif run.step.point == 1:
            # A SELECT, or an await of something else: nothing has told the session that anything is wrong.
            assert seen - {DEAD} in ({LEAK, OPEN}, {LEAK}, set())
            assert seen
        else:
            assert DEAD in seen
        assert all(evidence.fault == str(run.step) for evidence in run.evidence)


def test_after_an_ambiguous_commit_the_rows_are_there(probe: Probe, database: Database) -> None:
    def prepare() -> Program:
        return sync_program(database, SYNC_DRIVER, careful=True)

    explorer = Explorer(probe, faults=lambda o: (Fault.AMBIGUOUS_COMMIT,) if o.kind is Kind.COMMIT else ())
    with database.connect() as connection:
        explorer.run(prepare(), None, None)
        connection.query("TRUNCATE users, orders")
        first = explorer.run(prepare(), None, None)
        connection.query("TRUNCATE users, orders")
        run = explorer.run(prepare(), explorer.plan(first)[0], first.recording)
        assert isinstance(run.error, exc.OperationalError)
        assert connection.query("SELECT name FROM users") == [("a",)]
    probe.observers.close()


def test_a_limit_bounds_the_runs(probe: Probe, database: Database) -> None:
    def prepare() -> Program:
        with database.connect() as connection:
            connection.query("TRUNCATE users, orders")
        return sync_program(database, SYNC_DRIVER, careful=True)

    assert len(list(Explorer(probe, limit=2).explore(prepare))) == 3
    probe.observers.close()
