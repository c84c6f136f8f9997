"""Runs the blocks of the rule book that define `scenario(...)` on a real PostgreSQL.

A block imports what an application has (`app.engine`, `app.models`, `app.db`); here these modules are made, with an
engine of the kind that the block wants. A parameter `client` is an httpx client of the block's FastAPI application;
a parameter `session` is a session whose owner, whom the block does not show, commits and closes after success only.
Sleeping is left out: a retry's pauses prove nothing.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import inspect
import re
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from book import Case
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlmodel import Session as ModelSession

from session_lint.runtime.evidence import PROVES, Evidence
from session_lint.runtime.exploring import CAME_BACK, Explorer, Program, Run
from session_lint.runtime.postgres import Database

APPLICATION = Path(__file__).parent / "data" / "scenario_app"
MODELS = "app.models"
LATE_IS_THE_BUG = {"SES204"}
"""Rules for which it counts that a connection came back only after a turn of the event loop."""

_URL = re.compile(r'"postgresql(?:\+\w+)?://[^"]*"')
_ENGINE = """
from sqlalchemy import create_engine as _create
from sqlalchemy.ext.asyncio import create_async_engine as _create_async
from app import options

_options = {"pool_size": 2, "max_overflow": 0, "pool_timeout": 0.5}
async_engine = _create_async(options.async_url, **_options)
sync_engine = _create(options.sync_url, **_options)
engine = async_engine if options.asynchronous else sync_engine
"""
_DB = """
from app.engine import engine
from sqlalchemy.orm import sessionmaker

new_session = sessionmaker(engine)


def get_db():
    session = new_session()
    yield session
    session.close()
"""
_ASYNC_DB = """
from app.engine import engine
from sqlalchemy.ext.asyncio import async_sessionmaker

new_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_db():
    session = new_session()
    yield session
    await session.close()
"""


class Ground:
    """A database for one scenario after the other, with the tables that the examples' applications have."""

    def __init__(self, database: Database) -> None:
        self.database = database
        _create_tables(database)
        self._connection = database.connect()
        tables = self._connection.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        sequences = self._connection.query("SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'")
        # TRUNCATE makes new files for every table and index, which costs more than all the rest of a run.
        self._seed = (
            "SET lock_timeout = '5s';"
            + "".join(f"DELETE FROM {name};" for (name,) in tables)
            + "".join(f"SELECT setval('{name}', 1, false);" for (name,) in sequences)
            + "INSERT INTO users (name, email) VALUES ('Ada', 'ada@example.org');"
            "INSERT INTO products (name) VALUES ('tea'); INSERT INTO jobs (name, state) VALUES ('a job', 'new');"
            "INSERT INTO threads (id, user_id, title) VALUES ('1', 1, 'first');"
            "INSERT INTO accounts (balance) VALUES (10); INSERT INTO invoices (state) VALUES ('open'), ('open');"
            "INSERT INTO orders (state) VALUES ('new'); INSERT INTO catalogs (name) VALUES ('birds');"
            "INSERT INTO reports (state) VALUES ('new'); INSERT INTO messages (text, state) VALUES ('hello', 'new')"
        )

    def seed(self) -> None:
        """Nothing but one row where an example looks for one."""
        self._connection.query(self._seed)

    def clear(self) -> None:
        """End whoever is still connected. Nobody waits for it, which takes 100 ms: the next one waits for locks."""
        self._connection.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def close(self) -> None:
        self._connection.close()


