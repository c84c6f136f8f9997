"""A part of SES201: a session that is put into an object of somebody else, where nobody closes it."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint.checks._leaks import confidence_of
from session_lint.checks.context import Context, history
from session_lint.findings import Confidence, Finding
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import CLOSED, Mark
from session_lint.flow.values import Path, sessions_in


def parked_findings(context: Context) -> Iterator[Finding]:
    """One finding per session that others work with under a name that nobody in the project closes anything under."""
    parking = context.project.parking
    for flow in context.flows():
        told: set[Path] = set()
        for event in flow.events:
            if event.kind != result.PARKED or event.identity in told or event.session is None:
                continue
            key = str(event.detail)
            users = [user for user in parking.readers(key) if user.function is not flow.reference.function]
            if not users or parking.is_closed(key) or _goes_elsewhere(flow, event.identity):
                continue
            told.add(event.identity)
            info = flow.sessions[event.identity]
            message = (
                f"{event.text} gets a new session that nobody in the project closes; open it with `with` around what "
                f"works with it, or close it when that has ended"
            )
            trail = [*history(event.session, "opened"), Mark(event.place, f"it is put into {event.text} here")]
            affects = [
                context.affected(user, f"{user.function.name} works with {event.text}")
                for user in users
                if parking.says(user, event.text)
            ]
            confidence = confidence_of(flow, info).at_most(Confidence.LIKELY)
            yield context.finding(flow, info.place, message, confidence, trail, affects)


def _goes_elsewhere(flow: FunctionFlow, identity: Path) -> bool:
    """Whether the function closes the session itself in the end, or gives it to the caller too, who may close it."""
    if flow.reference.function.is_generator:
        return True
    known = [way.state.sessions[identity] for way in flow.exits if way.error is None and identity in way.state.sessions]
    if any([session.transaction == CLOSED for session in known]):
        return True
    return any([session.identity == identity for way in flow.exits for session in sessions_in(way.value)])
