"""Shared by SES201 and SES205: what is opened here must be closed here, on every way out."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks.context import Context, certainty, happens, history
from session_lint.findings import Confidence, Finding
from session_lint.flow import errors, result
from session_lint.flow.effects import leaks
from session_lint.flow.result import Exit, FunctionFlow, SessionInfo
from session_lint.flow.state import CLOSED, Mark
from session_lint.flow.values import Path, Query
from session_lint.ir_queries import decorator_name, last_name

_COMMAND_LINE = ("command", "callback", "main", "cli")


def leak_findings(context: Context, role: str) -> Iterator[Finding]:
    """One finding per session (or connection, by role) that a connection may stay out with."""
    for flow in context.flows():
        told = set()
        for event in flow.events:
            info = flow.sessions.get(event.identity)
            if info is None or info.type.role != role or event.identity in told:
                continue
            if event.kind == result.UNNAMED:
                told.add(event.identity)
                if not _is_part(context, flow, info):
                    yield _unnamed(context, flow, info)
            elif event.kind == result.OVERWRITTEN and event.session is not None:
                told.add(event.identity)
                message = (
                    f"{info.name} gets a new {role} while the old one is still open; "
                    f"close it first, or open it with `with`"
                )
                trail = history(event.session, "opened", "used")
                yield context.finding(flow, info.place, message, confidence_of(flow, info), trail)
        if flow.reference.function.is_generator and _hands_out(flow):
            continue
        for info in flow.sessions.values():
            if info.type.role != role or info.identity in told:
                continue
            if info.origin == result.LOCAL:
                yield from _leaking(context, flow, info)
            elif info.origin == result.CAPTURED:
                yield from _left_by_callback(context, flow, info)


def _left_by_callback(context: Context, flow: FunctionFlow, info: SessionInfo) -> Iterator[Finding]:
    """A nested function is to close what the function around it has opened, and does so only if nothing fails."""
    ways = [(way, way.state.sessions.get(info.identity)) for way in flow.exits]
    closes = any([way.error is None and session and session.transaction == CLOSED for way, session in ways])
    failing = [
        (way, way.error)
        for way, session in ways
        if way.error is not None and way.error.kind != errors.CANCELLED and session is not None and leaks(session)
    ]
    if not closes or not failing or not _is_left_to(context, flow, info):
        return
    way, error = min(failing, key=lambda pair: pair[1].place)
    message = (
        f"if {happens(error.text)}, {info.name} is never closed: nobody but {flow.reference.function.name} closes it; "
        "do so in `finally`"
    )
    trail = [*history(way.state.sessions[info.identity], "used"), Mark(way.place, f"{error.text} may raise here")]
    yield context.finding(flow, error.place, message, certainty(info, Confidence.LIKELY), trail)


def _is_left_to(context: Context, flow: FunctionFlow, info: SessionInfo) -> bool:
    """Whether the function around a nested one opens the session, and hands the nested one on to be called later."""
    enclosing = context.project.enclosing(flow.reference)
    outer = context.project.flow(enclosing) if enclosing is not None else None
    if outer is None:
        return False
    opened = {known.identity for known in outer.sessions.values() if known.name == info.name}
    opened &= {known.identity for known in outer.sessions.values() if known.origin == result.LOCAL}
    if not opened or any([event.kind == result.CLOSED_BY_HAND and event.identity in opened for event in outer.events]):
        return False
    callback = ir.Name((flow.reference.function.name,))
    calls = context.project.table.bodies.calls(outer.reference.function.body)
    given = [argument.value for call in calls for argument in call.arguments]
    return callback in given and not any([call.function == callback for call in calls])


def _hands_out(flow: FunctionFlow) -> bool:
    return any([event.kind == result.YIELDED and event.identity for event in flow.events])


def _unnamed(context: Context, flow: FunctionFlow, info: SessionInfo) -> Finding:
    message = (
        f"the {info.type.role} that {info.name} opens is used in the same expression and can never be closed; "
        "give it a name with `with`"
    )
    return context.finding(flow, info.place, message, _left_with(context, flow, info))


def _left_with(context: Context, flow: FunctionFlow, info: SessionInfo) -> Confidence:
    """How sure a leak is that a program's end repairs, if nothing does so before."""
    is_main = context.project.entry_points.is_main(flow.reference)
    return Confidence.POSSIBLE if is_main else confidence_of(flow, info)


def _is_part(context: Context, flow: FunctionFlow, info: SessionInfo) -> bool:
    """Whether a query is all that leaves the function, and whoever calls it gives that to a session of his own."""
    given = [way.value for way in flow.exits if way.error is None]
    if not all([isinstance(value, Query) and value.identity == info.identity for value in given]):
        return False
    if any([way.error is None and leaks(way.state.sessions[info.identity]) for way in flow.exits]):
        return False
    name = flow.reference.function.name
    project = context.project
    bodies = [body for module in project.table.modules for body in project.bodies(module)]
    calls = [call for body in bodies for call in project.table.bodies.calls(body)]
    used = {id(call) for call in calls if last_name(call.function) == name}
    return bool(used) and used <= {id(argument.value) for call in calls for argument in call.arguments}


