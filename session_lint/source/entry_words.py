"""What marks a function that a framework calls: in words, for those who look at text, at trees or at the IR."""

from __future__ import annotations

import re

ROUTES = frozenset(
    "get post put delete patch head options route websocket api_route websocket_route expose view view_config".split()
)
BARE_ROUTES = frozenset("expose view_config".split())
"""Decorators that mean a route without an application or router in front."""
JOBS = frozenset(
    "task shared_task periodic_task db_task actor cron scheduled_job on_message subscriber consumer agent listener "
    "message message_handler callback_query callback_query_handler event slash_command listen loop".split()
)
BARE_JOBS = frozenset("shared_task periodic_task actor".split())
SIGNALS = frozenset("task_prerun task_success task_failure task_retry".split())
"""What Celery sends around every job."""
AHEAD = frozenset(
    "before_request before_app_request url_value_preprocessor app_url_value_preprocessor "
    "user_loader request_loader".split()
)
"""Decorators of Flask and Flask-Login: the handler of a request runs after these, unless they return an answer."""
ADDING_ROUTES = frozenset("add_api_route add_url_rule add_route add_view add_api_websocket_route".split())
ADDING_JOBS = frozenset("add_job add_handler add_handlers basic_consume".split())
HOLDER = "Handler"
"""How a class is called whose objects say when the function that they are given is to be called."""
VIEWS = frozenset("RequestHandler WebSocketHandler MethodView HTTPMethodView FlaskView Resource HTTPEndpoint".split())
SERVERS = frozenset(
    "BaseRequestHandler StreamRequestHandler DatagramRequestHandler "
    "BaseHTTPRequestHandler SimpleHTTPRequestHandler".split()
)
"""Handlers of the standard library's servers: no framework knows when they are done."""
WORKERS = frozenset("Thread Task".split())
BASES = VIEWS | SERVERS | WORKERS
"""What a class inherits from whose methods somebody else enters."""
METHODS = frozenset(
    "index get post put delete patch head options run handle do_GET do_POST do_PUT do_DELETE on_get on_post on_message "
    "before_start on_success on_failure on_retry".split()
)


def _any_of(*names: frozenset[str]) -> str:
    return "|".join([name for group in names for name in sorted(group)])


_DECORATOR = re.compile(
    rf"@[\w.]+(?<!mock)\.(?:(?:{_any_of(ROUTES)})\(|(?:{_any_of(JOBS)})\b)"
    rf"|@(?:{_any_of(BARE_ROUTES)})\(|@(?:{_any_of(ROUTES)})\(\s*f?['\"]/"
    rf"|@(?:{_any_of(BARE_JOBS)})\b|@[\w.]*(?:{_any_of(SIGNALS)})\.connect\b".encode()
)
_BASE = re.compile(rf"class \w+\([^)]*\b(?:{_any_of(BASES)})\b".encode())
ADDING = tuple([f".{name}(" for name in sorted(ADDING_JOBS | {"add_url_rule"})])
"""The calls for which a file is read. FastAPI's `add_api_route` is none: whole layers of routers that only hand on
would have to be read, and the session of a FastAPI route is mostly given to it, which has words of its own."""
_ADDING = tuple([word.encode() for word in ADDING])
ENDING = tuple([f"{signal}.connect(" for signal in ("tearing_down", "task_postrun", "task_success", "task_failure")])
"""What is connected to these signals ends requests and jobs."""
_ENDING = tuple([word.encode() for word in ENDING])
STARTING = frozenset("Thread Timer submit run_in_executor to_thread".split())
"""The calls that begin a function in a thread."""
STARTS = tuple([f"{name.lower()}(" for name in sorted(STARTING)])


def may_hold(data: bytes) -> bool:
    """Whether a file may have such a function."""
    return (
        _DECORATOR.search(data) is not None
        or _BASE.search(data) is not None
        or any([word in data for word in _ADDING + _ENDING])
    )


def is_route(path: tuple[str, ...], given: object) -> bool:
    """Whether a decorator of this name, where it is called, sends requests to the function.

    given: its first argument, where that is written out: `@get("/users")` of Litestar or Flask-Classful.
    """
    if len(path) == 1:
        return path[0] in BARE_ROUTES or (path[0] in ROUTES and isinstance(given, str) and given.startswith("/"))
    return len(path) > 1 and path[-1] in ROUTES and path[-2] != "mock"


def is_job(path: tuple[str, ...]) -> bool:
    """Whether a decorator of this name makes a job of the function."""
    if not path:
        return False
    if path[-1] == "connect":
        return not SIGNALS.isdisjoint(path)
    return path[-1] in BARE_JOBS or (len(path) > 1 and path[-1] in JOBS)
