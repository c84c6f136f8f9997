"""What the names of SQLAlchemy and its companions stand for. Data, not logic."""

from __future__ import annotations

from session_lint.findings import Confidence
from session_lint.flow.values import (
    ASYNC_CONNECTION,
    ASYNC_SESSION,
    CONNECTION,
    SESSION,
    SessionClass,
    SessionType,
    Value,
)

SESSION_CLASSES: dict[str, SessionType] = {
    "sqlalchemy.orm.Session": SESSION,
    "sqlalchemy.orm.session.Session": SESSION,
    "sqlmodel.Session": SESSION,
    "sqlmodel.orm.session.Session": SESSION,
    "flask_sqlalchemy.session.Session": SESSION,
    "flask_sqlalchemy.SignallingSession": SESSION,
    "sqlalchemy.ext.asyncio.AsyncSession": ASYNC_SESSION,
    "sqlalchemy.ext.asyncio.session.AsyncSession": ASYNC_SESSION,
    "sqlmodel.ext.asyncio.session.AsyncSession": ASYNC_SESSION,
}
CONNECTION_CLASSES: dict[str, SessionType] = {
    "sqlalchemy.Connection": CONNECTION,
    "sqlalchemy.engine.Connection": CONNECTION,
    "sqlalchemy.engine.base.Connection": CONNECTION,
    "sqlalchemy.ext.asyncio.AsyncConnection": ASYNC_CONNECTION,
    "sqlalchemy.ext.asyncio.engine.AsyncConnection": ASYNC_CONNECTION,
}
SESSION_FACTORIES: dict[str, bool] = {
    "sqlalchemy.orm.sessionmaker": False,
    "sqlalchemy.orm.session.sessionmaker": False,
    "sqlalchemy.orm.create_session": False,
    "sqlalchemy.ext.asyncio.async_sessionmaker": True,
    "sqlalchemy.ext.asyncio.session.async_sessionmaker": True,
}
"""Callables that make factories; whether their sessions are asynchronous."""

REGISTRIES: dict[str, bool] = {
    "sqlalchemy.orm.scoped_session": False,
    "sqlalchemy.orm.scoping.scoped_session": False,
    "sqlalchemy.ext.asyncio.async_scoped_session": True,
    "sqlalchemy.ext.asyncio.scoping.async_scoped_session": True,
}
ENGINE_MAKERS: dict[str, bool] = {
    "sqlalchemy.create_engine": False,
    "sqlalchemy.engine.create_engine": False,
    "sqlalchemy.engine_from_config": False,
    "sqlalchemy.engine.engine_from_config": False,
    "sqlmodel.create_engine": False,
    "sqlalchemy.ext.asyncio.create_async_engine": True,
    "sqlalchemy.ext.asyncio.engine.create_async_engine": True,
    "sqlalchemy.ext.asyncio.async_engine_from_config": True,
}
ENGINE_CLASSES: dict[str, bool] = {
    "sqlalchemy.Engine": False,
    "sqlalchemy.engine.Engine": False,
    "sqlalchemy.engine.base.Engine": False,
    "sqlalchemy.future.Engine": False,
    "sqlalchemy.ext.asyncio.AsyncEngine": True,
    "sqlalchemy.ext.asyncio.engine.AsyncEngine": True,
}
EXTENSIONS = (
    "flask_sqlalchemy.SQLAlchemy",
    "flask_sqlalchemy.extension.SQLAlchemy",
    "flask_sqlalchemy_lite.SQLAlchemy",
    "sqlalchemy_helpers.flask_ext.DatabaseExtension",
)
OF_EXTENSION = {
    "create_session": "sqlalchemy.orm.sessionmaker",
    "create_scoped_session": "sqlalchemy.orm.scoped_session",
}
"""What Flask-SQLAlchemy 2 makes sessions of its own with: they are not the one that it removes."""

DEPENDS = ("fastapi.Depends", "fastapi.params.Depends", "fastapi.Security", "fastapi.param_functions.Depends")
PROXIES = ("werkzeug.local.LocalProxy", "werkzeug.LocalProxy")
"""What stands for the result of a function, which it calls whenever it is used."""

CASTS = ("typing.cast", "typing_extensions.cast")
"""What tells a type checker the type of their second argument, and gives that."""

CONTEXT_MANAGERS = ("contextlib.contextmanager", "contextlib.asynccontextmanager")

WRITING_STATEMENTS = ("insert", "update", "delete", "on_conflict_do_nothing", "on_conflict_do_update")
PACKAGES = ("sqlalchemy", "sqlmodel", "flask_sqlalchemy", "advanced_alchemy", "geoalchemy2")


def session_class(name: str) -> Value:
    """The session class of that dotted name, or None."""
    found = SESSION_CLASSES.get(name) or CONNECTION_CLASSES.get(name)
    return SessionClass(found) if found else None


def weaker(kind: SessionType, certainty: Confidence) -> SessionType:
    """The same type, believed less."""
    return kind._replace(certainty=kind.certainty.at_most(certainty))
