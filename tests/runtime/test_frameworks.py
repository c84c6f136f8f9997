"""SQLModel, Flask-SQLAlchemy and scoped_session: the same oracles, and the place in the application that opened it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flask
import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import insert, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from watching import User, Watched, create_tables, watch, without_garbage_collection

from session_lint.runtime.evidence import Oracle
from session_lint.runtime.postgres import Database
from session_lint.runtime.probe import Probe

pytestmark = pytest.mark.postgres

no_garbage_collection = pytest.fixture(autouse=True)(without_garbage_collection)

LEFT_BEHIND = {Oracle.LEAKED_CONNECTION, Oracle.OPEN_TRANSACTION}


@pytest.fixture
def watched(database: Database, probe: Probe) -> Callable[[Callable[[Any], object]], Watched]:
    create_tables(database)
    return lambda program: watch(probe, program, database, "psycopg2")


def test_sqlmodel(watched: Callable[..., Watched]) -> None:
    sqlmodel = pytest.importorskip("sqlmodel", reason="there is none for SQLAlchemy 1")

    def leaks(engine: Any) -> None:
        session = sqlmodel.Session(engine)
        session.exec(sqlmodel.select(1)).all()

    def closes(engine: Any) -> None:
        with sqlmodel.Session(engine) as session:
            session.exec(sqlmodel.select(1)).all()

    seen = watched(leaks)
    assert seen.oracles == LEFT_BEHIND
    opened = seen.of(Oracle.LEAKED_CONNECTION).opened
    assert opened is not None
    assert opened.line == leaks.__code__.co_firstlineno + 1
    assert watched(closes).evidence == []


def test_scoped_session(watched: Callable[..., Watched]) -> None:
    registries: list[scoped_session[Session]] = []

    def never_removed(engine: Any) -> None:
        registries.append(scoped_session(sessionmaker(engine)))
        registries[-1].execute(text("SELECT 1"))

    def write_is_thrown_away(engine: Any) -> None:
        registry = scoped_session(sessionmaker(engine))
        registry.execute(insert(User).values(name="a"))
        registry.remove()

    assert watched(never_removed).oracles == LEFT_BEHIND
    assert watched(write_is_thrown_away).oracles == {Oracle.LOST_WRITE}


def test_flask_sqlalchemy(watched: Callable[..., Watched]) -> None:
    def application(engine: Any) -> tuple[flask.Flask, Any]:
        app = flask.Flask(__name__)
        app.config["SQLALCHEMY_DATABASE_URI"] = engine.url.render_as_string(hide_password=False)
        db = SQLAlchemy(app)

        @app.post("/users/<name>")
        def make(name: str) -> str:
            db.session.execute(insert(User).values(name=name))
            db.session.commit()
            db.session.execute(text("SELECT 1"))
            return name

        @app.post("/forgotten/<name>")
        def forget(name: str) -> str:
            db.session.execute(insert(User).values(name=name))
            return name

        return app, db

    contexts: list[Any] = []

    def requests(engine: Any) -> None:
        app, _ = application(engine)
        client = app.test_client()
        assert [client.post("/users/a").status_code for _ in range(2)] == [200, 500]  # the second one is a duplicate

    def forgotten(engine: Any) -> None:
        app, _ = application(engine)
        assert app.test_client().post("/forgotten/a").status_code == 200

    def context_never_popped(engine: Any) -> None:
        app, db = application(engine)
        contexts.append(app.app_context())
        contexts[-1].push()
        db.session.execute(text("SELECT 1"))

    assert watched(requests).evidence == []  # the extension closes the session at the end of each request
    assert watched(forgotten).oracles == {Oracle.LOST_WRITE}
    assert watched(context_never_popped).oracles == LEFT_BEHIND
    contexts[-1].pop()
