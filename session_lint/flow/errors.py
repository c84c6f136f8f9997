"""Exceptions as kinds, and which handler catches which.

A kind is a dotted class name, or one of those below. Facts about drivers: a unique violation arrives as
IntegrityError everywhere; a serialization failure, a timeout or a killed backend is an OperationalError with
psycopg and a plain DBAPIError with asyncpg, so that `except OperationalError` may or may not catch it. Whatever a
driver raises arrives wrapped, so that no handler of a driver's own class catches it.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable
from typing import NamedTuple

from session_lint import ir

ANY = "any"  # some Exception from a call that can't be seen
INTEGRITY = "database: integrity"
DATABASE = "database"
REFUSED = "database: refused"  # a session that has failed before refuses what comes next
DATABASES = (INTEGRITY, DATABASE, REFUSED)
CANCELLED = "cancelled"
ABANDONED = "abandoned"  # GeneratorExit at a yield

_EVERYTHING = ("BaseException",)
_EXCEPTION = ("Exception", *_EVERYTHING)
_SQLALCHEMY = ("SQLAlchemyError", "DBAPIError", "StatementError")
_INTEGRITY = (
    "IntegrityError",
    "UniqueViolation",
    "UniqueViolationError",
    "ForeignKeyViolation",
    "ForeignKeyViolationError",
)
_OPERATIONAL = (
    "DatabaseError",
    "OperationalError",
    "ProgrammingError",
    "InternalError",
    "InterfaceError",
    "DataError",
    "StaleDataError",
    "FlushError",
    "Error",
)
_REFUSALS = ("PendingRollbackError", "InvalidRequestError", "ResourceClosedError")
"""What a session or connection raises that is in no state to send anything: no statement that is sent fails so."""
_DRIVERS = frozenset(
    """
    MySQLdb aiomysql aiosqlite asyncmy asyncpg cx_Oracle mysql oracledb pg8000 psycopg psycopg2 psycopg2cffi pymssql
    pymysql pyodbc sqlite3
    """.split()
)
_DATABASE_WORDS = ("integrity", "unique", "duplicate", "dberror", "database", "sqlalchemy")
_NOT_FAILURES = ("NoResultFound", "MultipleResultsFound")


class Error(NamedTuple):
    """An exception in flight. text: what raises it, in plain words. by_yield: thrown in at a yield."""

    kind: str
    place: ir.Place
    text: str
    by_yield: bool = False


def is_database_type(name: str) -> bool:
    """Whether a class is one that a failed statement raises; the author expects one where it is caught."""
    last = name.rpartition(".")[2]
    if last in _NOT_FAILURES or _is_drivers(name):
        return False
    if last in _SQLALCHEMY or last in _INTEGRITY or last in _REFUSALS or (last in _OPERATIONAL and last != "Error"):
        return True
    return any([word in last.lower() for word in _DATABASE_WORDS])


def is_conflict_type(name: str) -> bool:
    """Whether a class says that a write was refused; nothing but a failed statement raises it."""
    last = name.rpartition(".")[2]
    return last in _INTEGRITY or any([word in last.lower() for word in ("integrity", "unique", "duplicate")])


def _is_drivers(name: str) -> bool:
    head, dot, _ = name.partition(".")
    return bool(dot) and head in _DRIVERS


Lineage = Callable[[str], "tuple[str, ...] | None"]
"""The names of all classes that a class of the project inherits from; None for a class of somebody else."""


def caught(kind: str, types: Iterable[str], lineage: Lineage) -> str:
    """Whether a handler for `types` (dotted names) catches the kind: "always", "maybe" or "never"."""
    best = "never"
    for name in types:
        verdict = _caught_by(kind, name, lineage)
        if verdict == "always":
            return verdict
        if verdict == "maybe":
            best = verdict
    return best


def _caught_by(kind: str, name: str, lineage: Lineage) -> str:
    last = name.rpartition(".")[2]
    if last in _EVERYTHING:
        return "always"
    if kind == CANCELLED:
        return "always" if last == "CancelledError" else "never"
    if kind == ABANDONED:
        return "always" if last == "GeneratorExit" else "never"
    if last == "Exception":
        return "never" if _beyond_exception(kind) else "always"
    if kind == ANY:
        return "never" if last in ("CancelledError", "GeneratorExit", "KeyboardInterrupt", "SystemExit") else "maybe"
    if kind in DATABASES:
        own = lineage(name)
        return _database_caught_by(kind, name) if own is None else _caught_by_class(kind, own)
    return _class_caught_by(kind, name, lineage)


def _database_caught_by(kind: str, name: str) -> str:
    """For a class of SQLAlchemy, of a driver, or of somebody else."""
    last = name.rpartition(".")[2]
    if _is_drivers(name):
        return "never"
    if last in _REFUSALS:
        return "maybe" if kind == REFUSED else "never"
    if kind == INTEGRITY:
        if last in _SQLALCHEMY or last in _INTEGRITY or last in ("DatabaseError", "Error"):
            return "always"
        return "maybe" if is_database_type(name) and last not in _OPERATIONAL else "never"
    if last in _SQLALCHEMY:
        return "always"
    if is_conflict_type(name):
        return "never"
    return "maybe" if last in _OPERATIONAL or is_database_type(name) else "never"


def _caught_by_class(kind: str, own: tuple[str, ...]) -> str:
    """For a class of the project: only what inherits from a database error is ever raised by a statement."""
    raised = (*_SQLALCHEMY, *_INTEGRITY, *_OPERATIONAL, *(_REFUSALS if kind == REFUSED else ()))
    return "maybe" if any([parent.rpartition(".")[2] in raised for parent in own[1:]]) else "never"


def _beyond_exception(kind: str) -> bool:
    found = getattr(builtins, kind.rpartition(".")[2], None)
    return isinstance(found, type) and issubclass(found, BaseException) and not issubclass(found, Exception)


def _class_caught_by(kind: str, name: str, lineage: Lineage) -> str:
    kind_last, last = kind.rpartition(".")[2], name.rpartition(".")[2]
    if kind_last == last:
        return "always"
    parents = {parent.rpartition(".")[2] for parent in lineage(kind) or ()}
    if last in parents:
        return "always"
    for candidate in (kind_last, *parents):
        raised, wanted = getattr(builtins, candidate, None), getattr(builtins, last, None)
        if isinstance(raised, type) and isinstance(wanted, type) and issubclass(raised, wanted):
            return "always"
    if kind_last in _NOT_FAILURES:
        return "always" if last in ("InvalidRequestError", "SQLAlchemyError") else "never"
    if kind_last in _REFUSALS:
        return "always" if last == "SQLAlchemyError" else "never"
    if kind_last in _INTEGRITY or kind_last in _OPERATIONAL:
        return "always" if last in _SQLALCHEMY or last == "DatabaseError" else "never"
    return "never"
