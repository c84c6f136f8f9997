"""SES210: `with Session(engine).no_autoflush as session:` leaves the block, not the session."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context, certainty
from session_lint.findings import Finding, Severity
from session_lint.flow import result


@rule("SES210", "session-lost-in-with-item", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow, event in context.events(result.LOST_WITH_ITEM):
        info = flow.sessions[event.identity]
        message = (
            f"the with block leaves `.{event.text}` and not the session itself, which is never closed; "
            f"open the session as an item of its own, before `.{event.text}`"
        )
        yield context.finding(flow, event.place, message, certainty(info))
