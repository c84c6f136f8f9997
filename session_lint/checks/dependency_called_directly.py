"""SES203: a session generator that is called by hand."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.project.modules import FunctionRef


@rule("SES203", "dependency-called-directly", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for flow, event in context.events(result.NEXT, result.GENERATOR_USED):
        if event.place in seen:
            continue
        seen.add(event.place)
        name = event.detail.function.name if isinstance(event.detail, FunctionRef) else str(event.detail)
        if event.kind == result.GENERATOR_USED:
            message = f"{name}() returns a generator, not a session; use `with contextmanager({name})() as session:`"
        else:
            message = (
                f"nobody keeps the generator of {name}(), so its cleanup runs before the session is used or "
                "never, and the "
                f"session is not closed afterwards; use `with contextmanager({name})() as session:`"
            )
        confidence = Confidence.CERTAIN if isinstance(event.detail, FunctionRef) else Confidence.LIKELY
        yield context.finding(flow, event.place, message, confidence)
