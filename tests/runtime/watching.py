"""Small programs with and without bugs, run under the probe on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKey, Integer, String, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Mapped, registry
from supported import SYNC_DRIVER

from session_lint.runtime.evidence import Evidence, Oracle
from session_lint.runtime.oracles import Case, judge
from session_lint.runtime.postgres import Database
from session_lint.runtime.probe import Probe
from session_lint.runtime.recording import Recording


class Model:
    def __init__(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)


# As SQLAlchemy 1.4 and 2 both understand it.
mapping = registry()
column: Any = Column


@mapping.mapped
class User(Model):
    __tablename__ = "users"

    id: Mapped[int] = column(Integer, primary_key=True)
    name: Mapped[str] = column(String(50), unique=True, nullable=False)


@mapping.mapped
class Order(Model):
    __tablename__ = "orders"

    id: Mapped[int] = column(Integer, primary_key=True)
    user_id: Mapped[int] = column(ForeignKey("users.id", deferrable=True, initially="DEFERRED"), nullable=False)


@mapping.mapped
class Item(Model):
    __tablename__ = "items"

    id: Mapped[int] = column(Integer, primary_key=True)
    name: Mapped[str] = column(String, nullable=False)


@mapping.mapped
class Account(Model):
    __tablename__ = "accounts"

    id: Mapped[int] = column(Integer, primary_key=True)
    balance: Mapped[int] = column(Integer, nullable=False)


Program = Callable[[Any], Any]


@dataclass
class Watched:
    """What one run showed."""

    recording: Recording
    evidence: list[Evidence]
    error: BaseException | None

    @property
    def oracles(self) -> set[Oracle]:
        return {evidence.oracle for evidence in self.evidence}

    @property
    def kinds(self) -> list[str]:
        return [operation.kind.value for operation in self.recording.operations]

    def of(self, oracle: Oracle) -> Evidence:
        (evidence,) = [each for each in self.evidence if each.oracle is oracle]
        return evidence


def watch(probe: Probe, program: Program, database: Database, driver: str) -> Watched:
    """Run the program with an engine of its own and judge what it leaves behind."""
    with database.connect() as connection:
        connection.query("TRUNCATE users, orders")
    recording = probe.begin()
    error: BaseException | None = None
    evidence: list[Evidence] = []

    async def main() -> None:
        nonlocal error
        engine = create_async_engine(database.url(driver))
        try:
            await program(engine)
        except Exception as raised:  # noqa: BLE001 - an outcome like others
            error = raised
        evidence.extend(judge(Case(recording, probe.observers, error)))

    try:
        if inspect.iscoroutinefunction(program):
            asyncio.run(main())
        else:
            engine = create_engine(database.url(driver))
            try:
                program(engine)
            except Exception as raised:  # noqa: BLE001
                error = raised
            evidence.extend(judge(Case(recording, probe.observers, error)))
        return Watched(recording, evidence, error)
    finally:
        recording.release()
        probe.observers.close()


def without_garbage_collection() -> Iterator[None]:
    """What is left behind must not go away because the collector happens to run, nor a later test pay for it."""
    gc.disable()
    yield
    gc.enable()
    gc.collect()


def create_tables(database: Database) -> None:
    engine = create_engine(database.url(SYNC_DRIVER))
    mapping.metadata.create_all(engine)
    engine.dispose()
