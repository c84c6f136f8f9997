"""A part of SES201: an `__exit__` that closes its object's session, but not on every way out."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks.context import Context, happens, history
from session_lint.findings import Confidence, Finding
from session_lint.flow import errors, result
from session_lint.flow.entry import LEAVING
from session_lint.flow.result import Exit, FunctionFlow, SessionInfo
from session_lint.flow.state import CLOSED, GONE, NONE, Mark
from session_lint.ir_queries import me_of


def leaving_findings(context: Context) -> Iterator[Finding]:
    """One finding per session that the object or a context variable keeps: by closing it the method says that nobody
    else does."""
    for flow in context.flows():
        function = flow.reference.function
        if function.owner and function.name in LEAVING:
            for info in flow.sessions.values():
                is_own = len(info.identity) == 2 and info.identity[0] == me_of(function)
                if is_own or info.origin == result.CURRENT:
                    yield from _left_open(context, flow, info)


def _left_open(context: Context, flow: FunctionFlow, info: SessionInfo) -> Iterator[Finding]:
    ways = [way for way in flow.exits if info.identity in way.state.sessions]
    if not any([way.error is None and _is_closed(way, info) for way in ways]):
        return
    failing = [
        way
        for way in ways
        if way.error is not None and way.error.kind != errors.CANCELLED and not _gives_back(way, info)
    ]
    if not failing:
        return
    way = min(failing, key=lambda way: way.place)
    assert way.error is not None
    message = (
        f"if {happens(way.error.text)}, {flow.reference.function.name} does not close {info.name}, and nobody else "
        "does; close it in `finally`"
    )
    trail = [*history(way.state.sessions[info.identity], "used"), Mark(way.place, f"{way.error.text} may raise here")]
    yield context.finding(flow, way.place, message, info.certainty.at_most(Confidence.LIKELY), trail)


def _is_closed(way: Exit, info: SessionInfo) -> bool:
    return way.state.sessions[info.identity].transaction in (CLOSED, GONE)


def _gives_back(way: Exit, info: SessionInfo) -> bool:
    """Whether nothing is left to be closed: a session that was rolled back has no connection any more."""
    session = way.state.sessions[info.identity]
    return _is_closed(way, info) or (info.type.role == "session" and session.transaction == NONE and session.reset)