@dataclass
class Scenario:
    """One case, written as a project into a directory."""

    case: Case
    directory: Path
    ground: Ground

    def write(self) -> None:
        texts = [source.text for source in self.case.sources]
        # Where a block has both, it calls one of them `async_engine`.
        both = any("import async_engine, engine" in text for text in texts)
        asynchronous = any("ext.asyncio" in text for text in texts) and not both
        urls = {name: self.ground.database.url(driver) for name, driver in (("sync", "psycopg"), ("async", "asyncpg"))}
        files = {
            "app/__init__.py": "",
            "app/options.py": f"asynchronous = {asynchronous}\n"
            + "".join(f"{name}_url = {url!r}\n" for name, url in urls.items()),
            "app/engine.py": _ENGINE,
            "app/db.py": _ASYNC_DB if asynchronous else _DB,
            **{f"app/{path.name}": path.read_text() for path in APPLICATION.glob("*.py")},
        }
        for source in self.case.sources:
            url = urls["async" if "create_async_engine" in source.text else "sync"]
            files[source.name] = _URL.sub(lambda _, url=url: repr(url), source.text)  # type: ignore[misc]
        for name, text in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def prepare(self) -> Program:
        """The program, from modules that are new, on rows that are new. Its models are for all: mappers cost a lot."""
        for name in [name for name in sys.modules if name.partition(".")[0] in {"app", "example"}]:
            if name != MODELS:
                del sys.modules[name]
        modules = [importlib.import_module(s.name[: -len(".py")].replace("/", ".")) for s in self.case.sources]
        for module in modules:
            for name, quick in (("time", _QuickTime()), ("asyncio", _QuickAsyncio())):
                if name in vars(module):
                    setattr(module, name, quick)
        self.ground.seed()
        (scenario,) = [m.scenario for m in modules if hasattr(m, "scenario")]
        wanted = inspect.signature(scenario).parameters.keys()
        if "client" in wanted:
            return _with_client(scenario, modules)
        if "session" in wanted:
            return _with_session(scenario, sqlmodel=any("sqlmodel" in source.text for source in self.case.sources))
        program: Program = scenario
        return program


def _with_client(scenario: Callable[..., Any], modules: list[types.ModuleType]) -> Program:
    from fastapi import APIRouter, FastAPI

    values = [value for module in modules for value in vars(module).values()]
    application = next((value for value in values if isinstance(value, FastAPI)), None) or FastAPI()
    for value in values:
        if isinstance(value, APIRouter):
            application.include_router(value)

    @functools.wraps(scenario)
    async def run() -> None:
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://scenario") as client:
            await scenario(client)

    return run


def _with_session(scenario: Callable[..., Any], *, sqlmodel: bool) -> Program:
    engines = importlib.import_module("app.engine")
    if inspect.iscoroutinefunction(scenario):

        async def run_async() -> None:
            session = AsyncSession(engines.async_engine, expire_on_commit=False)
            await scenario(session)
            await session.commit()
            await session.close()

        return run_async

    def run() -> None:
        session = (ModelSession if sqlmodel else Session)(engines.sync_engine)
        scenario(session)
        session.commit()
        session.close()

    return run


def _create_tables(database: Database) -> None:
    from sqlalchemy import create_engine

    sys.path.insert(0, str(APPLICATION))
    try:
        models = importlib.import_module("models")
    finally:
        sys.path.remove(str(APPLICATION))
        sys.modules.pop("models", None)
    engine = create_engine(database.url("psycopg"))
    models.Base.metadata.create_all(engine)
    engine.dispose()
    with database.connect() as connection:
        connection.query("CREATE MATERIALIZED VIEW totals AS SELECT count(*) FROM users")


def explore(explorer: Explorer, scenario: Scenario) -> Iterator[Run]:
    """All runs of a scenario."""
    scenario.write()
    sys.path.insert(0, str(scenario.directory))
    importlib.invalidate_caches()
    try:
        yield from explorer.explore(scenario.prepare)
    finally:
        sys.path.remove(str(scenario.directory))


def proofs(code: str, runs: list[Run]) -> list[Evidence]:
    """The evidence that proves a rule's finding."""
    return [
        evidence
        for run in runs
        for evidence in run.evidence
        if evidence.oracle in PROVES[code] and (CAME_BACK not in evidence.facts or code in LATE_IS_THE_BUG)
    ]


class _QuickTime:
    def sleep(self, seconds: float) -> None:
        """Do not."""

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class _QuickAsyncio:
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)
