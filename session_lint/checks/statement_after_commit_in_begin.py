"""SES106: a begin() block whose transaction is ended by hand before the block ends."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import Mark
from session_lint.flow.values import Path
from session_lint.ir_queries import last_name, own_expressions, precedes
from session_lint.project.modules import FunctionRef


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
            harm = Confidence.LIKELY if _harms(context, flow, event) else Confidence.POSSIBLE
            trail, confidence = history(event.session, "used"), certainty(info, harm)
        yield context.finding(flow, event.place, message, confidence, trail)


def _harms(context: Context, flow: FunctionFlow, commit: Event) -> bool:
    """Whether a commit() in a savepoint's block takes earlier work along, or something follows it in the block.

    As the last statement of the block, with nothing written before, it does what was meant. What a callee that commits
    does afterwards stands in the block, too.
    """
    if any([handing.place == commit.place for handing in flow.calls]):
        return True
    blocks = [frame.node for frame in reversed(commit.frames) if isinstance(frame.node, ir.With)]
    block = next((node for node in blocks if any([_begins_nested(item.value) for item in node.items])), None)
    if block is None:
        return True
    attempts = [frame.node for frame in commit.frames if frame.kind == "try" and isinstance(frame.node, ir.Try)]
    if any([_goes_on(attempt) for attempt in attempts if ir.within(block.place, attempt.place)]):
        return True  # Whoever goes on after an error relies on the savepoint.
    inside = [frame.node for frame in commit.frames if ir.within(frame.node.place, block.place)]
    if any([isinstance(node, (ir.For, ir.While)) for node in inside]):
        return True
    following = [node for node in ir.statements(block.body) if node.place[:2] >= commit.place[2:]]
    if any([not _is_bare(part) for node in following for part in own_expressions(node)]):
        return True
    same = [event for event in flow.events if (event.kind, event.place) == (commit.kind, commit.place)]
    wrote = [event.session.witness.wrote for event in same if event.session is not None and event.session.dirty]
    if any([mark is not None and precedes(mark.place, block.place) for mark in wrote]):
        return True
    return _is_taken_along(context, flow.reference, commit.identity)


def _goes_on(attempt: ir.Try) -> bool:
    return not all([isinstance(handler.body[-1], ir.Raise) for handler in attempt.handlers])


def _is_bare(node: ir.Expr) -> bool:
    """`return row`, `return True`: it asks nothing of the session."""
    return isinstance(node, ir.Constant) or (isinstance(node, ir.Name) and len(node.path) == 1)


def _begins_nested(node: ir.Expr) -> bool:
    calls = [part for part in ir.expressions(node) if isinstance(part, ir.Call)]
    nested = ir.Argument("nested", ir.Constant(True))
    return any([last_name(call.function) == "begin_nested" or nested in call.arguments for call in calls])


def _is_taken_along(context: Context, reference: FunctionRef, identity: Path) -> bool:
    """Whether a caller, or one of its callers, has written something that a function commits."""
    waiting, seen = [(reference, identity)], {reference}
    while waiting:
        for caller in context.project.call_graph.callers(*waiting.pop()):
            outer = context.project.flow(caller.reference)
            for event in outer.events if outer is not None else ():
                if event.kind == result.SPLIT and (event.place, event.identity) == (caller.place, caller.identity):
                    return True
            if caller.reference not in seen:
                seen.add(caller.reference)
                waiting.append((caller.reference, caller.identity))
    return False


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
