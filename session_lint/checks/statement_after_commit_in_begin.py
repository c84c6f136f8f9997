"""SES106: a begin() block whose transaction is ended by hand before the block ends."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks import rule
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import Mark


@rule("SES106", "statement-after-commit-in-begin", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for flow, event in [*context.events(result.AFTER_END, result.COMMIT_IN_SAVEPOINT), *_begun_by_callers(context)]:
        if (event.identity, event.place) in seen or event.session is None:
            continue
        seen.add((event.identity, event.place))
        info = flow.sessions[event.identity]
        if event.kind == result.AFTER_END:
            ended = event.session.witness.ended
            by = ended.text.removesuffix(" ends the transaction here") if ended else "the code"
            message = (
                f"{event.text} fails: {by} has already ended the transaction of the begin() block "
                '("Can\'t operate on closed transaction inside context manager"); leave commit and rollback to '
                "the block"
            )
            trail = [*history(event.session, "ended"), Mark(event.place, f"{event.text} comes after it")]
            confidence = certainty(info)
        elif event.detail:
            message = (
                f"{event.text} commits the outer transaction too, not only the savepoint {event.detail} that the "
                f"handler rolls back; call {event.detail}.commit(), and commit after the outer work"
            )
            trail, confidence = history(event.session, "used"), certainty(info, Confidence.LIKELY)
        else:
            message = (
                f"{event.text} inside begin_nested() commits the outer transaction too, so the savepoint protects "
                "nothing; "
                "let the block release the savepoint and commit after the outer work"
            )
            trail, confidence = history(event.session, "used"), certainty(info, Confidence.LIKELY)
        yield context.finding(flow, event.place, message, confidence, trail)


def _begun_by_callers(context: Context) -> Iterator[tuple[FunctionFlow, Event]]:
    """A helper that commits and goes on, although everybody calls it inside a begin() block."""
    for flow in context.flows():
        commits = [event for event in flow.events if event.kind == result.COMMITTED]
        handed = [info for info in flow.sessions.values() if info.origin == result.PARAMETER]
        if not commits or not handed:
            continue
        for constants in context.project.call_graph.begun_by_callers(flow.reference):
            inside = context.project.flow_in_begin(flow.reference, constants)
            for event in inside.events:
                if event.kind == result.AFTER_END:
                    yield inside, event
