"""SES202: a provider whose cleanup is skipped when its user raises."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context, certainty, history, step_at
from session_lint.findings import Confidence, Finding, Severity, Step
from session_lint.flow import errors, result
from session_lint.flow.effects import leaks
from session_lint.flow.result import Event, Exit, FunctionFlow
from session_lint.flow.state import CLOSED, NONE, Mark
from session_lint.flow.values import Path
from session_lint.ir_queries import decorator_name

_EXEMPT = ("fixture", "asyncio_fixture", "on_startup", "lifespan")


@rule("SES202", "yield-without-finally", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        function = flow.reference.function
        if not function.is_generator or any([decorator_name(item) in _EXEMPT for item in function.decorators]):
            continue
        if "lifespan" in function.name:
            continue
        told = set()
        for event in flow.events:
            if event.kind != result.YIELDED or not event.identity or event.identity in told:
                continue
            way = _exposed(flow, event)
            if way is not None and not _is_removed(context, flow, event):
                told.add(event.identity)
                yield _finding(context, flow, event, way)


def _exposed(flow: FunctionFlow, event: Event) -> Exit | None:
    """The way out on which the session stays as its user left it."""
    identity, info = event.identity, flow.sessions[event.identity]
    ways = [way for way in flow.exits if identity in way.state.sessions]
    thrown = [way for way in ways if way.error is not None and way.error.by_yield and way.error.place == event.place]
    bad = [way for way in thrown if leaks(way.state.sessions[identity])]
    normal = [way for way in ways if way.error is None]
    if info.origin == result.LOCAL:
        bad = [way for way in bad if way.state.sessions[identity].owned and not _is_left_alike(way, ways, identity)]
    elif info.origin in (result.AMBIENT, result.CURRENT, result.SHARED, result.ATTRIBUTE):
        # Not opened here, but finished here when all goes well: then it is this function's to finish. A savepoint
        # undoes what its user did, and then there is nothing left to finish but a close().
        is_undone = event.session is not None and event.session.savepoints > 0
        ends = (CLOSED,) if is_undone else (CLOSED, NONE)
        if not normal or not all([way.state.sessions[identity].transaction in ends for way in normal]):
            return None
        if info.framework and not flow.reference.function.is_async:
            # What is no Exception ends the request or the program, and the framework's session with it.
            bad = [way for way in bad if way.error is not None and way.error.kind != errors.ABANDONED]
        # A condition decides about closing, as in `finally: if self.users == 0: session.close()`.
        closed = [way.error for way in thrown if way.state.sessions[identity].transaction == CLOSED]
        bad = [way for way in bad if way.error not in closed]
    else:
        return None
    return bad[0] if bad else None


def _is_removed(context: Context, flow: FunctionFlow, event: Event) -> bool:
    """Whether what ends a request removes the scoped session, however the provider was left."""
    info = flow.sessions[event.identity]
    is_scoped = info.origin == result.AMBIENT and info.identity[0] == "~"
    return is_scoped and context.project.scopes.is_removed_by_hook(info.identity[1:], flow.reference.function)


def _is_left_alike(way: Exit, ways: list[Exit], identity: Path) -> bool:
    """Whether a condition decides about closing, and does so after the same error just as when all goes well."""
    normal = [other.state.sessions[identity] for other in ways if other.error is None]
    thrown = [other.state.sessions[identity] for other in ways if other.error == way.error]
    stays_open = any([leaks(session) and session.owned for session in normal])
    return stays_open and all(
        [any([session.transaction == CLOSED for session in sessions]) for sessions in (normal, thrown)]
    )


def _finding(context: Context, flow: FunctionFlow, event: Event, way: Exit) -> Finding:
    info = flow.sessions[event.identity]
    function = flow.reference.function
    users = context.project.call_graph.users_of(flow.reference)
    affects = [context.affected(reference, exposure.message) for reference, exposure in users]
    only_cancelled = way.error is not None and way.error.kind in (errors.CANCELLED, errors.ABANDONED)
    what = "is cancelled" if only_cancelled else "raises or is cancelled"
    message = (
        f"if the code that uses this {info.type.role} {what}, it is never closed: what follows the yield of "
        f"{function.name} is skipped; use `with` around the yield, or try/finally"
    )
    if affects:
        message += f" ({len(affects)} function{'s' if len(affects) > 1 else ''} affected)"
    session = way.state.sessions[event.identity]
    end = Mark(event.place, f"an exception of the user leaves {function.name} here")
    confidence = certainty(info, Confidence.LIKELY if info.origin != result.LOCAL else Confidence.CERTAIN)
    if info.origin == result.ATTRIBUTE and info.identity[-1] == "()":
        confidence = Confidence.POSSIBLE  # A function finds it somewhere, and whoever keeps it there may well close it.
    trail: list[Mark | Step] = [*history(session, "opened")]
    for reference, exposure in users[:1]:
        module, place = exposure.reference.module, exposure.place
        trail.append(step_at(module, place, f"{exposure.text} may fail here"))
        start = reference.function.place
        trail.append(step_at(reference.module, start, f"the exception leaves {reference.function.name}"))
    return context.finding(flow, event.place, message, confidence, [*trail, end], affects)
