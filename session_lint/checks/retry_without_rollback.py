"""SES113: the next attempt uses the session that the last one has broken."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._failures import failures, is_handed
from session_lint.checks.context import Context, causes, failed_operation, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow.result import FunctionFlow
from session_lint.ir_queries import decorator_name
from session_lint.project.swallows import is_retry


@rule("SES113", "retry-without-rollback", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        for reuse in context.project.swallows.reuses(flow):
            if not is_retry(reuse):
                continue
            info = flow.sessions[reuse.event.identity]
            failed = reuse.session.witness.failed
            what = failed_operation(reuse.session)
            message = (
                f"after {what} has failed, the next attempt uses {info.name} again without a rollback and fails too; "
                "roll back before the next attempt, or open a session per attempt"
            )
            place = failed.place if failed else reuse.event.place
            trail = history(reuse.session, "failed", "swallowed")
            yield context.finding(flow, place, message, reuse.confidence, trail, causes(reuse.session))
        yield from _decorated(context, flow)


def _decorated(context: Context, flow: FunctionFlow) -> Iterator[Finding]:
    """A retry decorator around a function that takes the session: every attempt gets the same one."""
    function = flow.reference.function
    retry = next((decorator for decorator in function.decorators if is_retry_decorator(decorator)), None)
    if retry is None:
        return
    for failure in failures(context, flow):
        if failure.only_cancelled or not is_handed(failure) or failure.way.error is None:
            continue
        session = failure.way.state.sessions[failure.info.identity]
        if session.transaction != "failed":
            continue
        message = (
            f"@{decorator_name(retry)} calls {function.name} again with the same {failure.info.name} after "
            f"{failure.way.error.text} has failed, without a rollback in between; roll back before raising, "
            "or open the session inside the retried function"
        )
        begins_nothing = context.project.begins_nothing(context.module.path)
        confidence = Confidence.POSSIBLE if begins_nothing else failure.info.certainty.at_most(Confidence.LIKELY)
        yield context.finding(flow, failure.way.error.place, message, confidence, history(session, "failed"))


def is_retry_decorator(decorator: ir.Expr) -> bool:
    name = decorator_name(decorator).lower()
    return "retry" in name or name in ("on_exception", "backoff")
