"""SES101: a commit fails and nobody rolls back."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks._failures import Failure, confidence_of, failures, is_handed, is_judged_elsewhere
from session_lint.checks.context import Context, happens, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow.result import FunctionFlow
from session_lint.project import ownership


@rule("SES101", "commit-without-rollback", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        for failure in failures(context, flow):
            if failure.commit is None or failure.only_cancelled:
                continue
            if context.local:
                if is_handed(failure) and not is_judged_elsewhere(context, flow, failure):
                    yield _finding(context, flow, failure, failure.info.certainty)
            elif failure.owner.verdict == ownership.CLEANED:
                context.mitigated(_finding(context, flow, failure, confidence_of(failure)), failure.owner.text)
            elif failure.owner.verdict in (ownership.KEPT, ownership.UNKNOWN):
                yield _finding(context, flow, failure, confidence_of(failure))


def _finding(context: Context, flow: FunctionFlow, failure: Failure, confidence: Confidence) -> Finding:
    assert failure.commit is not None
    assert failure.way.error is not None
    text, name = failure.way.error.text, flow.reference.function.name
    commits_itself = failure.commit.detail is None
    message = f"if {happens(text, 'fails')}, {name} lets the exception out without rolling back {failure.info.name}"
    if not commits_itself:
        message += f", which {failure.commit.text} commits"
    if context.local:
        message += "; roll back in `except BaseException:` and raise again, or do the work in `with session.begin():`"
    elif failure.owner.verdict == ownership.KEPT:
        message += f"; {failure.owner.text}, and every later use of it fails until somebody rolls back"
    else:
        message += f"; {failure.owner.text}, so make sure that it rolls back or closes"
    session = failure.way.state.sessions[failure.info.identity]
    trail = [*history(session, "used", "wrote", "failed")]
    return context.finding(flow, failure.commit.place, message, confidence, trail)
