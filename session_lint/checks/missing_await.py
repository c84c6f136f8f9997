"""SES301: a coroutine of the session that is never awaited."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result


@rule("SES301", "missing-await", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for flow, event in context.events(result.NOT_AWAITED):
        if event.place in seen:
            continue
        seen.add(event.place)
        info = flow.sessions.get(event.identity)
        confidence = info.certainty if info is not None else Confidence.CERTAIN
        message = f"{event.text} is a coroutine and is never awaited, so nothing of it runs; write `await {event.text}`"
        yield context.finding(flow, event.place, message, confidence)
