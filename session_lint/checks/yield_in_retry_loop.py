"""SES115: a context manager or dependency whose yield is tried again."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.checks.retry_without_rollback import is_retry_decorator
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.ir_queries import decorator_name


@rule("SES115", "yield-in-retry-loop", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        function = flow.reference.function
        if not function.is_generator:
            continue
        is_manager = context.project.statics.results.is_manager(flow.reference)
        yields = [event for event in flow.events if event.kind == result.YIELDED]
        # Also a context manager that works with a session it does not hand out; others are not ours to judge.
        hands_out = any([event.identity for event in yields]) or (is_manager and bool(flow.sessions))
        again = next((event for event in yields if event.detail is True), None)
        if again is not None and hands_out:
            message = (
                f"{function.name} yields again after an exception was thrown in at its yield: its user gets "
                '"generator didn\'t stop after throw()" instead of the error; retry around the with block, not in it'
            )
            confidence = Confidence.CERTAIN if is_manager else Confidence.LIKELY
            yield context.finding(flow, again.place, message, confidence)
        retry = next((decorator for decorator in function.decorators if is_retry_decorator(decorator)), None)
        if retry is not None and hands_out and yields:
            message = (
                f"@{decorator_name(retry)} never retries {function.name}: calling a generator function runs none "
                "of it; "
                "retry the function that uses the session"
            )
            yield context.finding(flow, yields[0].place, message, Confidence.LIKELY)
