"""SES204: a loop over a session generator that is left by break or return."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.project.modules import FunctionRef


@rule("SES204", "dependency-loop-left-early", Severity.WARNING)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for flow, event in context.events(result.LOOP_LEFT):
        if (event.place, event.identity) in seen or event.session is None:
            continue
        seen.add((event.place, event.identity))
        info = flow.sessions[event.identity]
        name = event.detail.function.name if isinstance(event.detail, FunctionRef) else "the generator"
        message = (
            f"{event.text} leaves the loop over {name}() before the generator has closed {info.name}: the connection "
            f"comes back late or never; use `async with asynccontextmanager({name})() as {info.name}:`"
        )
        confidence = certainty(info, Confidence.LIKELY)
        yield context.finding(flow, event.place, message, confidence, history(event.session, "opened", "used"))
