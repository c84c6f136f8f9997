"""Programs that are right as long as they run alone, and what two of them at once show."""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from sqlalchemy import create_engine, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from supported import SYNC_DRIVER
from watching import Account, Item, create_tables

from session_lint.runtime.evidence import Evidence, Oracle
from session_lint.runtime.interleaving import Interleaver, Program
from session_lint.runtime.postgres import Database
from session_lint.runtime.probe import Probe

pytestmark = pytest.mark.postgres


def check_then_insert(engine: Any) -> None:
    with Session(engine) as session:
        if session.scalar(select(Item).where(Item.name == "a")) is None:
            session.add(Item(name="a"))
        session.commit()


def read_modify_write(engine: Any) -> None:
    with Session(engine) as session:
        account = session.execute(select(Account)).scalar_one()
        account.balance -= 1
        session.commit()


def read_for_update(engine: Any) -> None:
    with Session(engine) as session:
        account = session.execute(select(Account).with_for_update()).scalar_one()
        account.balance -= 1
        session.commit()


def computed_by_the_database(engine: Any) -> None:
    with Session(engine) as session:
        session.execute(update(Account).values(balance=Account.balance - 1))
        session.commit()


def repeatable_read(engine: Any) -> None:
    """The second to write is told."""
    with Session(engine.execution_options(isolation_level="REPEATABLE READ")) as session:
        account = session.execute(select(Account)).scalar_one()
        account.balance -= 1
        session.commit()


def insert_always(engine: Any) -> None:
    with Session(engine) as session:
        session.add(Item(name="a"))
        session.commit()


async def async_check_then_insert(engine: Any) -> None:
    async with AsyncSession(engine) as session:
        if await session.scalar(select(Item).where(Item.name == "a")) is None:
            session.add(Item(name="a"))
        await session.commit()


async def async_read_modify_write(engine: Any) -> None:
    async with AsyncSession(engine) as session:
        account = (await session.execute(select(Account))).scalar_one()
        account.balance -= 1
        await session.commit()


async def async_read_for_update(engine: Any) -> None:
    async with AsyncSession(engine) as session:
        account = (await session.execute(select(Account).with_for_update())).scalar_one()
        account.balance -= 1
        await session.commit()


@pytest.fixture
def tables(database: Database) -> Database:
    create_tables(database)
    return database


def interleaved(probe: Probe, database: Database, program: Any) -> list[Evidence]:
    def reset() -> None:
        with database.connect() as connection:
            connection.query("TRUNCATE items, accounts; INSERT INTO accounts (id, balance) VALUES (1, 10)")

    probe.begin()
    interleaver = Interleaver(probe)
    try:
        if not inspect.iscoroutinefunction(program):
            engine = create_engine(database.url(SYNC_DRIVER))
            return interleaver.interleave(lambda: program(engine), reset)

        async def main() -> list[Evidence]:
            engine = create_async_engine(database.url("asyncpg"))
            return await interleaver.interleave_async(lambda: program(engine), reset)

        return asyncio.run(main())
    finally:
        probe.observers.close()
        assert probe.lost == ""


@pytest.mark.parametrize("program", [check_then_insert, async_check_then_insert])
def test_a_row_that_is_there_twice(program: Program, tables: Database, probe: Probe) -> None:
    (evidence,) = interleaved(probe, tables, program)
    assert evidence.oracle is Oracle.DUPLICATE_ROW
    assert dict(evidence.facts) == {"one after the other": "items 1 rows", "at once": "items 2 rows"}
    assert evidence.opened is not None
    assert evidence.opened.function == program.__name__


@pytest.mark.parametrize("program", [read_modify_write, async_read_modify_write])
def test_an_update_that_is_lost(program: Program, tables: Database, probe: Probe) -> None:
    (evidence,) = interleaved(probe, tables, program)
    assert evidence.oracle is Oracle.LOST_UPDATE
    assert dict(evidence.facts) == {"one after the other": "accounts.balance 8", "at once": "accounts.balance 9"}


@pytest.mark.parametrize(
    "program",
    [read_for_update, async_read_for_update, computed_by_the_database, repeatable_read, insert_always],
)
def test_what_two_at_once_do_as_well_as_one_after_the_other(program: Program, tables: Database, probe: Probe) -> None:
    assert interleaved(probe, tables, program) == []


# -------------------------------------------------------------------------------------------------------- many at once


def second_session_while_holding_one(engine: Any) -> None:
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        with Session(engine) as second:
            second.execute(text("SELECT 1"))


def one_session_after_the_other(engine: Any) -> None:
    for _ in range(2):
        with Session(engine) as session:
            session.execute(text("SELECT 1"))


async def async_second_session(engine: Any) -> None:
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        async with AsyncSession(engine) as second:
            await second.execute(text("SELECT 1"))


async def async_one_after_the_other(engine: Any) -> None:
    for _ in range(2):
        async with AsyncSession(engine) as session:
            await session.execute(text("SELECT 1"))


POOL = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 1}


def at_once(probe: Probe, database: Database, program: Any, number: int) -> set[Oracle]:
    probe.begin()
    interleaver = Interleaver(probe)
    try:
        if not inspect.iscoroutinefunction(program):
            engine = create_engine(database.url(SYNC_DRIVER), **POOL)
            return {e.oracle for e in interleaver.at_once(lambda: program(engine), number)}

        async def main() -> set[Oracle]:
            engine = create_async_engine(database.url("asyncpg"), **POOL)
            return {e.oracle for e in await interleaver.at_once_async(lambda: program(engine), number)}

        return asyncio.run(main())
    finally:
        probe.observers.close()


@pytest.mark.parametrize("program", [second_session_while_holding_one, async_second_session])
def test_as_many_as_the_pool_has_exhaust_it(program: Program, database: Database, probe: Probe) -> None:
    assert at_once(probe, database, program, 2) == {Oracle.POOL_EXHAUSTED}
    assert at_once(probe, database, program, 1) == set()


@pytest.mark.parametrize("program", [one_session_after_the_other, async_one_after_the_other])
def test_more_than_the_pool_has_wait_for_each_other(program: Program, database: Database, probe: Probe) -> None:
    assert at_once(probe, database, program, 4) == set()
