"""Shared by SES102 and SES113: a failed session that is used again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from session_lint import ir
from session_lint.findings import Confidence
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import FAILED, SessionState
from session_lint.project.link import Project


class Reuse(NamedTuple):
    """A use of a session after a failure that was swallowed."""

    event: Event
    session: SessionState
    confidence: Confidence


def reuses(flow: FunctionFlow) -> Iterator[Reuse]:
    """Uses of a session after a swallowed failure, one per failing place."""
    seen = set()
    events = [event for event in flow.events if event.kind == result.USE_BROKEN and event.session is not None]
    for event in sorted(
        events, key=lambda event: (event.session is not None and event.session.transaction != FAILED, event.place)
    ):
        assert event.session is not None
        swallowed = event.session.witness.swallowed
        key = (event.identity, swallowed.place if swallowed else event.place)
        if key in seen:
            continue
        seen.add(key)
        info = flow.sessions[event.identity]
        sure = event.session.transaction == FAILED
        yield Reuse(event, event.session, info.certainty if sure else Confidence.POSSIBLE)


def is_told_by_callee(project: Project, flow: FunctionFlow, reuse: Reuse) -> bool:
    """Whether a callee has swallowed the error and goes on itself: its finding tells."""
    swallowed = reuse.session.witness.swallowed
    for handing in flow.calls:
        if swallowed is not None and handing.place == swallowed.place:
            callee = project.flow(handing.callee)
            roots = {root for root, identity in handing.given if identity == reuse.event.identity}
            if callee is not None and any([other.event.identity in roots for other in reuses(callee)]):
                return True
    return False


def failed_operation(session: SessionState) -> str:
    """What broke the session, in the words of the code."""
    failed = session.witness.failed
    return failed.text.removesuffix(" here").removesuffix(" may fail") if failed else "an operation"


def is_retry(reuse: Reuse) -> bool:
    """Whether the use is the next attempt at what failed: a loop that success leaves."""
    failed = reuse.session.witness.failed
    if failed is None or reuse.event.place > failed.place:
        return False
    if not any([frame.kind == "try" and ir.within(failed.place, frame.node.place) for frame in reuse.event.frames]):
        return False
    for frame in reversed(reuse.event.frames):
        if isinstance(frame.node, (ir.For, ir.While)) and ir.within(failed.place, frame.node.place):
            return _is_retry_loop(frame.node)
    return False


def _is_retry_loop(loop: ir.For | ir.While) -> bool:
    if isinstance(loop, ir.For) and not _counts(loop.iterable):
        return False
    for statement in ir.statements(loop.body):
        if isinstance(statement, ir.Try):
            for inner in ir.statements((*statement.body, *statement.orelse)):
                if isinstance(inner, (ir.Break, ir.Return)):
                    return True
    return any([isinstance(statement, (ir.Break, ir.Return)) for statement in loop.body])


def _counts(iterable: ir.Expr) -> bool:
    """`range(3)`, `count()`, a list of delays: attempts rather than items."""
    if isinstance(iterable, ir.Call) and isinstance(iterable.function, ir.Name):
        return iterable.function.path[-1] in ("range", "count", "repeat", "Retrying", "AsyncRetrying")
    if isinstance(iterable, ir.Name):
        return any([word in iterable.path[-1].lower() for word in ("retr", "attempt", "delay", "backoff")])
    return isinstance(iterable, ir.Collection)