def _leaking(context: Context, flow: FunctionFlow, info: SessionInfo) -> Iterator[Finding]:
    ways = [way for way in flow.exits if _leaks(way, info)]
    sure = [way for way in ways if way.error is None or way.error.kind != errors.CANCELLED]
    if not any([way.error is None for way in sure]):
        # A session whose last act is its commit gives the connection back, closed or not.
        commits = {
            event.place for event in flow.events if event.kind == result.COMMITTED and event.identity == info.identity
        }
        closed = any([event.kind == result.CLOSED_BY_HAND and event.identity == info.identity for event in flow.events])
        if not closed:
            sure = [way for way in sure if way.error is not None and way.error.place not in commits]
    if not sure:
        yield from _loading_again(context, flow, info)
        return
    closes = any(
        [
            way.state.sessions[info.identity].transaction == CLOSED
            for way in flow.exits
            if info.identity in way.state.sessions
        ]
        + [event.kind == result.CLOSED_BY_HAND and event.identity == info.identity for event in flow.events]
    )
    normal = [way for way in sure if way.error is None]
    way = min(normal or sure, key=lambda way: way.place)
    session = way.state.sessions[info.identity]
    name = flow.reference.function.name
    if way.error is not None and any([_is_handed_on(way, info) for way in flow.exits]):
        message = (
            f"if {happens(way.error.text)}, {info.name} is never closed: nobody else has it by then; "
            "close it in `except`"
        )
    elif not closes:
        message = f"{info.name} is opened in {name} and never closed; open it with `with`"
    elif way.error is None:
        message = f"{info.name} is not closed on the way out of {name} at line {way.place[0]}; open it with `with`"
    else:
        message = (
            f"if {happens(way.error.text)}, {info.name} is never closed; open it with `with`, or close it in `finally`"
        )
    end = Mark(way.place, "control leaves here" if way.error is None else f"{way.error.text} may raise here")
    trail = [*history(session, "opened", "used", "wrote"), end]
    found = context.finding(flow, info.place, message, _left_with(context, flow, info), trail)
    if not normal and context.project.entry_points.ends_process(flow.reference):
        context.mitigated(found, f"the exception ends the program, and the {info.type.role} with it")
    else:
        yield found


def _loading_again(context: Context, flow: FunctionFlow, info: SessionInfo) -> Iterator[Finding]:
    """What is committed expires: reading it afterwards begins another transaction, of which nothing else is seen."""
    own = [event for event in flow.events if event.identity == info.identity]
    ways = [way.state.sessions.get(info.identity) for way in flow.exits if way.error is None]
    left = [session for session in ways if session is not None]
    if info.type.is_async or info.type.role != "session" or context.project.keeps_after_commit:
        return
    if not left or any([session.transaction == CLOSED or not session.owned for session in left]):
        return
    if any([event.kind == result.CLOSED_BY_HAND for event in own]):
        return
    commits = [event.place for event in own if event.kind == result.COMMITTED and event.detail is None]
    body = flow.reference.function.body
    added = {
        call.arguments[0].value.path[0]
        for call in context.project.table.bodies.calls(body)
        for event in own
        if event.kind == result.WROTE and event.place == call.place and last_name(call.function) in ("add", "merge")
        if call.arguments and isinstance(call.arguments[0].value, ir.Name) and len(call.arguments[0].value.path) == 1
    }
    for statement in ir.statements(body) if commits and added else ():
        if isinstance(statement, (ir.Return, ir.Expression)) and statement.place > max(commits):
            read = next((path for path in _read(statement) if path[0] in added and path[1][:1].islower()), None)
            if read is not None:
                text = ".".join(read[:2])
                message = (
                    f"{info.name} is opened in {flow.reference.function.name} and never closed: reading {text} after "
                    "the commit begins another transaction; open it with `with`"
                )
                confidence = confidence_of(flow, info).at_most(Confidence.LIKELY)
                yield context.finding(flow, info.place, message, confidence, [Mark(statement.place, f"{text} is read")])
                return


def _read(statement: ir.Return | ir.Expression) -> Iterator[Path]:
    """The attributes that a statement reads, in text, too."""
    for part in ir.expressions(statement.value) if statement.value is not None else ():
        if isinstance(part, ir.Name) and len(part.path) > 1:
            yield part.path
        elif isinstance(part, ir.Opaque):
            yield from [path for path in part.reads if len(path) > 1]


def _is_handed_on(way: Exit, info: SessionInfo) -> bool:
    """Whether the function returns and somebody else has the session then."""
    session = way.state.sessions.get(info.identity)
    return way.error is None and session is not None and not session.owned and session.transaction != CLOSED


def _leaks(way: Exit, info: SessionInfo) -> bool:
    session = way.state.sessions.get(info.identity)
    if session is None or not session.owned:
        return False
    # A session gives its connection back with its transaction, a connection only when it is closed.
    return leaks(session) or (info.type.role == "connection" and session.transaction != CLOSED)


def confidence_of(flow: FunctionFlow, info: SessionInfo) -> Confidence:
    """A command-line program gives everything back when it ends."""
    function = flow.reference.function
    names = [decorator_name(decorator) for decorator in function.decorators]
    if function.name in ("main", "run_migrations_online") or any([name in _COMMAND_LINE for name in names]):
        return Confidence.POSSIBLE
    if flow.reference.module.path.rpartition("/")[2] in ("cli.py", "__main__.py", "manage.py"):
        return Confidence.POSSIBLE
    return certainty(info)
