"""Every oracle on a real PostgreSQL: it speaks for the bug and is silent for the same program written well."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any, Literal

import httpx
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import create_engine, exc, insert, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from supported import ASYNC_DRIVERS, SYNC_DRIVER
from watching import Order, Program, User, Watched, create_tables, watch, without_garbage_collection

from session_lint.runtime.evidence import Oracle
from session_lint.runtime.postgres import Database
from session_lint.runtime.probe import Probe

pytestmark = pytest.mark.postgres

no_garbage_collection = pytest.fixture(autouse=True)(without_garbage_collection)

SYNC, ASYNC = (SYNC_DRIVER,), ASYNC_DRIVERS


# ------------------------------------------------------------------------------------------------ bugs, and what shows


def never_closed(engine: Any) -> None:
    session = Session(engine)
    session.scalars(select(User)).all()


def connection_never_closed(engine: Any) -> None:
    connection = engine.connect()
    connection.execute(text("SELECT 1"))


def attribute_read_after_the_commit(engine: Any) -> None:
    session = Session(engine)
    user = User(name="a")
    session.add(user)
    session.commit()
    assert user.name == "a"


def failed_flush_swallowed(engine: Any) -> None:
    session = Session(engine)
    session.add_all([User(name="a"), User(name="a")])
    try:
        session.commit()
    except exc.IntegrityError:
        return


def failed_commit_swallowed(engine: Any) -> None:
    session = Session(engine)
    session.add(Order(user_id=7))
    try:
        session.commit()
    except exc.IntegrityError:
        return


def dead_session_used_again(engine: Any) -> None:
    session = Session(engine)
    session.add(Order(user_id=7))
    try:
        session.commit()
    except exc.IntegrityError:
        session.scalars(select(User)).all()


def aborted_transaction_committed(engine: Any) -> None:
    with Session(engine) as session:
        session.execute(insert(User).values(name="a"))
        with contextlib.suppress(exc.IntegrityError):
            session.execute(insert(User).values(name="a"))
        session.commit()


def two_commits(engine: Any) -> None:
    with Session(engine) as session:
        session.add(User(name="a"))
        session.commit()
        session.add(User(name="a"))
        session.commit()


def never_committed(engine: Any) -> None:
    with Session(engine) as session:
        session.add(User(name="a"))
        session.flush()


def never_flushed(engine: Any) -> None:
    with Session(engine) as session:
        session.add(User(name="a"))


def commit_inside_begin(engine: Any) -> None:
    with Session(engine) as session, session.begin():
        session.add(User(name="a"))
        session.commit()
        session.execute(text("SELECT 1"))


def pool_too_small(engine: Any) -> None:
    small = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.1)
    with Session(small) as one, Session(small) as two:
        one.execute(text("SELECT 1"))
        two.execute(text("SELECT 1"))


def one_session_for_two_threads(engine: Any) -> None:
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        threads = [
            threading.Thread(target=session.connection().execute, args=(text("SELECT pg_sleep(0.2)"),)) for _ in "ab"
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


async def async_never_closed(engine: AsyncEngine) -> None:
    session = AsyncSession(engine)
    (await session.scalars(select(User))).all()


async def async_failed_commit_swallowed(engine: AsyncEngine) -> None:
    session = AsyncSession(engine)
    session.add(Order(user_id=7))
    try:
        await session.commit()
    except exc.IntegrityError:
        return


async def async_aborted_transaction_committed(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(insert(User).values(name="a"))
        with contextlib.suppress(exc.IntegrityError):
            await session.execute(insert(User).values(name="a"))
        await session.commit()


async def one_session_for_two_tasks(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        await asyncio.gather(*(session.execute(text("SELECT pg_sleep(0.05)")) for _ in "ab"))


async def slow_await_in_transaction(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        await asyncio.sleep(0.5)


async def async_two_commits(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(User(name="a"))
        await session.commit()
        session.add(User(name="a"))
        await session.commit()


async def post_order(engine: AsyncEngine, scope: Literal["function", "request"]) -> None:
    app = FastAPI()

    async def get_db() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine) as session:
            yield session
            await session.commit()

    @app.post("/orders")
    async def create_order(db: AsyncSession = Depends(get_db, scope=scope)) -> str:  # noqa: B008 - FastAPI's way
        await db.execute(insert(Order).values(user_id=7))
        return "saved"

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://orders") as client:
        answer = await client.post("/orders")
    assert answer.status_code == (500 if scope == "function" else 200)


async def answered_before_the_commit(engine: AsyncEngine) -> None:
    await post_order(engine, "request")


async def answered_after_the_commit(engine: AsyncEngine) -> None:
    await post_order(engine, "function")


LEAK, OPEN, DEAD = Oracle.LEAKED_CONNECTION, Oracle.OPEN_TRANSACTION, Oracle.DEAD_SESSION

BUGS: list[tuple[Program, tuple[str, ...], set[Oracle]]] = [
    (never_closed, SYNC, {LEAK, OPEN}),
    (connection_never_closed, SYNC, {LEAK, OPEN}),
    (attribute_read_after_the_commit, SYNC, {LEAK, OPEN}),
    (failed_flush_swallowed, SYNC, {LEAK, DEAD}),
    (failed_commit_swallowed, SYNC, {LEAK, DEAD}),
    (dead_session_used_again, SYNC, {LEAK, DEAD, Oracle.POISONED_SESSION}),
    (aborted_transaction_committed, SYNC, {Oracle.ABORTED_COMMIT}),
    (two_commits, SYNC, {Oracle.PARTIAL_COMMIT}),
    (never_committed, SYNC, {Oracle.LOST_WRITE}),
    (never_flushed, SYNC, {Oracle.LOST_WRITE}),
    (commit_inside_begin, SYNC, {Oracle.CLOSED_TRANSACTION}),
    (pool_too_small, SYNC, {Oracle.POOL_EXHAUSTED}),
    (one_session_for_two_threads, SYNC, {Oracle.CONCURRENT_USE}),
    (async_never_closed, ASYNC, {LEAK, OPEN}),
    (async_failed_commit_swallowed, ASYNC, {LEAK, DEAD}),
    (async_aborted_transaction_committed, ASYNC, {Oracle.ABORTED_COMMIT}),
    (one_session_for_two_tasks, ASYNC, {Oracle.CONCURRENT_USE}),
    (slow_await_in_transaction, ASYNC, {Oracle.HELD_ACROSS_AWAIT}),
    (async_two_commits, ASYNC, {Oracle.PARTIAL_COMMIT}),
    (answered_before_the_commit, ASYNC, {Oracle.FALSE_SUCCESS}),
]


# ----------------------------------------------------------------------------------------- the same, and nothing shows


def closed(engine: Any) -> None:
    with Session(engine) as session:
        session.scalars(select(User)).all()


def commit_is_the_last_act(engine: Any) -> None:
    session = Session(engine)
    session.add(User(name="a"))
    session.commit()


def failure_in_a_with_block(engine: Any) -> None:
    with Session(engine) as session:
        session.add(Order(user_id=7))
        session.commit()


def rolled_back(engine: Any) -> None:
    session = Session(engine)
    session.add(Order(user_id=7))
    try:
        session.commit()
    except exc.IntegrityError:
        session.rollback()


def savepoint(engine: Any) -> None:
    with Session(engine) as session:
        session.execute(insert(User).values(name="a"))
        with contextlib.suppress(exc.IntegrityError), session.begin_nested():
            session.execute(insert(User).values(name="a"))
        session.commit()


def rolled_back_on_purpose(engine: Any) -> None:
    with Session(engine) as session:
        session.add(User(name="a"))
        session.flush()
        session.rollback()


def commit_at_the_end_of_begin(engine: Any) -> None:
    with Session(engine) as session, session.begin():
        session.add(User(name="a"))
        session.commit()


def scoped(engine: Any) -> None:
    registry = scoped_session(sessionmaker(engine))
    registry.scalars(select(User)).all()
    registry.remove()


def detached_and_closed(engine: Any) -> None:
    with engine.connect() as connection:
        connection.detach()
        connection.execute(text("SELECT 1"))


def outer_transaction(engine: Any) -> None:
    """As test suites do it: everything happens in a transaction that is rolled back."""
    with engine.connect() as connection:
        transaction = connection.begin()
        session = Session(connection, join_transaction_mode="create_savepoint")
        session.add(User(name="a"))
        session.commit()
        session.close()
        transaction.rollback()


async def own_sessions(engine: AsyncEngine) -> None:
    async def one() -> None:
        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT pg_sleep(0.05)"))

    await asyncio.gather(one(), one())


async def handed_over(engine: AsyncEngine) -> None:
    """One session, several tasks, one after the other."""
    async with AsyncSession(engine) as session:
        for _ in range(3):
            await asyncio.create_task(session.execute(text("SELECT 1")))


async def slow_await_after_the_commit(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        await session.commit()
        await asyncio.sleep(0.1)


async def slow_statement(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT pg_sleep(0.1)"))


async def cancelled(engine: AsyncEngine) -> None:
    async def work() -> None:
        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT pg_sleep(5)"))

    task = asyncio.create_task(work())
    await asyncio.sleep(0.2)
    task.cancel()
    await asyncio.wait([task])


FINE: list[tuple[Program, tuple[str, ...]]] = [
    *((program, SYNC) for program in (closed, commit_is_the_last_act, failure_in_a_with_block, rolled_back, savepoint)),
    *((program, SYNC) for program in (rolled_back_on_purpose, commit_at_the_end_of_begin, scoped, detached_and_closed)),
    (outer_transaction, SYNC),
    *((program, ASYNC) for program in (own_sessions, handed_over, slow_await_after_the_commit)),
    *((program, ASYNC) for program in (slow_statement, cancelled, answered_after_the_commit)),
]


@pytest.fixture
def tables(database: Database) -> Database:
    create_tables(database)
    return database


def named(program: Program, driver: str) -> str:
    return f"{getattr(program, '__name__', program)}-{driver}"


@pytest.mark.parametrize(
    ("program", "driver", "oracles"),
    [pytest.param(program, d, oracles, id=named(program, d)) for program, drivers, oracles in BUGS for d in drivers],
)
def test_a_bug_is_seen(program: Program, driver: str, oracles: set[Oracle], tables: Database, probe: Probe) -> None:
    watched = watch(probe, program, tables, driver)
    assert watched.oracles == oracles, watched.evidence
    assert probe.lost == ""


@pytest.mark.parametrize(
    ("program", "driver"),
    [pytest.param(program, driver, id=named(program, driver)) for program, drivers in FINE for driver in drivers],
)
def test_what_is_fine_shows_nothing(program: Program, driver: str, tables: Database, probe: Probe) -> None:
    watched = watch(probe, program, tables, driver)
    assert watched.evidence == []
    assert watched.recording.operations
    assert probe.lost == ""


# ----------------------------------------------------------------------------------------------------------- evidence


def test_evidence_says_where_the_session_was_opened_and_what_the_server_sees(tables: Database, probe: Probe) -> None:
    watched = watch(probe, never_closed, tables, SYNC_DRIVER)
    evidence = watched.of(LEAK)
    assert evidence.opened is not None
    assert (evidence.opened.function, evidence.opened.path) == ("never_closed", __file__)
    assert evidence.opened.line == never_closed.__code__.co_firstlineno + 1
    assert dict(evidence.facts) == {"checked out": "1", "state": "idle in transaction", "last": "statement"}


def test_evidence_of_async_code_has_the_coroutines_place(tables: Database, probe: Probe) -> None:
    watched = watch(probe, async_never_closed, tables, "asyncpg")
    statement = next(o for o in watched.recording.operations if o.kind.value == "statement")
    assert statement.frames.first is not None
    assert statement.frames.first.function == "async_never_closed"


def test_a_partial_commit_is_proved_by_the_transactions_fate_and_the_rows(tables: Database, probe: Probe) -> None:
    facts = watch(probe, two_commits, tables, SYNC_DRIVER).of(Oracle.PARTIAL_COMMIT).facts
    assert (facts["outcome"], facts["rows"], facts["sqlstate"]) == ("committed", "users 0 before, 1 now", "23505")


def test_an_aborted_commit_is_proved_by_the_transactions_fate(tables: Database, probe: Probe) -> None:
    for driver, program in (
        (SYNC_DRIVER, aborted_transaction_committed),
        ("asyncpg", async_aborted_transaction_committed),
    ):
        facts = watch(probe, program, tables, driver).of(Oracle.ABORTED_COMMIT).facts
        assert (facts["outcome"], facts["state"]) == ("aborted", "idle in transaction (aborted)")


def test_evidence_survives_a_file(tables: Database, probe: Probe) -> None:
    watched: Watched = watch(probe, two_commits, tables, SYNC_DRIVER)
    for evidence in watched.evidence:
        again = type(evidence).from_dict(evidence.as_dict())
        assert (again.oracle, again.facts, len(again.places)) == (evidence.oracle, evidence.facts, len(evidence.places))
