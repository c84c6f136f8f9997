"""SES206: a scoped_session that is used again and again by the same threads or tasks, and that nobody removes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._around import unremoved_findings
from session_lint.checks.context import Context, happens, step_at
from session_lint.findings import Confidence, Finding, Severity, Step
from session_lint.flow import errors, result
from session_lint.flow.result import Exit, FunctionFlow
from session_lint.flow.state import BROKEN, CLOSED, OPEN, SessionState
from session_lint.flow.values import Extension, Path, Registry
from session_lint.ir_queries import last_name, path_of
from session_lint.project.entry_points import OWN_THREAD, Entry
from session_lint.project.link import Project
from session_lint.project.modules import ClassRef, Module
from session_lint.project.scopes import is_context

_MANAGED = ("zope.sqlalchemy", "pyramid_tm", "transaction")
"""Who ends the transactions of all sessions that are registered with it, and gives their connections back."""
_TIDYING = re.compile(r"(remove|close|clean|release|dispose|reset)\w*_(\w*sessions?|db|connections?)$")

_NEVER_USED = SessionState()


@rule("SES206", "scoped-session-never-removed", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for registry, name, place in _registries(context.project, context.module):
        if context.project.imports(*_MANAGED):
            continue
        identity = ("~", *registry.identity)
        users = [flow for flow in context.project.all_flows() if _leaves_open(flow, identity)]
        if not users:
            continue
        if not registry.framework and not context.project.scopes.is_removed(registry.identity):
            entries = context.project.entry_points.reaching([flow.reference for flow in users])
            yield _never_removed(context, registry, name, place, users, entries)
        else:
            yield from _not_removed_by_jobs(context, registry, name, place, users)
    yield from _not_removed_by_threads(context)
    yield from unremoved_findings(context)


def _never_removed(
    context: Context, registry: Registry, name: str, place: ir.Place, users: list[FunctionFlow], entries: list[Entry]
) -> Finding:
    identity = ("~", *registry.identity)
    remedy = f"`{'await ' if registry.is_async else ''}{name}.remove()`"
    if not entries:
        message = f"nobody calls {remedy}: what one use of {name} leaves open, the next one in the same thread finds"
        return context.finding(None, place, message, Confidence.POSSIBLE, [_use(users[0], identity)])
    kind = entries[0].kind
    message = (
        f"nobody calls {remedy}: each {'task' if registry.is_async else 'thread'} keeps its session and connection, "
        f"and what fails in one {kind} makes the next one fail; call it at the end of every {kind}, in `finally`"
    )
    affects = [context.affected(entry.reference, f"ends without {name}.remove()") for entry in entries]
    return context.finding(None, place, message, Confidence.LIKELY, [_use(users[0], identity)], affects)


def _not_removed_by_jobs(
    context: Context, registry: Registry, name: str, place: ir.Place, users: list[FunctionFlow]
) -> Iterator[Finding]:
    """Jobs of a worker: what ends a request's scope is not called for them."""
    jobs = context.project.scopes.jobs(registry.identity, bool(registry.framework))
    identity = ("~", *registry.identity)
    left = [flow for flow in users if context.project.entry_points.of(flow.reference) in jobs.values()]
    left = [flow for flow in left if not _tidies_up(context, flow)]
    if not left:
        return
    failing = [flow for flow in left if any([_spoils(way, identity) for way in flow.exits])]
    first = (failing or left)[0]
    who = first.reference.function.name
    also = f" (and {len(left) - 1} more)" if len(left) > 1 else ""
    when = "when an application context ends" if registry.framework else "at the end of requests"
    message = (
        f"{name} is removed {when}, and not after the job {who}{also}: the next job of the same worker gets the same "
        f"session, with what has failed or was not committed; call `{name}.remove()` after every job"
    )
    affects = [context.affected(flow.reference, f"ends without {name}.remove()") for flow in left]
    confidence = Confidence.LIKELY if failing else Confidence.POSSIBLE
    yield context.finding(None, place, message, confidence, [_use(first, identity)], affects)


def _spoils(way: Exit, identity: Path) -> bool:
    """Whether the next job suffers: its statements fail, or it commits what this one has left."""
    session = way.state.sessions.get(identity)
    return _is_open(way, identity) and session is not None and (session.transaction in BROKEN or session.dirty)


