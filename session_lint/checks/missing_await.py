"""SES301: a coroutine of the session that is never awaited."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow
from session_lint.flow.values import Path


@rule("SES301", "missing-await", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for flow, event in context.events(result.NOT_AWAITED):
        if event.place in seen:
            continue
        seen.add(event.place)
        info = flow.sessions.get(event.identity)
        confidence = info.certainty if info is not None else Confidence.CERTAIN
        if event.identity and _is_sync_after_all(flow, event.identity):
            confidence = Confidence.POSSIBLE
        message = f"{event.text} is a coroutine and is never awaited, so nothing of it runs; write `await {event.text}`"
        yield context.finding(flow, event.place, message, confidence)


def _is_sync_after_all(flow: FunctionFlow, identity: Path) -> bool:
    """Whether only an annotation says that the session is async: a plain function works with what its methods give."""
    function = flow.reference.function
    if function.is_async or flow.sessions[identity].origin != result.PARAMETER:
        return False
    dropped = {
        statement.value.place
        for statement in ir.statements(function.body)
        if isinstance(statement, ir.Expression) and isinstance(statement.value, ir.Call)
    }
    events = [event for event in flow.events if event.kind == result.NOT_AWAITED and event.identity == identity]
    return any([event.place not in dropped for event in events])
