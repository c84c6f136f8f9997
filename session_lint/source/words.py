"""The prefilter: which files can hold a session at all, judged by their bytes before anything is parsed."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from session_lint.source import entry_words

WORDS = (
    b"ession",
    b"sqlalchemy",
    b"sqlmodel",
    b"get_db",
    b".commit(",
    b".rollback(",
    b".flush(",
    # A helper that is given the session without a type, and neither commits nor flushes.
    b"db.add",
    b"db.close(",
    b"db.delete(",
    b"db.execute(",
    b"db.merge(",
    b"db.query(",
    b"db.scalar",
    b"(db,",
    b"(db)",
    b", db,",
    b", db)",
    b"db=db",
    b"(conn,",
    b"(conn)",
    b", conn,",
    b", conn)",
    b"conn=conn",
    b"engine.",
    b"contextmanager",
    # A base class that leaves it to others what their `with` blocks end with.
    b"def __exit__(",
    b"def __aexit__(",
    # What the models of Flask-SQLAlchemy are made from; who writes with them need not name a session.
    b"db.Model",
    b"DB.Model",
    b"db.Column(",
    # A handler that gets an object which holds a session need not name one.
    b"Depends(",
    # Nor does one that works with repositories.
    b"Repositor",
    # An object that opens a session of its own.
    b"Service()",
    b"DAO()",
    b"Dao()",
    b"Repo()",
    # Whoever starts a task or thread may give it an object that holds a session.
    b".add_task(",
    b"BackgroundTask(",
    b".submit(",
    b"run_in_executor(",
    b"Thread(",
    b"Timer(",
    # A job that runs in an application context, or a worker that begins one for good.
    b"app_context(",
    # What ends the requests of Pecan.
    b"TransactionHook(",
    # A helper that handlers of errors call, and never come back from.
    b"-> NoReturn",
    b"-> Never:",
)


def may_matter(data: bytes, own: Sequence[str] = (), is_package: bool = False) -> bool:
    """Whether the file has any of the words, or what a framework calls. own: words that the settings add.

    is_package: it is an `__init__.py`: what it imports is mostly there for others to import it from here.
    """
    if is_package and b"import" in data:
        return True
    return (
        any([word in data for word in WORDS])
        or any([word.encode() in data for word in own])
        or entry_words.may_hold(data)
        or (b"async def" in data and _may_lose_coroutines(data))
        or _KEEPER.search(data) is not None
    )


_KEEPER = re.compile(
    rb"^[ \t]*\w+[ \t]*(?::[^=\n]*)?=[ \t]*(?:\w+\.)*\w*(?:Database|D[Bb]|SQL|Storage|Store|Postgres)\w*\(",
    re.MULTILINE,
)
"""`storage = Storage(url)`, for others to import: its class may make sessions, and nobody here needs to name them."""
_ALONE = re.compile(rb"^[ \t]+([a-z_]\w*)\(", re.MULTILINE)
_FROM = re.compile(rb"^[ \t]*from (\w*)[\w.]* import (\([^)]*\)|[^\n]*)", re.MULTILINE)
_STANDARD = frozenset([name.encode() for name in sys.stdlib_module_names])


def _may_lose_coroutines(data: bytes) -> bool:
    """Whether it has a decorator that leaves coroutine functions ones, or calls what it imports for nothing."""
    if b"wraps(" in data:
        return True
    alone = set(_ALONE.findall(data))
    imported = [names for module, names in _FROM.findall(data) if module not in _STANDARD] if alone else []
    return any([not alone.isdisjoint(re.findall(rb"\w+", names)) for names in imported])
