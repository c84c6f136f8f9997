"""Handled failures: rows that the handler of a conflict gives up, and rows of what is said to have failed."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import flask
import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse
from sqlalchemy import create_engine, exc, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from supported import ASYNC_DRIVERS, SYNC_DRIVER
from watching import Item, Program, User, create_tables, watch, without_garbage_collection

from session_lint.runtime.evidence import Oracle
from session_lint.runtime.postgres import Database
from session_lint.runtime.probe import Probe

pytestmark = pytest.mark.postgres

no_garbage_collection = pytest.fixture(autouse=True)(without_garbage_collection)


def taken(engine: Any) -> None:
    """The name that is refused later."""
    with Session(engine) as session, session.begin():
        session.execute(insert(User).values(name="a"))


async def taken_async(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(insert(User).values(name="a"))


# ----------------------------------------------------------------------------------------- rows given up for a conflict


def flushed_before(engine: Any) -> None:
    taken(engine)
    with Session(engine) as session:
        session.add(Item(name="first"))
        session.flush()
        session.add(User(name="a"))
        try:
            session.flush()
        except exc.IntegrityError:
            session.rollback()
        session.commit()


async def earlier_turns(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        for name in "baba":
            try:
                await session.execute(insert(User).values(name=name))
            except exc.IntegrityError:
                await session.rollback()
        await session.commit()


def find_or_add(session: Session, name: str) -> User:
    user = User(name=name)
    session.add(user)
    try:
        session.flush()
    except exc.IntegrityError:
        session.rollback()
        user = session.scalars(select(User).where(User.name == name)).one()
    return user


def added_by_the_caller_and_flushed_together(engine: Any) -> None:
    taken(engine)
    with Session(engine) as session:
        session.add(Item(name="the caller's"))
        find_or_add(session, "a")
        session.commit()


def in_a_savepoint(engine: Any) -> None:
    taken(engine)
    with Session(engine) as session:
        session.add(Item(name="first"))
        session.flush()
        with contextlib.suppress(exc.IntegrityError), session.begin_nested():
            session.add(User(name="a"))
        session.commit()


def nothing_but_the_refused_one(engine: Any) -> None:
    taken(engine)
    with Session(engine) as session:
        find_or_add(session, "a")
        session.commit()


def all_of_it_meant(engine: Any) -> None:
    """Whoever handles the conflict has added both objects himself: one of them through a helper."""
    taken(engine)
    with Session(engine) as session:
        try:
            add(session, Item(name="goes with it"))
            session.add(User(name="a"))
            session.commit()
        except exc.IntegrityError:
            session.rollback()
        session.scalars(select(User)).all()


def add(session: Session, item: Item) -> None:
    session.add(item)


def written_again(engine: Any) -> None:
    taken(engine)
    with Session(engine) as session:
        for name in "ab":
            try:
                session.execute(insert(Item).values(name=name))
                session.execute(insert(User).values(name=name))
                session.commit()
            except exc.IntegrityError:
                session.rollback()


def raised_as_another(engine: Any) -> None:
    taken(engine)
    with Session(engine) as session:
        session.execute(insert(Item).values(name="first"))
        try:
            session.execute(insert(User).values(name="a"))
        except exc.IntegrityError:
            session.rollback()
            raise LookupError from None


def each_turn_rolls_back_for_itself(engine: Any) -> None:
    with Session(engine) as session:
        for name in "aab":
            try:
                session.add(User(name=name))
                session.commit()
            except exc.IntegrityError:
                session.rollback()


def every_statement_commits(engine: Any) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(insert(Item).values(name="first"))


async def every_statement_commits_async(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(insert(Item).values(name="first"))


# --------------------------------------------------------------------------------------------- failure, with the rows


def committed_in_finally(engine: Any) -> None:
    with Session(engine) as session:
        try:
            session.execute(insert(Item).values(name="first"))
            session.execute(insert(Item).values(name="second"))
            raise LookupError
        finally:
            session.commit()


def a_note_of_how_it_went(engine: Any) -> None:
    with Session(engine) as session:
        try:
            raise LookupError
        finally:
            session.execute(insert(Item).values(name="it failed"))
            session.commit()


def rolled_back_before_finally_commits(engine: Any) -> None:
    with Session(engine) as session:
        try:
            session.execute(insert(Item).values(name="first"))
            session.execute(insert(Item).values(name="second"))
            raise LookupError
        except LookupError:
            session.rollback()
            raise
        finally:
            session.commit()


Handler = Callable[[AsyncSession], Any]


async def post(engine: AsyncEngine, handler: Handler, status: int) -> None:
    """The answer of an application whose dependency commits unless its handler raises."""
    app = FastAPI()

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session, session.begin():
            yield session

    @app.post("/items")
    async def create_item(db: AsyncSession = Depends(get_db, scope="function")) -> Any:  # noqa: B008 - FastAPI's way
        await db.execute(insert(Item).values(name="first"))
        return await handler(db)

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://items") as client:
        assert (await client.post("/items")).status_code == status


async def error_returned(engine: AsyncEngine) -> None:
    async def handler(_: AsyncSession) -> JSONResponse:
        return JSONResponse({}, status_code=409)

    await post(engine, handler, 409)


async def error_raised(engine: AsyncEngine) -> None:
    async def handler(_: AsyncSession) -> None:
        raise HTTPException(409)

    await post(engine, handler, 409)


async def error_returned_after_a_rollback(engine: AsyncEngine) -> None:
    async def handler(session: AsyncSession) -> JSONResponse:
        await session.rollback()
        return JSONResponse({}, status_code=409)

    await post(engine, handler, 409)


async def success_returned(engine: AsyncEngine) -> None:
    async def handler(_: AsyncSession) -> JSONResponse:
        return JSONResponse({}, status_code=201)

    await post(engine, handler, 201)


def flasks_answer(engine: Any, status: int, *, look: bool) -> None:
    """Of an application that commits after every request, or looks how it went."""
    app = flask.Flask(__name__)

    @app.after_request
    def commit(response: flask.Response) -> flask.Response:
        if response.status_code < 400 or not look:
            flask.g.session.commit()
        flask.g.session.close()
        return response

    @app.post("/items")
    def create_item() -> tuple[dict[str, str], int]:
        flask.g.session = Session(engine)
        flask.g.session.execute(insert(Item).values(name="first"))
        return {}, status

    assert app.test_client().post("/items").status_code == status


def flask_commits_an_error(engine: Any) -> None:
    flasks_answer(engine, 409, look=False)


def flask_commits_a_success(engine: Any) -> None:
    flasks_answer(engine, 201, look=False)


def flask_looks_at_the_status(engine: Any) -> None:
    flasks_answer(engine, 409, look=True)


# ---------------------------------------------------------------------------------------------------------- the tests

SYNC, ASYNC = (SYNC_DRIVER,), ASYNC_DRIVERS

GIVEN_UP: list[tuple[Program, tuple[str, ...], str]] = [
    (flushed_before, SYNC, "1 write(s) before the conflict were rolled back with it"),
    (earlier_turns, ASYNC, "2 write(s) before the conflict were rolled back with it"),
    (added_by_the_caller_and_flushed_together, SYNC, "1 write(s) before the conflict were rolled back with it"),
]
FALSE_FAILURE: list[tuple[Program, tuple[str, ...], str]] = [
    (committed_in_finally, SYNC, "the caller got LookupError, and 2 write(s) were committed"),
    (error_returned, ASYNC, "the client got 409, and 1 write(s) were committed"),
    (flask_commits_an_error, SYNC, "the client got 409, and 1 write(s) were committed"),
]
FINE: list[tuple[Program, tuple[str, ...]]] = [
    *((program, SYNC) for program in (in_a_savepoint, nothing_but_the_refused_one, all_of_it_meant, written_again)),
    *((program, SYNC) for program in (raised_as_another, a_note_of_how_it_went, rolled_back_before_finally_commits)),
    *((program, ASYNC) for program in (error_raised, error_returned_after_a_rollback, success_returned)),
    *((program, SYNC) for program in (each_turn_rolls_back_for_itself, every_statement_commits)),
    (every_statement_commits_async, ASYNC),
    *((program, SYNC) for program in (flask_commits_a_success, flask_looks_at_the_status)),
]


@pytest.fixture
def tables(database: Database) -> Database:
    create_tables(database)
    return database


def each(programs: list[Any]) -> list[Any]:
    return [
        pytest.param(program, driver, *more, id=f"{program.__name__}-{driver}")
        for program, drivers, *more in programs
        for driver in drivers
    ]


@pytest.mark.parametrize(("program", "driver", "message"), each(GIVEN_UP))
def test_rows_given_up_for_a_conflict(
    program: Program, driver: str, message: str, tables: Database, probe: Probe
) -> None:
    watched = watch(probe, program, tables, driver)
    assert watched.error is None
    evidence = watched.of(Oracle.GIVEN_UP)
    assert (evidence.message, evidence.facts["sqlstate"]) == (message, "23505")
    assert probe.lost == ""


@pytest.mark.parametrize(("program", "driver", "message"), each(FALSE_FAILURE))
def test_failure_with_the_rows(program: Program, driver: str, message: str, tables: Database, probe: Probe) -> None:
    evidence = watch(probe, program, tables, driver).of(Oracle.FALSE_FAILURE)
    assert evidence.message == message
    written = message.partition(", and ")[2].partition(" ")[0]
    assert evidence.facts["rows"] == f"items 0 before, {written} now"
    assert probe.lost == ""


@pytest.mark.parametrize(("program", "driver"), each(FINE))
def test_what_is_fine_shows_nothing(program: Program, driver: str, tables: Database, probe: Probe) -> None:
    watched = watch(probe, program, tables, driver)
    assert watched.evidence == []
    assert any(operation.writes for operation in watched.recording.operations)
    assert probe.lost == ""


def test_a_rollback_of_what_was_released_with_an_earlier_recording(tables: Database, probe: Probe) -> None:
    engine = create_engine(tables.url(SYNC_DRIVER))
    first = probe.begin()
    with Session(engine) as session:
        session.execute(insert(Item).values(name="first"))
        first.release()
        probe.begin()
        session.rollback()
    engine.dispose()
    assert probe.lost == ""
