"""Runs pytest with our plugin in a child process, on a small project.

The children are forked from a server that has imported what all of them need: the imports cost more than the tests.
"""

from __future__ import annotations

import importlib.metadata
import json
import multiprocessing
import os
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from child_test import run_pytest
from supported import ASYNC_DRIVERS, IS_SQLALCHEMY_1, SYNC_DRIVER

from session_lint.runtime.confirm import PLUGIN
from session_lint.runtime.postgres import ENVIRONMENT

APP = f"""
SYNC_DRIVER, ASYNC_DRIVERS, IS_SQLALCHEMY_1 = {SYNC_DRIVER!r}, {ASYNC_DRIVERS!r}, {IS_SQLALCHEMY_1}
from sqlalchemy import Column, Integer, String, select, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, declarative_base

Base = declarative_base()

class User(Base):
    __tablename__ = "users"
    id = Column(Integer, primary_key=True)
    name = Column(String(50), nullable=False)

def leaks(engine):
    session = Session(engine)
    return session.scalar(text("SELECT 1"))

def closes(engine):
    with Session(engine) as session:
        return session.scalar(text("SELECT 1"))

def closes_unless_it_fails(engine):
    session = Session(engine)
    session.add(User(name="a"))
    session.commit()
    session.close()

def add_once(engine):
    with Session(engine) as session:
        if session.scalar(select(User)) is None:
            session.add(User(name="a"))
        session.commit()

async def leaks_async(engine):
    session = AsyncSession(engine)
    return await session.scalar(text("SELECT 1"))

async def closes_async_unless_it_fails(engine):
    session = AsyncSession(engine)
    session.add(User(name="a"))
    await session.commit()
    await session.close()
"""

CONFTEST = """
import pytest
from app import Base, SYNC_DRIVER
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

@pytest.fixture
def engine(session_lint_database):
    engine = create_engine(session_lint_database.url(SYNC_DRIVER))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()

@pytest.fixture(scope="session")
def long_lived(session_lint_postgres):
    with session_lint_postgres.new_database() as database:
        session = Session(create_engine(database.url(SYNC_DRIVER)))
        session.connection()
        yield session
        session.close()
"""


@dataclass
class Ran:
    status: int
    output: str
    report: dict[str, Any]

    @property
    def oracles(self) -> list[str]:
        return sorted({evidence["oracle"] for evidence in self.report["evidence"]})


Run = Callable[..., Ran]

PRELOADED = [
    "anyio.pytest_plugin",
    "asyncpg",
    SYNC_DRIVER,
    "pytest",
    "pytest_asyncio.plugin",
    "session_lint.runtime.postgres",
    "session_lint.runtime.testing",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm",
    "xdist.plugin",
]


# What is preloaded can't get its assertions rewritten; nobody asserts there.
_NO_WORD = ("-W", "ignore::pytest.PytestAssertRewriteWarning")


def run_in(directory: Path, url: str) -> Run:
    """What runs a test file there; url: that of the server which the plugin's fixtures give out."""

    def run(tests: str, *options: str, conftest: str = CONFTEST, preloaded: bool = True, last: bool = False) -> Ran:
        # last: the options are the last word, also about the report.
        (directory / "app.py").write_text(APP)
        (directory / "conftest.py").write_text(conftest)
        (directory / "pytest.ini").write_text("[pytest]\n")
        (directory / "test_it.py").write_text("import asyncio, pytest\nfrom app import *\n" + textwrap.dedent(tests))
        file = directory / "report.json"
        file.unlink(missing_ok=True)
        if not importlib.metadata.entry_points(group="pytest11", name="session_lint"):
            options = ("-p", PLUGIN, *options)
        command = ["-q", "-p", "no:cacheprovider", *_NO_WORD, *options]
        if any(option.startswith("--session-lint") for option in options):
            command.insert(0 if last else len(command), f"--session-lint-report={file}")
        environment = {**os.environ, ENVIRONMENT: url, "PYTHONPATH": str(directory)}
        for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
            environment.pop(name, None)
        output = directory / "output"
        context: Any = multiprocessing.get_context("forkserver" if preloaded else "spawn")
        context.set_forkserver_preload(PRELOADED)
        child = context.Process(target=run_pytest, args=(command, directory, environment, output))
        child.start()
        child.join(300)
        if child.exitcode is None:
            child.kill()
        report = json.loads(file.read_text()) if file.exists() else {}
        return Ran(-1 if child.exitcode is None else child.exitcode, output.read_text(), report)

    return run
