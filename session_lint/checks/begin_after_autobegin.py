"""SES108: begin() on a session that has begun its transaction by itself."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._sqlalchemy_1 import commits_by_itself, may_begin_nothing
from session_lint.checks.context import Context, certainty, history, step_at
from session_lint.findings import Confidence, Finding, Severity, Step
from session_lint.flow import result
from session_lint.flow.effects import in_transaction
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import ENTRY, Mark
from session_lint.flow.values import Path

_REMEDY = "end it first with commit() or rollback(), leave the begin() out and commit at the end, or use begin_nested()"


@rule("SES108", "begin-after-autobegin", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        begins: dict[tuple[Path, ir.Place], list[Event]] = {}
        for event in flow.events:
            if event.kind == result.BEGUN and event.session is not None and _refuses(context, flow, event):
                begins.setdefault((event.identity, event.place), []).append(event)
        for events in begins.values():
            begun = [event for event in events if event.detail]
            if begun:
                yield _used_here(context, flow, begun[0], len(begun) == len(events))
            else:
                yield from _used_before(context, flow, events[0])


def _refuses(context: Context, flow: FunctionFlow, event: Event) -> bool:
    """Whether it is a session that minds: those of SQLAlchemy 1 with autocommit, and its connections, do not."""
    if flow.sessions[event.identity].type.role == "connection":
        return not commits_by_itself(context, flow, event.identity)
    return not (may_begin_nothing(context) or context.project.begins_nothing(context.module.path))


def _used_here(context: Context, flow: FunctionFlow, event: Event, always: bool) -> Finding:
    assert event.session is not None
    session, info = event.session, flow.sessions[event.identity]
    if session.begun:
        what = "it is handed out inside a begin() block" if not session.touched else "a begin() block is around"
    else:
        used = session.witness.wrote if session.pending or session.witness.used is None else session.witness.used
        what = used.text.removesuffix(" here") if used is not None else "it has been used"
        what += f" (line {used.place[0]}), which begins one" if used is not None else ""
    message = f'{event.text} fails ("A transaction is already begun"): {what}; {_REMEDY}'
    confidence = certainty(info, Confidence.CERTAIN if always else Confidence.LIKELY)
    if session.handed:
        # Something that can't be seen has had the session, and may have ended the transaction as well.
        confidence = Confidence.POSSIBLE
    return context.finding(flow, event.place, message, confidence, _trail(context, flow, event))


def _trail(context: Context, flow: FunctionFlow, event: Event) -> Iterator[Mark | Step]:
    assert event.session is not None
    yield from history(event.session, "used", "wrote")
    yield Mark(event.place, f"{event.text} wants to begin another one here")
    for callee, root in context.project.call_graph.callees(flow, event.place, event.identity):
        if root in callee.begins:
            yield step_at(callee.reference.module, callee.begins[root].place, callee.begins[root].text)


def _used_before(context: Context, flow: FunctionFlow, event: Event) -> Iterator[Finding]:
    """The session comes from a dependency, and another dependency has used it before."""
    assert event.session is not None
    if event.session.transaction != ENTRY:
        return
    dependencies = context.project.dependencies
    own = dict(dependencies.of(flow.reference)).get(event.identity)
    if own is None:
        return
    for reference in dependencies.before(flow.reference):
        path = dependencies.given(reference, own)
        other = context.project.flow(reference)
        if path is None or other is None or path not in other.sessions or reference.function.is_generator:
            continue
        ways = [way.state.sessions[path] for way in other.exits if way.error is None and path in way.state.sessions]
        left = [session for session in ways if in_transaction(session) and not session.found]
        if not left:
            continue
        info = flow.sessions[event.identity]
        used = left[0].witness.used or left[0].witness.wrote
        message = (
            f'{event.text} fails ("A transaction is already begun"): the dependency {reference.function.name} has used '
            f"the same session for this request, which began one; {_REMEDY}"
        )
        confidence = certainty(info, Confidence.CERTAIN if len(left) == len(ways) else Confidence.LIKELY)
        if any([session.handed for session in left]):
            confidence = Confidence.POSSIBLE
        end = Mark(event.place, f"{event.text} wants to begin another one here")
        trail = [step_at(reference.module, used.place, used.text) if used is not None else None, end]
        yield context.finding(flow, event.place, message, confidence, trail)
        return
