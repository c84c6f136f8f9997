"""SES111: the cleanup stands in `except Exception`, which a cancelled task passes by."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks._failures import confidence_of, failures, is_handed, is_judged_elsewhere
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import errors, result
from session_lint.flow.effects import leaks
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import OPEN
from session_lint.project import ownership


@rule("SES111", "cleanup-skipped-on-cancellation", Severity.WARNING)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        yield from _handed(context, flow)
        yield from _opened(context, flow)


def _handed(context: Context, flow: FunctionFlow) -> Iterator[Finding]:
    for failure in failures(context, flow):
        if not failure.only_cancelled or not is_handed(failure) or failure.way.error is None:
            continue
        if context.local and is_judged_elsewhere(context, flow, failure):
            continue
        session = failure.way.state.sessions[failure.info.identity]
        name = flow.reference.function.name
        left = "stays in its transaction" if session.transaction == OPEN else "is left with a dead transaction"
        message = (
            f"if {name} is cancelled at {failure.way.error.text}, {failure.info.name} {left}: "
            "`except Exception` does not catch CancelledError; use `except BaseException` or `async with "
            "session.begin()`"
        )
        confidence = failure.info.certainty if context.local else confidence_of(failure)
        finding = context.finding(flow, failure.way.error.place, message, confidence, history(session, "used", "wrote"))
        if context.local or failure.owner.verdict in (ownership.UNKNOWN, ownership.KEPT):
            yield finding
        elif failure.owner.verdict == ownership.CLEANED:
            context.mitigated(finding, failure.owner.text)


def _opened(context: Context, flow: FunctionFlow) -> Iterator[Finding]:
    if flow.reference.function.is_generator:
        return
    for info in flow.sessions.values():
        if info.origin != result.LOCAL:
            continue
        open_ways = [
            way
            for way in flow.exits
            if info.identity in way.state.sessions
            and way.state.sessions[info.identity].owned
            and leaks(way.state.sessions[info.identity])
        ]
        if not open_ways or any([way.error is None or way.error.kind != errors.CANCELLED for way in open_ways]):
            continue
        way = min(open_ways, key=lambda way: way.place)
        assert way.error is not None
        session = way.state.sessions[info.identity]
        message = (
            f"if {flow.reference.function.name} is cancelled at {way.error.text}, {info.name} is never closed: "
            "`except Exception` does not catch CancelledError; use `async with` or `finally`"
        )
        confidence = certainty(info, Confidence.LIKELY)
        yield context.finding(flow, way.error.place, message, confidence, history(session, "opened", "used"))
