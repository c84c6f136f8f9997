"""Shared by SES102 and SES109: handlers that expect a conflict, and savepoints that come too late for it."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.flow import result
from session_lint.flow.errors import is_conflict_type
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import SessionState
from session_lint.ir_queries import path_of


def handles_conflicts(handler: object, *, only: bool = False) -> bool:
    """Whether a handler names an error that says that a write was refused. only: and nothing else."""
    if not isinstance(handler, ir.Handler) or handler.type is None:
        return False
    types = handler.type.items if isinstance(handler.type, ir.Collection) else (handler.type,)
    verdicts = [is_conflict_type(path_of(item)[-1]) for item in types if path_of(item)]
    return (all(verdicts) and bool(verdicts)) if only else any(verdicts)


def holds_the_conflict_alone(flow: FunctionFlow, end: Event, session: SessionState, handler: ir.Handler) -> bool:
    """Whether a begin() block adds one object, and its handler expects that to be refused.

    SQLAlchemy has rolled back as the flush failed, and the block then ends without an error: nothing else is lost.
    """
    block = next((each for each in ir.statements(flow.reference.function.body) if each.place == end.place), None)
    failed = session.witness.failed
    if not isinstance(block, ir.With) or failed is None or session.witness.causes or not handles_conflicts(handler):
        return False
    writes = [event for event in flow.events if event.kind == result.WROTE and event.identity == end.identity]
    before = {event.place: event for event in writes if block.place <= event.place < failed.place}
    # A context manager of the project's may call commit() itself, which fails; and a loop adds more than one.
    is_one = end.text == "the begin() block" and len(before) == 1
    return is_one and not any([_is_more(event, block) for event in before.values()])


def _is_more(event: Event, block: ir.With) -> bool:
    """Whether a write is more than one add() in a block."""
    loops = [frame.node for frame in event.frames if frame.kind in ("for", "while")]
    is_add = event.text.endswith(".add()") and not event.detail
    return not is_add or any([ir.within(loop.place, block.place) for loop in loops])


def guarded_savepoints(flow: FunctionFlow) -> Iterator[Event]:
    """begin_nested() calls in a try that expects a conflict, which flush something before there is a savepoint."""
    for event in flow.events:
        if event.kind == result.FLUSHED_FIRST and _is_guarded(event):
            yield event


def flushed_before_savepoint(flow: FunctionFlow) -> Iterator[Event]:
    """Those of them where nothing else could conflict, and the work goes on."""
    for event in guarded_savepoints(flow):
        block = next((frame.node for frame in reversed(event.frames) if frame.kind == "with"), None)
        writes = [other.place for other in flow.events if other.kind == result.WROTE]
        alone = block is not None and not any([ir.within(place, block.place) for place in writes])
        if alone and _goes_on(flow, event):
            yield event


def _is_guarded(event: Event) -> bool:
    return any(
        [
            handles_conflicts(handler)
            for frame in event.frames
            if isinstance(frame.node, ir.Try) and frame.kind == "try"
            for handler in frame.node.handlers
        ]
    )


def _goes_on(flow: FunctionFlow, event: Event) -> bool:
    """Whether the handler lets the work go on with the session that has failed there."""
    states = [other.session for other in flow.events if other.kind in (result.USE_BROKEN, result.LOST_IN_BLOCK)]
    states += [way.state.sessions.get(event.identity) for way in flow.exits if way.error is None]
    failed = [session.witness.failed for session in states if session is not None and session.witness.swallowed]
    return any([mark is not None and mark.place == event.place for mark in failed])
