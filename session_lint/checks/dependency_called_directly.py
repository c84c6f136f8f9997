"""SES203: a session generator that is called by hand."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import CLOSED
from session_lint.project.modules import FunctionRef


@rule("SES203", "dependency-called-directly", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for flow, event in context.events(result.NEXT, result.GENERATOR_USED):
        if event.place in seen:
            continue
        seen.add(event.place)
        name = event.detail.function.name if isinstance(event.detail, FunctionRef) else str(event.detail)
        confidence = Confidence.CERTAIN if isinstance(event.detail, FunctionRef) else Confidence.LIKELY
        if event.kind == result.GENERATOR_USED:
            message = f"{name}() returns a generator, not a session; use `with contextmanager({name})() as session:`"
        else:
            is_tidy = _is_tidy(flow, event)
            if is_tidy and not flow.sessions[event.identity].type.is_async:
                # The cleanup runs at once, the session begins anew, and stays behind nowhere.
                confidence = Confidence.POSSIBLE
            left = "" if is_tidy else ", and the session is not closed afterwards"
            message = (
                f"nobody keeps the generator of {name}(), so its cleanup runs before the session is used or "
                f"never{left}; use `with contextmanager({name})() as session:`"
            )
        yield context.finding(flow, event.place, message, confidence)


def _is_tidy(flow: FunctionFlow, event: Event) -> bool:
    """Whether the session is closed on every way out, or never used: of `next(get_db()).bind` nothing is left."""
    states = [way.state.sessions.get(event.identity) for way in flow.exits]
    ends = [session for session in states if session is not None]
    return bool(ends) and all([end.transaction == CLOSED or not (end.touched or end.handed) for end in ends])
