"""Recognising a session by what is called on it, where no type says what it is.

A name alone proves nothing (`requests.Session`, cookie sessions, sqlite3, git), and neither does one method:
sqlite3 connections commit, repositories add. What only a SQLAlchemy session can answer, together, does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow.values import Path, SessionType
from session_lint.project.bodies import Bodies, Body

_ENDS = frozenset({"commit", "rollback", "flush"})
_WORK = frozenset(
    "add add_all query merge delete refresh scalars scalar expunge expunge_all begin_nested execute get exec "
    "bulk_save_objects bulk_insert_mappings no_autoflush expire_all close remove".split()
)
_ONLY_SESSIONS = frozenset(
    "add_all expunge expunge_all begin_nested bulk_save_objects bulk_insert_mappings bulk_update_mappings "
    "no_autoflush expire_all expire scalars merge get_one flush".split()
)
ONLY_DATABASES = frozenset("query flush scalars add_all begin_nested commit rollback execute".split())
"""What a cookie session, or another thing that is called session, never has."""

_METHODS = frozenset(
    "add add_all aclose begin begin_nested bulk_insert_mappings bulk_save_objects bulk_update_mappings close close_all "
    "commit configure connection delete enable_relationship_loading exec execute expire expire_all expunge expunge_all "
    "flush get get_bind get_nested_transaction get_one get_transaction identity_key in_nested_transaction "
    "in_transaction info invalidate is_active is_modified merge object_session prepare query query_property refresh "
    "registry remove reset rollback run_sync scalar scalars stream stream_scalars".split()
)
"""All that sessions and scoped sessions have."""

_SESSION_NAME = re.compile(r"(^|_)(db|sess|session|dbsession|s)$|session$", re.IGNORECASE)
_CONNECTION_NAME = re.compile(r"(^|_)(conn|connection)$", re.IGNORECASE)
_FACTORY_NAME = re.compile(
    r"^_*(session_?local|async_?session_?local|session_?maker|session_?factory|async_session(_maker|_factory)?|"
    r"(create|make|new|open)_(\w+_)?session|Session|AsyncSession|db_session_factory|_session_factory|_session_maker)"
    r"(_class|_cls)?$",
    re.IGNORECASE,
)
_NOT_SESSIONS = frozenset("cursor executescript executemany row_factory request headers cookies post put mount".split())


class Usage(NamedTuple):
    """What a function does with a path. methods: what it calls on it. awaited: the ones it awaits."""

    methods: frozenset[str]
    awaited: frozenset[str]


def is_session(seen: Usage, is_near_sqlalchemy: bool) -> bool:
    """Whether what is called so, where nothing else says what it is, does the work of a session and ends it.

    is_near_sqlalchemy: it is used where SQLAlchemy is; then it need not do what a driver's connection could not.
    """
    decisive = is_near_sqlalchemy or seen.methods & {"add", *_ONLY_SESSIONS} - {"flush", "merge"}
    works = seen.methods - _ENDS - {"close", "remove"}
    return bool(decisive and works and seen.methods & _ENDS and seen.methods <= _METHODS)


def usage(known: Bodies, bodies: Iterable[Body]) -> dict[Path, Usage]:
    """What is called on which path, in the bodies and the functions nested in them."""
    methods: dict[Path, set[str]] = {}
    awaited: dict[Path, set[str]] = {}

    def visit(body: Body) -> None:
        for statement, nodes in known.parts(body):
            if isinstance(statement, ir.Define):
                visit(statement.definition.body)
                continue
            for node in nodes:
                if isinstance(node, ir.Call) and isinstance(node.function, ir.Name):
                    path = node.function.path
                    if len(path) > 1:
                        methods.setdefault(path[:-1], set()).add(path[-1])
                elif isinstance(node, ir.Call) and isinstance(node.function, ir.Attribute):
                    base = node.function.base
                    if isinstance(base, ir.Call) and isinstance(base.function, ir.Name) and not base.arguments:
                        methods.setdefault((*base.function.path, "()"), set()).add(node.function.name)
                elif isinstance(node, ir.Await) and isinstance(node.value, ir.Call):
                    function = node.value.function
                    if isinstance(function, ir.Name) and len(function.path) > 1:
                        awaited.setdefault(function.path[:-1], set()).add(function.path[-1])
                elif isinstance(node, ir.Lambda):
                    visit(node.function.body)

    for body in bodies:
        visit(body)
    return {path: Usage(frozenset(names), frozenset(awaited.get(path, ()))) for path, names in methods.items()}


def named_like_session(name: str) -> bool:
    """Whether a variable is called what sessions are called. No proof of anything."""
    return _SESSION_NAME.search(name) is not None


def makes_sessions(name: str) -> bool:
    """Whether a function is called what those are called that make sessions. No proof of anything."""
    return _FACTORY_NAME.match(name) is not None


def recognise(name: str, seen: Usage | None, has_sqlalchemy: bool) -> SessionType | None:
    """The type that a variable must have, judged by its use; None if it could be something else.

    has_sqlalchemy: the module imports SQLAlchemy or something built on it.
    """
    if seen is None or seen.methods & _NOT_SESSIONS:
        return None
    methods = seen.methods
    is_async = bool(seen.awaited & (_ENDS | {"execute", "scalars", "scalar", "refresh", "close", "get", "delete"}))
    if _SESSION_NAME.search(name):
        enough = (
            bool(methods & _ENDS and methods & (_WORK - {"execute", "close", "delete", "get"}))
            or len(methods & _ONLY_SESSIONS) >= 2
            or (has_sqlalchemy and bool(methods & (_ENDS | {"query", "scalars", "exec", "add", "execute", "close"})))
        )
    else:
        enough = bool(methods & _ENDS and methods & _ONLY_SESSIONS and methods & {"add", "add_all", "query", "scalars"})
    if enough:
        return SessionType("session", is_async, Confidence.LIKELY)
    if has_sqlalchemy and _CONNECTION_NAME.search(name) and "execute" in methods:
        return SessionType("connection", is_async, Confidence.LIKELY)
    return None
