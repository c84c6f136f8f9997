"""SES104: one commit per item, so that an error leaves half of the work done."""

from __future__ import annotations

import builtins
from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._error_answers import error_status
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.ir_queries import bound_paths, last_name, own_expressions, path_of, precedes, words
from session_lint.project.shapes import named_like_session

_BATCH_WORDS = ("batch", "chunk", "page", "slice", "partition", "retr", "attempt", "range", "count", "delay", "tick")

_REACHING = frozenset("open input exec eval breakpoint __import__".split())
"""Python's own functions that reach outside of it: the others only work with what they are given."""
_DEEPEST = 2
"""How many calls deep is looked for what reaches outside of the session."""


@rule("SES104", "commit-in-loop", Severity.WARNING)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        found: dict[ir.Place, list[tuple[Event, ir.For]]] = {}
        for event in flow.events:
            loop = _loop_of(flow, event) if event.kind == result.COMMITTED and event.session is not None else None
            if loop is not None and _works_on_items(flow, event, loop):
                # One commit after the outermost loop takes the place of all of them.
                found.setdefault(_outermost(event, loop).place, []).append((event, loop))
        for commits in found.values():
            yield _finding(context, flow, commits)


def _outermost(event: Event, loop: ir.For) -> ir.For:
    loops = [frame.node for frame in event.frames if frame.kind == "for" and isinstance(frame.node, ir.For)]
    return loops[0] if loops else loop


def _finding(context: Context, flow: FunctionFlow, commits: list[tuple[Event, ir.For]]) -> Finding:
    """One for all commits of a loop, at the surest one, the first of them."""
    confidence, event = min(
        [(_confidence(context, flow, event, loop), event) for event, loop in commits],
        key=lambda judged: (judged[0].rank, judged[1].place),
    )
    lines = sorted({other.place[0] for other, _ in commits} - {event.place[0]})
    more = f" (and so do those in line {', '.join([str(line) for line in lines])})" if lines else ""
    message = (
        f"{event.text} runs once per item of the loop{more}: if a later item fails, the earlier ones stay committed; "
        "commit once after the loop, or make each item's work resumable"
    )
    trail = history(event.session, "wrote") if event.session is not None else []
    return context.finding(flow, event.place, message, confidence, trail)


def _confidence(context: Context, flow: FunctionFlow, event: Event, loop: ir.For) -> Confidence:
    if not _only_writes(context, flow, loop.body) or event.detail is not None:
        # Something else happens for each item, which the commit may have to keep pace with; or a callee commits,
        # which may well be a unit of work of its own that is called for each item on purpose.
        return Confidence.POSSIBLE
    writes = _writes(flow, event, loop)
    loaded = {write.text.split()[1].partition(".")[0] for write in writes if write.detail == result.CHANGE}
    loaded &= {path[0] for path in bound_paths(loop.target)} - context.project.table.bodies.bound(loop.body)
    before = [each for each in flow.events if each.identity == event.identity and precedes(each.place, loop.place)]
    if any([each.kind == result.WROTE for each in before]):
        loaded = set()  # The loop is a step of something larger, which the next run won't take up in its middle.
    if all([write.detail == result.CHANGE or _adds_again(context, loop, write, loaded) for write in writes]):
        # `for order in orders: order.state = "old"`: the next run finds out which of them are done.
        return Confidence.POSSIBLE
    return certainty(flow.sessions[event.identity], Confidence.LIKELY)


def _adds_again(context: Context, loop: ir.For, write: Event, names: set[str]) -> bool:
    """Whether `session.add(order)` is given what the session has loaded: that does nothing."""
    calls = [call for call in context.project.table.bodies.calls(loop.body) if call.place == write.place]
    given = [argument.value for call in calls for argument in call.arguments if last_name(call.function) == "add"]
    return bool(given) and all([isinstance(value, ir.Name) and value.path[0] in names for value in given])


def _loop_of(flow: FunctionFlow, event: Event) -> ir.For | None:
    """The for loop around the commit, if nothing between them makes it conditional or handles its failure."""
    for frame in reversed(event.frames):
        if frame.kind == "for" and isinstance(frame.node, ir.For):
            return frame.node
        if frame.kind == "if" and isinstance(frame.node, ir.If) and _takes_own(flow, event, frame.node):
            continue
        if frame.kind in ("if", "while", "except"):
            return None
        if frame.kind == "try" and isinstance(frame.node, ir.Try) and _handles(frame.node):
            return None
    return None