def _use(flow: FunctionFlow, identity: Path) -> Step:
    """Where a function leaves its transaction open."""
    session = next(way.state.sessions[identity] for way in flow.exits if _is_open(way, identity))
    mark = session.witness.used or session.witness.wrote or session.witness.failed
    place = mark.place if mark is not None else flow.reference.function.place
    text = mark.text if mark is not None else f"{flow.name} uses it here"
    return step_at(flow.reference.module, place, text)


# ------------------------------------------------------------------------------------------- threads of its own


def _not_removed_by_threads(context: Context) -> Iterator[Finding]:
    """Work that is given to a thread: the hooks that end a request know nothing of it."""
    for flow in context.flows():
        info = next((info for info in flow.sessions.values() if info.origin == result.AMBIENT), None)
        if info is None or not _leaves_open(flow, info.identity):
            continue
        entry, scopes = context.project.entry_points.of(flow.reference), context.project.scopes
        name = info.name if info.framework else info.identity[-1]
        if entry is None or entry.kind not in OWN_THREAD:
            continue
        removes = scopes.needs_no_context if info.framework else scopes.is_removed
        if not removes(info.identity[1:]) or (info.framework and flow.reference.function.decorators):
            continue
        if name.startswith("@"):
            continue  # The function has made the registry itself: its session goes with it, not with the thread.
        if any([is_context(statement) for statement in ir.statements(flow.reference.function.body)]):
            continue
        if _tidies_up(context, flow):
            continue
        message = (
            f"{flow.name} runs in a thread of its own and {_does_not(flow, info.identity)} `{name}.remove()`: the "
            "session stays with the thread, and so does what it leaves open; call it in `finally`"
        )
        start = step_at(entry.module, entry.place, f"{flow.name} starts as a {entry.kind} here")
        yield context.finding(flow, info.place, message, Confidence.LIKELY, [start, _use(flow, info.identity)])


def _tidies_up(context: Context, flow: FunctionFlow) -> bool:
    """Whether a function calls one that by its name ends sessions, however it finds them: `remove_all_sessions()`."""
    calls = context.project.table.bodies.calls(flow.reference.function.body)
    return any([_TIDYING.search(last_name(call.function).lower()) is not None for call in calls])


def _does_not(flow: FunctionFlow, identity: Path) -> str:
    """On which ways a function does not remove what it leaves open."""
    ways = [way for way in flow.exits if _is_open(way, identity)]
    failing = min([way.error for way in ways if way.error is not None], key=lambda error: error.place, default=None)
    if failing is None or any([way.error is None for way in ways]):
        ended = [way for way in flow.exits if way.state.sessions.get(identity, _NEVER_USED).transaction == CLOSED]
        return "does not always call" if ended else "never calls"
    return f"does not call, if {happens(failing.text)},"


# ------------------------------------------------------------------------------------------------- registries


def _registries(project: Project, module: Module) -> Iterator[tuple[Registry, str, ir.Place]]:
    """The scoped sessions that a module defines, for itself or in its classes."""
    for name, assignment in (*module.variables.items(), *module.attributes.items()):
        value = project.statics.name(module, tuple(name.split(".")))
        if isinstance(value, Extension) and value.identity == (module.name, name):
            yield value.session, f"{name}.session", assignment.place
        if (
            isinstance(value, Registry)
            and not (value.framework or value.is_current)
            and value.identity == (module.name, name)
        ):
            yield value, name, assignment.place
    for definition in module.classes.values():
        for name, value in project.statics.fields.of(ClassRef(module, definition)).items():
            if isinstance(value, Registry) and value.identity == (module.name, definition.qualname, name):
                yield value, name, _assignment(definition, name)


def _assignment(definition: ir.Class, name: str) -> ir.Place:
    """Where a class or its objects get an attribute."""
    bodies = [definition.body]
    bodies += [
        each.definition.body
        for each in definition.body
        if isinstance(each, ir.Define) and isinstance(each.definition, ir.Function)
    ]
    for body in bodies:
        for statement in ir.statements(body):
            if isinstance(statement, ir.Assign) and any([path_of(t)[-1:] == (name,) for t in statement.targets]):
                return statement.place
    return definition.place


def _leaves_open(flow: FunctionFlow, identity: Path) -> bool:
    return identity in flow.sessions and any([_is_open(way, identity) for way in flow.exits])


def _is_open(way: Exit, identity: Path) -> bool:
    session = way.state.sessions.get(identity)
    if session is None or not session.touched or (way.error is not None and way.error.kind == errors.CANCELLED):
        return False
    return session.transaction in (OPEN, *BROKEN)
