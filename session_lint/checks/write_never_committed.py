"""SES107: what is written is never committed, and closing the session throws it away."""

from __future__ import annotations

import re
from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow, SessionInfo
from session_lint.flow.state import CLOSED, NONE, OPEN, SessionState

_TEMPORARY = re.compile(r"create\s+(local\s+)?temp(orary)?\s+table", re.IGNORECASE)


@rule("SES107", "write-never-committed", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        if flow.reference.function.is_generator:
            continue
        for info in flow.sessions.values():
            if info.origin not in (result.LOCAL, result.PROVIDED):
                continue
            lost = _lost(flow, info)
            if lost is not None:
                name = flow.reference.function.name
                message = (
                    f"{name} writes with {info.name} and never commits: when the {info.type.role} is closed, "
                    "everything "
                    f"is rolled back; commit before the end, or open it with begin()"
                )
                confidence = certainty(info, Confidence.LIKELY)
                place = lost.witness.wrote.place if lost.witness.wrote else info.place
                yield context.finding(flow, place, message, confidence, history(lost, "opened", "wrote", "ended"))


def _lost(flow: FunctionFlow, info: SessionInfo) -> SessionState | None:
    """The state in which the writes are lost, if no way through the function commits or could commit."""
    kinds = [event.kind for event in flow.events if event.identity == info.identity]
    if result.COMMITTED in kinds or result.NOT_AWAITED in kinds or result.WROTE not in kinds:
        return None
    normal = [
        way.state.sessions[info.identity]
        for way in flow.exits
        if way.error is None and info.identity in way.state.sessions
    ]
    if any([session.commits or session.handed for session in normal]) or _makes_temporary_tables(flow):
        return None
    for session in normal:
        if session.dirty and session.transaction in (CLOSED, NONE, OPEN):
            return session
    return None


def _makes_temporary_tables(flow: FunctionFlow) -> bool:
    """Whether the writes may be to tables that end with the connection anyway."""
    return any(
        [
            isinstance(part, ir.Constant) and isinstance(part.value, str) and _TEMPORARY.search(part.value) is not None
            for statement in ir.statements(flow.reference.function.body)
            for part in ir.expressions(statement)
        ]
    )
