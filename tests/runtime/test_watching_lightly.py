"""Without faults, connections that only read are told of in fewer words: what is seen all the same, and what is fine.

In child processes, because the probe of the other tests makes SQLAlchemy tell everything of everybody.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from children import Run
from supported import ASYNC_DRIVERS

from session_lint.runtime.evidence import Oracle

pytestmark = pytest.mark.postgres

PROGRAMS = r"""
import asyncio, os, subprocess, sys, threading
from app import User
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

def on_two_threads(session, *, at_once):
    statement = text("SELECT pg_sleep(0.3)")
    threads = [threading.Thread(target=lambda: swallow(session.connection().execute, statement)) for _ in range(2)]
    session.connection()
    for thread in threads:
        thread.start()
        if not at_once:
            thread.join()
    for thread in threads:
        thread.join()

def swallow(function, *arguments):
    try:
        function(*arguments)
    except Exception:
        pass

def forgets_to_commit(engine):
    with Session(engine) as session:
        session.add(User(name="a"))
        session.flush()

def commits(engine):
    with Session(engine) as session:
        session.execute(text("SELECT 1"))
        session.add(User(name="a"))
        session.commit()
    with engine.begin() as connection:
        connection.execute(User.__table__.insert(), [{"name": "b"}, {"name": "c"}])

def commits_what_is_aborted(engine):
    with engine.begin() as connection:
        swallow(connection.execute, text("SELECT 1 / 0"))

async def on_two_tasks(url):
    async with AsyncSession(create_async_engine(url)) as session:
        connection = await session.connection()
        statements = [connection.execute(text("SELECT pg_sleep(0.1)")) for _ in range(2)]
        await asyncio.gather(*statements, return_exceptions=True)

async def on_one_task_after_the_other(url):
    async with AsyncSession(create_async_engine(url)) as session:
        for _ in range(2):
            await asyncio.create_task(session.execute(text("SELECT 1")))

async def waits_with_a_connection(url):
    async with AsyncSession(create_async_engine(url)) as session:
        await session.execute(text("SELECT pg_sleep(0.03)"))
        await asyncio.sleep(0.2)

async def waits_for_a_thread_that_hardly_gets_a_turn(url):
    # On a machine with much to do: as many programs as it takes, all of them on one processor.
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    busy = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    others = [subprocess.Popen(busy, stdout=subprocess.PIPE) for _ in range(9)]
    try:
        for other in others:
            other.stdout.readline()  # It is busy from here on, so the thread below waits instead of working.
        async with AsyncSession(create_async_engine(url)) as session:
            await session.execute(text("SELECT 1"))
            await asyncio.to_thread(starve)
    finally:
        os.sched_setaffinity(0, processors)
        for other in others:
            other.kill()
            other.communicate()

def starve():
    def kept_waiting():
        with open("/proc/thread-self/schedstat") as file:
            return int(file.read().split()[1])
    start = kept_waiting()
    while kept_waiting() < start + 150_000_000:
        pass

async def waits_for_the_database(url):
    async with AsyncSession(create_async_engine(url)) as session:
        await session.execute(text("SELECT pg_sleep(0.2)"))
"""


@pytest.mark.parametrize("driver", ASYNC_DRIVERS)
def test_what_is_seen(driver: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "programs.py").write_text(textwrap.dedent(PROGRAMS))
    ran = run(
        """
        import programs
        def test_write(engine):
            programs.forgets_to_commit(engine)
        def test_aborted(engine):
            programs.commits_what_is_aborted(engine)
        def test_threads(engine):
            with Session(engine) as session:
                programs.on_two_threads(session, at_once=True)
        def test_tasks(session_lint_database):
            asyncio.run(programs.on_two_tasks(session_lint_database.url("DRIVER")))
        def test_wait(session_lint_database):
            asyncio.run(programs.waits_with_a_connection(session_lint_database.url("DRIVER")))
        """.replace("DRIVER", driver),
        "--session-lint",
    )
    seen = {(evidence["test"].partition("::")[2], Oracle(evidence["oracle"])) for evidence in ran.report["evidence"]}
    assert seen == {
        ("test_write", Oracle.LOST_WRITE),
        ("test_aborted", Oracle.ABORTED_COMMIT),
        ("test_threads", Oracle.CONCURRENT_USE),
        ("test_tasks", Oracle.CONCURRENT_USE),
        ("test_wait", Oracle.HELD_ACROSS_AWAIT),
    }, ran.output


def test_what_is_fine(run: Run, tmp_path: Path) -> None:
    (tmp_path / "programs.py").write_text(textwrap.dedent(PROGRAMS))
    ran = run(
        """
        import programs
        def test_write(engine):
            programs.commits(engine)
        def test_threads(engine):
            with Session(engine) as session:
                programs.on_two_threads(session, at_once=False)
        @pytest.mark.parametrize("driver", ASYNC_DRIVERS)
        @pytest.mark.parametrize("program", [programs.on_one_task_after_the_other, programs.waits_for_the_database])
        def test_async(program, driver, session_lint_database):
            asyncio.run(program(session_lint_database.url(driver)))
        """,
        "--session-lint",
    )
    assert (ran.status, ran.report["evidence"], ran.report["tests"]) == (0, [], 2 + 2 * len(ASYNC_DRIVERS)), ran.output


@pytest.mark.skipif(not Path("/proc/thread-self/schedstat").exists(), reason="this system does not say who had to wait")
@pytest.mark.parametrize("option", ["--session-lint", "--session-lint-faults"])
def test_a_machine_with_much_to_do_makes_no_await_slow(option: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "programs.py").write_text(textwrap.dedent(PROGRAMS))
    ran = run(
        """
        import programs
        def test_async(session_lint_database):
            asyncio.run(programs.waits_for_a_thread_that_hardly_gets_a_turn(session_lint_database.url("asyncpg")))
        """,
        option,
        "--session-lint-limit=0",
    )
    assert (ran.status, ran.report["evidence"], ran.report["tests"]) == (0, [], 1), ran.output
