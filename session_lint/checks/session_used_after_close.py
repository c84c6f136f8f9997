"""SES207: a closed session opens a new transaction by itself, and nobody ends that one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._leaks import confidence_of
from session_lint.checks.context import Context, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.effects import leaks
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import CLOSED, Mark
from session_lint.flow.values import Query
from session_lint.ir_queries import last_name

_PARTS = frozenset("subquery exists cte scalar_subquery as_scalar label union union_all".split())


@rule("SES207", "session-used-after-close", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        told = set()
        for event in sorted(flow.events, key=lambda event: event.place):
            if event.kind != result.USE_CLOSED or event.session is None or event.identity in told:
                continue
            info = flow.sessions[event.identity]
            commits = event.detail == ops.COMMIT
            is_own = info.origin in (result.LOCAL, result.PROVIDED)
            # A session of somebody else is often closed only to begin with a fresh connection.
            is_saved = bool(event.session.commits) and not event.session.dirty
            has_written = not is_saved and _has_written(flow, event)
            if commits and (is_saved or not (is_own or has_written)) and not _is_swapped(flow, event):
                continue
            if commits and not has_written and _writes_again(flow, event):
                continue
            if not commits and not (is_own and _stays_open(flow, event)):
                continue
            told.add(event.identity)
            if commits:
                message = (
                    f"{event.text} comes after {info.name} was closed: it commits nothing"
                    f"{', and what was written before the close is lost' if has_written else ''}; "
                    "commit first, then close"
                )
            else:
                message = (
                    f"{event.text} uses {info.name} after it was closed: that opens a new transaction which "
                    "nobody ends; "
                    "use the session inside its with block, or open a new one"
                )
            trail = [*history(event.session, "opened", "ended"), Mark(event.place, f"{event.text} uses it here")]
            confidence = confidence_of(flow, info)
            if commits and info.origin == result.PROVIDED and info.provider is None:
                confidence = Confidence.POSSIBLE  # What its manager does at the end is not seen: most of them commit.
            yield context.finding(flow, event.place, message, confidence, trail)
        yield from _returned(context, flow)


def _returned(context: Context, flow: FunctionFlow) -> Iterator[Finding]:
    """`with Session() as session: return session.query(Order)`: the query is sent by whoever iterates it."""
    told = set()
    for way in flow.exits:
        if way.error is not None or not isinstance(way.value, Query) or way.place in told:
            continue
        session = way.state.sessions.get(way.value.identity)
        info = flow.sessions.get(way.value.identity)
        if session is None or info is None or info.origin not in (result.LOCAL, result.PROVIDED):
            continue
        if session.transaction != CLOSED or _is_part(context, flow):
            continue
        told.add(way.place)
        message = (
            f"the query that {flow.reference.function.name} returns is sent when somebody iterates it, and "
            f"{info.name} is closed by then: that opens a new transaction which nobody ends; return its rows, as all() "
            "gives them"
        )
        trail = [*history(session, "opened", "ended"), Mark(way.place, "the query is returned here")]
        confidence = confidence_of(flow, info).at_most(Confidence.LIKELY)
        yield context.finding(flow, way.place, message, confidence, trail)


def _is_part(context: Context, flow: FunctionFlow) -> bool:
    """Whether a function makes of a query a part of another one, which nobody sends by itself."""
    calls = context.project.table.bodies.calls(flow.reference.function.body)
    return any([last_name(call.function) in _PARTS for call in calls])


def _has_written(flow: FunctionFlow, commit: Event) -> bool:
    """Whether there was anything to save when the session was closed."""
    return any([_is_before(event, commit) for event in _saving(flow, commit)])


def _writes_again(flow: FunctionFlow, commit: Event) -> bool:
    """`if rows: session.add_all(rows)` between the close and the commit: a unit of work of its own."""
    return any([event.kind == result.WROTE and not _is_before(event, commit) for event in _saving(flow, commit)])


def _saving(flow: FunctionFlow, commit: Event) -> list[Event]:
    kinds = (result.WROTE, result.COMMITTED)
    return [
        event
        for event in flow.events
        if event.kind in kinds and event.identity == commit.identity and event.place < commit.place
    ]


def _is_before(event: Event, commit: Event) -> bool:
    """Whether something has happened before the close that the commit comes too late for."""
    ended = commit.session.witness.ended if commit.session is not None else None
    return ended is None or event.place < ended.place or ir.within(event.place, ended.place)


def _is_swapped(flow: FunctionFlow, commit: Event) -> bool:
    """Whether close() is the very statement before: in whatever order they were meant, this one can't be it."""
    blocks = [flow.reference.function.body]
    for statement in ir.statements(flow.reference.function.body):
        blocks += ir.blocks(statement)
    for block in blocks:
        for before, after in itertools.pairwise(block):
            if ir.within(commit.place, after.place) and commit.session is not None:
                ended = commit.session.witness.ended
                return ended is not None and isinstance(before, ir.Expression) and ir.within(ended.place, before.place)
    return False


def _stays_open(flow: FunctionFlow, event: Event) -> bool:
    """Whether the transaction that the use opens is left open on some way out."""
    return any(
        [leaks(way.state.sessions[event.identity]) for way in flow.exits if event.identity in way.state.sessions]
    )
