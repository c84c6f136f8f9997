"""SES303: a task, thread or job works with a session whose owner closes it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks.context import Context, history, step_at
from session_lint.findings import Confidence, Finding, Severity, Step
from session_lint.flow import result, tasks
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.starts import Started
from session_lint.flow.state import CLOSED, Mark
from session_lint.flow.values import Dependency, Function, Path
from session_lint.project.modules import FunctionRef

_WHEN = {
    tasks.BACKGROUND: "after the response",
    tasks.TASK: "when this function goes on",
    tasks.THREAD: "at the same time",
    tasks.JOB: "at the same time",
    tasks.SCHEDULED: "later",
}
_REMEDY = "pass it only ids and let it open a session of its own"
_DEEPEST = 8
"""How many dependencies deep the request's session is looked for."""


class End(NamedTuple):
    """Who ends the session. request: whether it is the request's, ended by a dependency. commits: when it ends."""

    text: str
    confidence: Confidence
    request: bool = False
    scope: str = ""
    commits: bool = False
    step: Step | None = None


_QUEUED = End("", Confidence.LIKELY)


@rule("SES303", "session-in-background-task", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow, event in context.events(result.STARTED):
        assert isinstance(event.detail, Started)
        started = event.detail
        if started.kind == tasks.QUEUED:
            message = f"{started.runs} runs in another process and can't take {started.given} along; {_REMEDY}"
            yield _finding(context, flow, event, message, _QUEUED, Confidence.LIKELY)
            continue
        end = _end_of(context, flow, event.identity, event, set())
        if end is None:
            continue
        if started.kind == tasks.BACKGROUND and end.request:
            yield _after_the_response(context, flow, event, started, end)
        else:
            message = (
                f"the {started.kind} {started.runs} works with {started.given} {_WHEN[started.kind]}, but {end.text}"
            )
            confidence = end.confidence
            if confidence is not Confidence.CERTAIN and _is_closed_by_task(context, flow, event):
                confidence = Confidence.POSSIBLE  # Whoever ends it is not seen, and may have been told to leave it.
            yield _finding(context, flow, event, f"{message}; {_REMEDY}", end, confidence)


def _is_closed_by_task(context: Context, flow: FunctionFlow, event: Event) -> bool:
    """Whether what is started closes the session itself, as its owner would."""
    for handing in flow.calls:
        if not ir.within(handing.place, event.place):
            continue
        usage = context.project.statics.usage(handing.callee)
        for root, given in handing.given:
            if given == event.identity and root in usage and usage[root].methods & {"close", "aclose"}:
                return True
    return False


def _finding(
    context: Context, flow: FunctionFlow, event: Event, message: str, end: End, confidence: Confidence
) -> Finding:
    info = flow.sessions.get(event.identity)
    if info is not None:
        confidence = confidence.at_most(info.certainty)
    trail: list[Mark | Step] = [*history(event.session, "opened")] if event.session is not None else []
    trail.append(Mark(event.place, f"{event.text} starts it here"))
    if end.step is not None:
        trail.append(end.step)
    return context.finding(flow, event.place, message, confidence, trail)


# ------------------------------------------------------------------------------------------------- FastAPI


def _after_the_response(context: Context, flow: FunctionFlow, event: Event, started: Started, end: End) -> Finding:
    """When a dependency ends depends on FastAPI's version and on its scope."""
    closed_before = end.scope == "function" or context.project.versions.dependencies_end_first(context.module.path)
    confidence = end.confidence
    if closed_before:
        message = (
            f"{started.given} is closed before the background task {started.runs} begins, which then opens a "
            "transaction that nobody ends"
        )
    elif closed_before is None:
        confidence = confidence.at_most(Confidence.LIKELY)
        others = "rolls the request's writes back if the task fails" if end.commits else "holds its transaction open"
        message = (
            f"the background task {started.runs} works with {started.given} after the response: FastAPI 0.106 to 0.117 "
            f"has closed it by then, and every other version {others}"
        )
    elif end.commits:
        message = (
            f"if the background task {started.runs} fails, what the request wrote with {started.given} is rolled back, "
            "although the client has its answer"
        )
    else:
        confidence = Confidence.POSSIBLE
        message = (
            f"the background task {started.runs} works in the transaction of the request's {started.given}, which "
            "stays open until it is done"
        )
    return _finding(context, flow, event, f"{message}; {_REMEDY}", end, confidence)


# ------------------------------------------------------------------------------------------------- the end


def _end_of(
    context: Context, flow: FunctionFlow, identity: Path, event: Event | None, seen: set[tuple[int, Path]]
) -> End | None:
    info = flow.sessions.get(identity)
    reference = flow.reference
    request = _request_end(context, reference, identity)
    if request is not None:
        return request
    if info is None:
        return None
    if info.origin in (result.PROVIDED, result.ITERATED, result.LOCAL):
        return _closed_here(flow, identity)
    if info.origin not in (result.PARAMETER, result.ATTRIBUTE):
        return None
    key = (id(reference.function), identity)
    if key in seen:
        return None
    seen.add(key)
    for caller in context.project.call_graph.callers(reference, identity):
        outer = context.project.flow(caller.reference)
        end = _end_of(context, outer, caller.identity, None, seen) if outer is not None else None
        if end is not None and end.confidence is not Confidence.POSSIBLE:
            text = f"{caller.reference.function.name} calls it here"
            step = step_at(caller.reference.module, caller.place, text)
            return end._replace(confidence=end.confidence.at_most(Confidence.LIKELY), step=end.step or step)
    started = event.detail if event is not None else None
    if isinstance(started, Started) and started.kind == tasks.BACKGROUND and info.origin == result.PARAMETER:
        return End("it belongs to the request", Confidence.LIKELY, request=True)
    if identity[:2] == ("request", "state"):
        return End("it belongs to the request and is closed with it", Confidence.LIKELY)
    return End(f"who owns {info.name} may close it meanwhile", Confidence.POSSIBLE)


def _closed_here(flow: FunctionFlow, identity: Path) -> End | None:
    ways = [way for way in flow.exits if way.error is None and identity in way.state.sessions]
    closed = [way.state.sessions[identity] for way in ways if way.state.sessions[identity].transaction == CLOSED]
    if not closed:
        return None
    name, function = flow.sessions[identity].name, flow.reference.function.name
    ended = next((session.witness.ended for session in closed if session.witness.ended is not None), None)
    step = step_at(flow.reference.module, ended.place, ended.text) if ended is not None else None
    return End(f"{function} closes {name} without waiting for it", Confidence.CERTAIN, step=step)


def _request_end(context: Context, reference: FunctionRef, identity: Path) -> End | None:
    """The end of a parameter that a dependency fills, if it is or holds the session of another dependency."""
    parameter = next((item for item in reference.function.parameters if item.name == identity[0]), None)
    if parameter is None:
        return None
    dependency = context.project.parameter(reference, parameter)[1]
    return _dependency_end(context, dependency, identity[0], 0) if dependency is not None else None


def _dependency_end(context: Context, dependency: Dependency, name: str, depth: int) -> End | None:
    provider = context.project.provider_of(dependency.provider)
    if provider is not None:
        contract = context.project.provider(provider)
        text = f"{provider.function.name} closes it with the request"
        confidence = Confidence.CERTAIN if contract.seen else Confidence.LIKELY
        step = step_at(provider.module, provider.function.place, f"{provider.function.name} ends it")
        return End(text, confidence, True, dependency.scope, contract.commits, step)
    if isinstance(dependency.provider, Function):
        # `def get_dao(db: Session = Depends(get_db))`: the object ends with the session that it works with.
        inner = dependency.provider.reference
        for parameter in inner.function.parameters if depth < _DEEPEST else ():
            found = context.project.parameter(inner, parameter)[1]
            end = _dependency_end(context, found, name, depth + 1) if found is not None else None
            if end is not None:
                return end
        return None
    return End(f"{name} ends with the request", Confidence.LIKELY, True, dependency.scope)
