"""Who throws a session's uncommitted writes away when a function is done, if it is seen and nobody commits before."""

from __future__ import annotations

from session_lint import ir
from session_lint.checks._unseen_commits import calls_commit, may_commit_around
from session_lint.checks.context import Context
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow, SessionInfo
from session_lint.flow.state import CLOSED, SessionState
from session_lint.ir_queries import last_name, path_of
from session_lint.project.entry_points import MESSAGE, REQUEST
from session_lint.project.modules import FunctionRef


def dropped_by(context: Context, flow: FunctionFlow, info: SessionInfo, lost: SessionState) -> str | None:
    """What rolls the session back after the function, in words that fit into a message; None if that is not sure.

    lost: the state in which it has the writes.
    """
    if info.origin in (result.LOCAL, result.PROVIDED):
        return f"when the {info.type.role} is closed,"
    if info.origin == result.AMBIENT and lost.transaction == CLOSED:
        # By the function, or by a block of its: what it enters has been followed.
        known = _entered(context, flow, info)
        return None if calls_commit(context, flow.reference, known=known) else f"when the {info.type.role} is closed,"
    if info.origin == result.INJECTED and info.provider is not None:
        return _by_provider(context, flow, info, info.provider)
    if info.origin == result.AMBIENT and info.framework:
        return _by_framework(context, flow, info)
    return None


def _entered(context: Context, flow: FunctionFlow, info: SessionInfo) -> frozenset[ir.Place]:
    """The calls whose `with` blocks stand around what a session writes, and those that come when they have ended."""
    writes = [event for event in flow.events if event.kind == result.WROTE and event.identity == info.identity]
    blocks = [frame.node for event in writes for frame in event.frames if isinstance(frame.node, ir.With)]
    parts = [part for block in blocks for item in block.items for part in ir.expressions(item.value)]
    end = max([block.place[2:] for block in blocks], default=None)
    later = [
        call.place
        for call in context.project.table.bodies.calls(flow.reference.function.body)
        if end is not None and call.place[:2] > end
    ]
    return frozenset([*later, *[part.place for part in parts if isinstance(part, ir.Call)]])


# ------------------------------------------------------------------------------------------------ dependencies


def _by_provider(context: Context, flow: FunctionFlow, info: SessionInfo, reference: FunctionRef) -> str | None:
    """A FastAPI dependency that opens a session for one request, and closes it."""
    entry = context.project.entry_points.of(flow.reference)
    if entry is None or entry.kind != REQUEST or not reference.function.is_generator:
        return None
    if context.project.committers.has_route_classes():
        return None
    if not _only_closes(context, reference) or _others_may_commit(context, flow, info, reference):
        return None
    return f"when {reference.function.qualname} closes the {info.type.role},"


def _only_closes(context: Context, reference: FunctionRef) -> bool:
    """Whether a provider opens what it hands out, closes it, and does not commit."""
    provider = context.project.provider(reference)
    opened = context.project.flow(reference)
    if opened is None or not provider.seen or not provider.closes:
        return False
    if provider.commits or provider.may_commit or provider.begun or provider.parameters:
        return False
    given = [event.identity for event in opened.events if event.kind == result.YIELDED and event.identity]
    return all([opened.sessions[identity].origin in (result.LOCAL, result.PROVIDED) for identity in given])


def _others_may_commit(context: Context, flow: FunctionFlow, info: SessionInfo, provider: FunctionRef) -> bool:
    """Whether something else that FastAPI makes of the same session may commit it, now or after the function."""
    project = context.project
    others = [other for other in project.dependencies.before(flow.reference) if other != provider]
    if any([other.function.is_generator and _may_finish(context, other) for other in others]):
        return True
    for other in flow.sessions.values():
        if other.identity != info.identity and other.provider == provider and _is_finished(flow, other):
            return True
    called = {path_of(call.function)[:1] for call in project.table.bodies.calls(flow.reference.function.body)}
    through_objects = len(info.identity) > 1
    for path, dependency in project.dependencies.of(flow.reference):
        if path != info.identity and path in called:
            # An object that is asked to do something may work with the very same session.
            function = project.dependencies.function(dependency.provider)
            if function is None:
                return True
            if provider in project.dependencies.before(function):
                if not any([each.identity[:1] == path for each in flow.sessions.values()]):
                    return True
                through_objects = True
    return through_objects and calls_commit(context, flow.reference)


def _is_finished(flow: FunctionFlow, info: SessionInfo) -> bool:
    """Whether a session is committed in a function, or by somebody whom it is given to."""
    if any([event.kind == result.COMMITTED and event.identity == info.identity for event in flow.events]):
        return True
    known = [way.state.sessions[info.identity] for way in flow.exits if info.identity in way.state.sessions]
    return any([session.handed for session in known])


def _may_finish(context: Context, reference: FunctionRef) -> bool:
    """Whether a dependency that runs on after the route commits, or hands a session to somebody who may."""
    flow = context.project.flow(reference)
    if flow is None or context.project.committers.commits(reference):
        return True
    return any([session.handed for way in flow.exits for session in way.state.sessions.values()])


# -------------------------------------------------------------------------------------------------- frameworks


def _by_framework(context: Context, flow: FunctionFlow, info: SessionInfo) -> str | None:
    """A session that anybody can get hold of: nothing that runs for the same request or job may commit it."""
    project, profile = context.project, context.project.profiles.named(info.framework)
    entry = project.entry_points.of(flow.reference)
    if profile.commits or project.committers.around(entry is not None and entry.kind == MESSAGE):
        return None
    is_in_context = _is_in_own_context(flow, info, profile.scopes)
    if not is_in_context:
        if entry is None or entry.kind not in (REQUEST, MESSAGE) or project.call_graph.callers(flow.reference):
            return None
        if any([may_commit_around(context, flow.reference, item) for item in flow.reference.function.decorators]):
            return None
    if calls_commit(context, flow.reference):
        return None
    return "when the application context ends," if is_in_context else f"{profile.why}, and"


def _is_in_own_context(flow: FunctionFlow, info: SessionInfo, scopes: tuple[str, ...]) -> bool:
    """Whether the function writes in `with app.app_context():`, the end of which is the end of its sessions."""
    writes = [event for event in flow.events if event.kind == result.WROTE and event.identity == info.identity]
    return info.framework == "flask_sqlalchemy" and all(
        [
            any([isinstance(frame.node, ir.With) and _is_context(frame.node, scopes) for frame in event.frames])
            for event in writes
        ]
    )


def _is_context(node: ir.With, scopes: tuple[str, ...]) -> bool:
    called = [item.value.function for item in node.items if isinstance(item.value, ir.Call)]
    return any([last_name(function).endswith(scopes) for function in called])
