"""SES107: what is written is never committed, and closing the session throws it away."""

from __future__ import annotations

import re
from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._attaching import all_writes, only_attaches, only_takes_from_cache
from session_lint.checks._dropped import dropped_by
from session_lint.checks._sqlalchemy_1 import commits_by_itself
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Affected, Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow, SessionInfo
from session_lint.flow.state import CLOSED, ENTRY, NONE, OPEN, SessionState
from session_lint.flow.values import Path
from session_lint.ir_queries import precedes

_TEMPORARY = re.compile(r"create\s+(local\s+)?temp(orary)?\s+table", re.IGNORECASE)

_DEEPEST = 3
"""How many calls deep the functions that write are named."""


@rule("SES107", "write-never-committed", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        if flow.reference.function.is_generator:
            continue
        for info in flow.sessions.values():
            lost = _lost(flow, info)
            if info.type.role == "connection" and result.BEGUN not in {event.kind for event in flow.events}:
                lost = None if commits_by_itself(context, flow, info.identity) else lost
            dropped = dropped_by(context, flow, info) if lost is not None else None
            if lost is not None and dropped is not None:
                yield _finding(context, flow, info, lost, dropped)


def _finding(context: Context, flow: FunctionFlow, info: SessionInfo, lost: SessionState, dropped: str) -> Finding:
    name, wrote = flow.reference.function.name, lost.witness.wrote
    never = "does not commit that" if lost.commits else "never commits"
    remedy = "commit before the end"
    if info.origin in (result.LOCAL, result.PROVIDED) and not lost.commits:
        remedy += ", or open it with begin()"
    message = (
        f"{name} writes with {info.name} {'after its last commit ' if lost.commits else ''}and {never}: "
        f"{dropped} everything {'since then ' if lost.commits else ''}is rolled back; {remedy}"
    )
    place = wrote.place if wrote is not None else info.place
    trail = history(lost, "opened", "wrote", "ended")
    writers = _writers(context, flow, info.identity, place)
    # Who changes what it returns may only want it to look like that: `photo.url = signed(photo.url)`.
    since = place if lost.commits else None
    is_shown = _only_changes(context, flow, info.identity, since) and _returns_objects(flow)
    is_read = only_attaches(flow, info.identity) or only_takes_from_cache(context, flow, info.identity)
    confidence = Confidence.POSSIBLE if is_shown or is_read else Confidence.LIKELY
    return context.finding(flow, place, message, certainty(info, confidence), trail, writers)


def _only_changes(context: Context, flow: FunctionFlow, identity: Path, since: ir.Place | None) -> bool:
    """Whether all that a function writes is changes of objects. since: only what it writes from there on counts."""

    def agrees(writer: FunctionFlow, event: Event) -> bool:
        is_earlier = writer is flow and since is not None and event.place[:2] < since[:2]
        return is_earlier or event.detail == result.CHANGE

    return all_writes(context, flow, identity, agrees)


def _returns_objects(flow: FunctionFlow) -> bool:
    """Whether a function returns something that it has in a variable."""
    for statement in ir.statements(flow.reference.function.body):
        if isinstance(statement, ir.Return) and statement.value is not None:
            parts = ir.expressions(statement.value)
            called = [part.function for part in parts if isinstance(part, ir.Call)]
            if any([isinstance(part, ir.Name) and part not in called for part in parts]):
                return True
    return False


def _writers(context: Context, flow: FunctionFlow, identity: Path, place: ir.Place, depth: int = 0) -> list[Affected]:
    """The functions that are called at a place and write: a commit in one of them would do as well."""
    for callee, root in context.project.call_graph.callees(flow, place, identity):
        for event in callee.events:
            if event.kind == result.WROTE and event.identity == root:
                affected = context.affected(callee.reference, f"{event.text} writes, and nobody commits it")
                deeper = _writers(context, callee, root, event.place, depth + 1) if depth < _DEEPEST else []
                return [affected, *deeper]
    return []


def _lost(flow: FunctionFlow, info: SessionInfo) -> SessionState | None:
    """The state in which writes are lost, if no way through the function commits them or could commit them."""
    events = [event for event in flow.events if event.identity == info.identity]
    kinds = {event.kind for event in events}
    if kinds & {result.NOT_AWAITED, result.AFTER_END} or result.WROTE not in kinds:
        return None
    normal = [
        way.state.sessions[info.identity]
        for way in flow.exits
        if way.error is None and info.identity in way.state.sessions
    ]
    committed = [event for event in events if event.kind == result.COMMITTED]
    if any([session.handed or (session.commits and not session.dirty) for session in normal]):
        return None
    for session in normal:
        if session.dirty and session.transaction in (CLOSED, ENTRY, NONE, OPEN):
            wrote = session.witness.wrote
            if any([wrote is None or _may_take(event, wrote.place) for event in committed]):
                return None
            return None if _makes_temporary_tables(flow) else session
    return None


def _may_take(commit: Event, wrote: ir.Place) -> bool:
    """Whether a commit may come after a write: it stands below it, or in the same loop."""
    loops = [frame.node.place for frame in commit.frames if frame.kind in ("for", "while")]
    return precedes(wrote, commit.place) or any([ir.within(wrote, loop) for loop in loops])


def _makes_temporary_tables(flow: FunctionFlow) -> bool:
    """Whether the writes may be to tables that end with the connection anyway."""
    return any(
        [
            isinstance(part, ir.Constant) and isinstance(part.value, str) and _TEMPORARY.search(part.value) is not None
            for statement in ir.statements(flow.reference.function.body)
            for part in ir.expressions(statement)
        ]
    )