def _takes_own(flow: FunctionFlow, commit: Event, node: ir.If) -> bool:
    """Whether a conditional commit takes what is written under the same condition: `if new: add(item); commit()`.

    A condition that counts is one of batches: `if len(rows) >= 500: session.add_all(rows); session.commit()`.
    """
    parts = ir.expressions(node.test)
    if any([type(part.value) is int for part in parts if isinstance(part, ir.Constant)]) or any(
        [path_of(part.function) == ("len",) for part in parts if isinstance(part, ir.Call)]
    ):
        return False
    branch = next(
        (part for part in (node.body, node.orelse) if any([ir.within(commit.place, item.place) for item in part])), ()
    )
    writes = [other for other in flow.events if other.kind == result.WROTE and other.identity == commit.identity]
    return any([ir.within(write.place, item.place) for write in writes for item in branch])


def _only_writes(context: Context, flow: FunctionFlow, body: tuple[ir.Stmt, ...], depth: int = 0) -> bool:
    """Whether nothing in the body of a loop, or of a function that it calls, reaches outside of the session."""
    known = {event.place for event in flow.events}
    handings = {handing.place: handing.callee for handing in flow.calls}
    for statement in ir.statements(body):
        for part in own_expressions(statement):
            if isinstance(part, ir.Await) and not isinstance(part.value, ir.Call):
                return False
            if not isinstance(part, ir.Call):
                continue
            callee = context.project.flow(handings[part.place]) if part.place in handings else None
            if callee is not None and depth < _DEEPEST:
                if not _only_writes(context, callee, callee.reference.function.body, depth + 1):
                    return False
            elif part.place not in handings and part.place not in known and not _is_harmless(part):
                return False
    return True


def _is_harmless(call: ir.Call) -> bool:
    *owners, last = [word.removesuffix("()") for word in words(call.function).split(".")]
    return (
        # `storage.delete(file)` is none of a session's.
        (last in ops.SESSION_METHODS and any([word == "query" or named_like_session(word) for word in owners]))
        or last in ops.QUERY_READS
        or last in ops.CALM_METHODS
        or last in ops.CALM_FUNCTIONS
        or last in ops.CONVERSIONS
        or (not owners and last in ops.STATEMENT_FUNCTIONS)
        or owners == ["func"]
        or last[:1].isupper()
        or (not owners and hasattr(builtins, last) and last not in _REACHING)
        or bool(ops.CALM_OBJECTS.intersection((*owners, last)))
    )


def _handles(node: ir.Try) -> bool:
    """Whether a handler goes on with the next item: each item is meant to stand for itself."""
    return any([not any([isinstance(last, ir.Raise) for last in handler.body[-1:]]) for handler in node.handlers])


def _works_on_items(flow: FunctionFlow, event: Event, loop: ir.For) -> bool:
    info = flow.sessions[event.identity]
    if info.origin in result.OPENED_HERE and ir.within(info.place, loop.place):
        return False
    words = " ".join([".".join(part.path) for part in ir.expressions(loop.iterable) if isinstance(part, ir.Name)])
    words += " " + " ".join([".".join(part.path) for part in ir.expressions(loop.target) if isinstance(part, ir.Name)])
    if any([word in words.lower() for word in _BATCH_WORDS]):
        return False
    for statement in ir.statements(loop.body):
        if isinstance(statement, ir.Return) and error_status(flow.reference.function.body, statement.place) is not None:
            continue  # `return "no such item", 400` has not found what the loop looks for, but given up.
        if isinstance(statement, (ir.Break, ir.Return)):
            return False
        for part in ir.expressions(statement):
            if isinstance(part, (ir.Yield,)):
                return False
    return bool(_writes(flow, event, loop)) or event.detail is not None


def _writes(flow: FunctionFlow, event: Event, loop: ir.For) -> list[Event]:
    return [
        other
        for other in flow.events
        if other.kind == result.WROTE and other.identity == event.identity and ir.within(other.place, loop.place)
    ]
