"""SES112: a FastAPI dependency commits after its yield, when the client has its answer already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._error_answers import error_status
from session_lint.checks.context import Context, certainty, history, step_at
from session_lint.findings import Confidence, Finding, Severity, Step
from session_lint.flow import result
from session_lint.flow.result import Event, Exit, FunctionFlow
from session_lint.flow.state import Mark, SessionState
from session_lint.flow.values import Path
from session_lint.ir_queries import decorator_name
from session_lint.project.modules import FunctionRef

_DEEPEST = 8
"""How many dependencies deep the functions that write with the session are looked for."""
_SCOPE = (0, 121)
"""The first FastAPI with Depends(..., scope="function")."""


class Writer(NamedTuple):
    """A function that returns with uncommitted work. session: what it returns with. sure: its write was seen."""

    reference: FunctionRef
    session: SessionState
    sure: bool


@rule("SES112", "commit-after-response", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    ends_first = context.project.versions.dependencies_end_first(context.module.path)
    for flow in context.flows() if not ends_first else ():
        if not flow.reference.function.is_generator:
            continue
        told: set[Path] = set()
        for event in flow.events:
            if event.kind == result.YIELDED and event.identity and event.identity not in told:
                commit = _commit_after(context, flow, event)
                writers = list(_writers(context, flow.reference, 0)) if commit is not None else []
                if commit is not None and writers:
                    told.add(event.identity)
                    yield _finding(context, flow, event, commit, writers)


def _commit_after(context: Context, flow: FunctionFlow, event: Event) -> Mark | None:
    """What commits the session once its user is done."""
    info = flow.sessions[event.identity]
    for other in flow.events:
        if other.kind == result.COMMITTED and other.identity == event.identity and other.place > event.place:
            return Mark(other.place, f"{other.text} commits here")
    if event.session is not None and event.session.begun == 1:
        return Mark(event.place, "the begin() block around the yield commits when it is left")
    if info.provider is not None and info.origin == result.PROVIDED and context.project.provider(info.provider).commits:
        return Mark(event.place, f"{info.provider.function.name}() around the yield commits when it is left")
    return None


def _writers(context: Context, provider: FunctionRef, depth: int) -> Iterator[Writer]:
    """The functions that get the session, or what works with it, for as long as the request, and leave work to do."""
    for reference, path, dependency in context.project.dependencies.users(provider) if depth < _DEEPEST else ():
        if dependency.scope == "function" or _answers_nobody(reference.function):
            continue
        flow = context.project.flow(reference)
        if flow is not None and not reference.function.is_generator:
            left = [
                session
                for way in flow.exits
                for identity, session in way.state.sessions.items()
                if way.error is None and identity[0] == path[0] and session.touched and not _is_refused(reference, way)
            ]
            written = [session for session in left if session.dirty]
            undone = written or [session for session in left if session.handed or not session.reset]
            if undone:
                yield Writer(reference, undone[0], bool(written))
        yield from _writers(context, reference, depth + 1)


def _is_refused(reference: FunctionRef, way: Exit) -> bool:
    """Whether the client is told that it failed: that the half of it is committed then is SES114's matter."""
    return error_status(reference.function.body, way.place) is not None


def _answers_nobody(function: ir.Function) -> bool:
    return any([decorator_name(decorator).startswith("websocket") for decorator in function.decorators])


def _finding(context: Context, flow: FunctionFlow, event: Event, commit: Mark, writers: list[Writer]) -> Finding:
    info = flow.sessions[event.identity]
    name = flow.reference.function.name
    version = context.project.versions.of(context.module.path, "fastapi")
    known = context.project.versions.dependencies_end_first(context.module.path) is False
    sure = [writer for writer in writers if writer.sure]
    confidence = certainty(info, Confidence.CERTAIN if known else Confidence.LIKELY)
    if not sure:
        confidence = Confidence.POSSIBLE
    shown = sure or writers
    count = f"what {shown[0].reference.function.name} wrote"
    if len(shown) > 1:
        count = f"what {len(shown)} functions wrote"
    when = "" if known else "before 0.106 and from 0.118 on, "
    remedy = "commit where the work is done"
    if version is None or version.at_least(*_SCOPE) is not False:
        remedy += f', or depend on it with Depends({name}, scope="function") (FastAPI 0.121)'
    message = (
        f"{name} commits after its yield, and {when}FastAPI has sent the response by then: if the commit fails, "
        f"{count} is lost although the client was told that it is saved; {remedy}"
    )
    trail: list[Mark | Step] = [*history(event.session, "opened")] if event.session is not None else []
    for writer in shown[:1]:
        wrote = writer.session.witness.wrote or writer.session.witness.used
        module = writer.reference.module
        if wrote is not None:
            trail.append(step_at(module, wrote.place, wrote.text))
        end = writer.reference.function.place
        trail.append(step_at(module, end, f"{writer.reference.function.name} returns, and the response is sent"))
    affects = [
        context.affected(
            writer.reference, "returns with uncommitted writes" if writer.sure else "may return with uncommitted writes"
        )
        for writer in shown
    ]
    return context.finding(flow, commit.place, message, confidence, [*trail, commit], affects)
