"""A part of SES201 and SES206: a middleware or wrapper gives the session back only if what it calls returns."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks.context import Context, certainty, happens, history
from session_lint.findings import Confidence, Finding
from session_lint.flow import errors, result
from session_lint.flow.effects import leaks
from session_lint.flow.result import Event, Exit, FunctionFlow, SessionInfo
from session_lint.flow.state import CLOSED, NONE, Mark
from session_lint.ir_queries import decorator_name, last_name, me_of, path_of
from session_lint.project.modules import FunctionRef

_INNER = ("app", "application", "get_response", "handler", "run", "wsgi_app")
"""What a middleware or task calls the work that it is wrapped around."""

_ERROR_HANDLERS = ("errorhandler", "app_errorhandler", "exception_handler")


def unremoved_findings(context: Context) -> Iterator[Finding]:
    """One finding per scoped session that a function removes around others, only when those return."""
    for flow in context.flows():
        for info in flow.sessions.values():
            if info.origin != result.AMBIENT or info.framework or info.identity[0] != "~":
                continue
            if info.identity not in flow.direct:
                continue  # It calls one that works with the session and removes it: it is no wrapper itself.
            way = _left(context, flow, info)
            if way is None or way.error is None or _is_ended_elsewhere(context, flow, info):
                continue
            keeper = "task" if info.type.is_async else "thread"
            message = (
                f"if {happens(way.error.text)}, {flow.reference.function.name} does not call "
                f"`{info.name}.remove()`: the session stays with the {keeper}, and so does what has failed or is open "
                "in it; call it in `finally`"
            )
            confidence = certainty(info, Confidence.LIKELY)
            mark = Mark(way.place, f"{way.error.text} may raise here")
            yield context.finding(flow, way.error.place, message, confidence, [mark])


def unclosed_findings(context: Context) -> Iterator[Finding]:
    """One finding per session that a function opens for those whom it calls, and closes only when they return."""
    for flow in context.flows():
        told = set()
        for event in flow.events:
            info = flow.sessions.get(event.identity)
            if event.kind != result.PARKED or info is None or info.origin != result.LOCAL or info.identity in told:
                continue
            way = _left(context, flow, info)
            if way is None or way.error is None or _is_told(flow, info) or _is_closed_elsewhere(context, flow, event):
                continue
            told.add(info.identity)
            message = (
                f"if {happens(way.error.text)}, the session in {event.text} is never closed; open it with `with` "
                "around the call, or close it in `finally`"
            )
            mark = Mark(way.place, f"{way.error.text} may raise here")
            trail = [*history(way.state.sessions[info.identity], "opened"), mark]
            yield context.finding(flow, info.place, message, certainty(info, Confidence.LIKELY), trail)


def _left(context: Context, flow: FunctionFlow, info: SessionInfo) -> Exit | None:
    """The way out on which the function has called the work and does not give the session back, as it does else."""
    if flow.reference.function.is_generator:
        return None
    returning = [way for way in flow.exits if way.error is None]
    if not returning or not all([_is_closed(way, info) for way in returning]):
        return None
    works = set(_works(context, flow.reference))
    failing = [
        way
        for way in flow.exits
        if way.error is not None and way.error.kind != errors.CANCELLED and way.error.place in works
    ]
    return next((way for way in failing if not _is_given_back(way, info)), None)


def _works(context: Context, reference: FunctionRef) -> Iterator[ir.Place]:
    """The calls of what a function is wrapped around: `call_next(request)`, `function(*args)`, `self.app(...)`."""
    given = {parameter.name for parameter in reference.function.parameters}
    around = context.project.enclosing(reference)
    while around is not None:
        given |= {parameter.name for parameter in around.function.parameters}
        around = context.project.enclosing(around)
    for call in context.project.table.bodies.calls(reference.function.body):
        path = path_of(call.function)
        if (len(path) == 1 and path[0] in given) or (path[:-1] == (me_of(reference.function),) and path[-1] in _INNER):
            yield call.place


def _is_closed(way: Exit, info: SessionInfo) -> bool:
    session = way.state.sessions.get(info.identity)
    return session is not None and session.transaction == CLOSED


def _is_given_back(way: Exit, info: SessionInfo) -> bool:
    """Whether a handler has seen to it, or the function also works with the session itself."""
    session = way.state.sessions.get(info.identity)
    if session is None:
        return False
    is_ended = session.transaction == CLOSED or (session.transaction == NONE and session.witness.ended is not None)
    return is_ended or (info.origin == result.AMBIENT and session.touched)


def _is_ended_elsewhere(context: Context, flow: FunctionFlow, info: SessionInfo) -> bool:
    """Whether somebody else ends the scope, or nobody leaves anything open in it."""
    if context.project.scopes.is_removed_by_hook(info.identity[1:], flow.reference.function):
        return True
    if _is_rolled_back(context):
        return True
    return not any(
        [
            session is not None and session.touched and session.transaction != CLOSED
            for other in context.project.all_flows()
            if other is not flow and info.identity in other.sessions
            for session in [way.state.sessions.get(info.identity) for way in other.exits]
        ]
    )


def _is_rolled_back(context: Context) -> bool:
    """Whether a handler of whatever a request raises rolls something back: then no connection stays out."""
    bodies = context.project.table.bodies
    return any(
        [
            last_name(call.function) == "rollback"
            for module in context.project.table.modules
            for function in module.functions.values()
            if any([decorator_name(decorator) in _ERROR_HANDLERS for decorator in function.decorators])
            for call in bodies.calls(function.body)
        ]
    )


def _is_told(flow: FunctionFlow, info: SessionInfo) -> bool:
    """Whether what the function does with the session itself leaves it open, too."""
    known = [way.state.sessions[info.identity] for way in flow.exits if info.identity in way.state.sessions]
    return any([session.owned and leaks(session) for session in known])


def _is_closed_elsewhere(context: Context, flow: FunctionFlow, event: Event) -> bool:
    """Whether somebody else closes it, or nobody else works with it."""
    parking, key = context.project.parking, str(event.detail)
    users = [user for user in parking.readers(key) if user.function is not flow.reference.function]
    is_used = bool(users) or _is_taken(context, key)
    return not is_used or parking.is_closed_by_others(key, flow.reference)


def _is_taken(context: Context, key: str) -> bool:
    """Whether a function has a parameter of that name: a bot's handlers are given by name what is in `data`."""
    functions = [
        reference for module in context.project.table.modules for reference in context.project.functions(module)
    ]
    return any([parameter.name == key for _, function in functions for parameter in function.parameters])
