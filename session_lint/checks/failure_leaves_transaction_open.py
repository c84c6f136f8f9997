"""SES116: a function fails and leaves the transaction of the session that it was handed open."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks._failures import Failure, confidence_of, failures, is_handed, is_judged_elsewhere
from session_lint.checks.context import Context, happens, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow.result import FunctionFlow
from session_lint.project import ownership


@rule("SES116", "failure-leaves-transaction-open", Severity.WARNING)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        for failure in failures(context, flow):
            if failure.commit is not None or failure.only_cancelled or not is_handed(failure):
                continue
            if context.local:
                if not is_judged_elsewhere(context, flow, failure):
                    yield _finding(context, flow, failure, failure.info.certainty)
            elif failure.owner.verdict == ownership.UNKNOWN:
                yield _finding(context, flow, failure, confidence_of(failure))
            elif failure.owner.verdict == ownership.CLEANED:
                context.mitigated(_finding(context, flow, failure, confidence_of(failure)), failure.owner.text)


def _finding(context: Context, flow: FunctionFlow, failure: Failure, confidence: Confidence) -> Finding:
    assert failure.way.error is not None
    session = failure.way.state.sessions[failure.info.identity]
    name = flow.reference.function.name
    begun = session.witness.used or session.witness.wrote
    place = begun.place if begun is not None else failure.way.error.place
    message = (
        f"if {happens(failure.way.error.text, 'fails')}, {name} lets the exception out and leaves the transaction of "
        f"{failure.info.name} open"
    )
    if context.local:
        message += "; roll back in `except BaseException:` and raise again, or do the work in `with session.begin():`"
    else:
        message += f"; {failure.owner.text}, so make sure that it rolls back or closes"
    return context.finding(flow, place, message, confidence, history(session, "used", "wrote", "failed"))
