"""SES104: one commit per item, so that an error leaves half of the work done."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks.context import Context, certainty, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.ir_queries import own_expressions, words

_BATCH_WORDS = ("batch", "chunk", "page", "slice", "partition", "retr", "attempt", "range", "count", "delay", "tick")


@rule("SES104", "commit-in-loop", Severity.WARNING)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for flow, event in context.events(result.COMMITTED):
        loop = _loop_of(event)
        if loop is None or event.place in seen or event.session is None or not _works_on_items(flow, event, loop):
            continue
        seen.add(event.place)
        info = flow.sessions[event.identity]
        message = (
            f"{event.text} runs once per item of the loop: if a later item fails, the earlier ones stay committed; "
            "commit once after the loop, or make each item's work resumable"
        )
        confidence = certainty(info, Confidence.LIKELY)
        if not _only_writes(flow, loop):
            # Something else happens for each item, which the commit may have to keep pace with.
            confidence = Confidence.POSSIBLE
        if event.detail is not None:
            # The callee may well be a unit of work of its own, which is called for each item on purpose.
            confidence = Confidence.POSSIBLE
        yield context.finding(flow, event.place, message, confidence, history(event.session, "wrote"))


def _loop_of(event: Event) -> ir.For | None:
    """The for loop around the commit, if nothing between them makes it conditional or handles its failure."""
    for frame in reversed(event.frames):
        if frame.kind == "for" and isinstance(frame.node, ir.For):
            return frame.node
        if frame.kind in ("if", "while", "except"):
            return None
        if frame.kind == "try" and isinstance(frame.node, ir.Try) and _handles(frame.node):
            return None
    return None


def _only_writes(flow: FunctionFlow, loop: ir.For) -> bool:
    """Whether nothing in the loop reaches outside of the session."""
    known = {event.place for event in flow.events}
    known |= {handing.place for handing in flow.calls}
    for statement in ir.statements(loop.body):
        for part in own_expressions(statement):
            if isinstance(part, ir.Await) and not isinstance(part.value, ir.Call):
                return False
            if isinstance(part, ir.Call) and part.place not in known and not _is_harmless(part):
                return False
    return True


def _is_harmless(call: ir.Call) -> bool:
    said = words(call.function).split(".")
    last = said[-1].removesuffix("()")
    return (
        last in ops.SESSION_METHODS
        or last in ops.QUERY_READS
        or last in ops.CALM_METHODS
        or last in ops.CALM_FUNCTIONS
        or last[:1].isupper()
        or bool(ops.CALM_OBJECTS.intersection(said))
    )


def _handles(node: ir.Try) -> bool:
    """Whether a handler goes on with the next item: each item is meant to stand for itself."""
    return any([not any([isinstance(last, ir.Raise) for last in handler.body[-1:]]) for handler in node.handlers])


def _works_on_items(flow: FunctionFlow, event: Event, loop: ir.For) -> bool:
    info = flow.sessions[event.identity]
    if info.origin in (result.LOCAL, result.PROVIDED, result.ITERATED) and ir.within(info.place, loop.place):
        return False
    words = " ".join([".".join(part.path) for part in ir.expressions(loop.iterable) if isinstance(part, ir.Name)])
    words += " " + " ".join([".".join(part.path) for part in ir.expressions(loop.target) if isinstance(part, ir.Name)])
    if any([word in words.lower() for word in _BATCH_WORDS]):
        return False
    for statement in ir.statements(loop.body):
        if isinstance(statement, (ir.Break, ir.Return)):
            return False
        for part in ir.expressions(statement):
            if isinstance(part, (ir.Yield,)):
                return False
    wrote = [
        other
        for other in flow.events
        if other.kind == result.WROTE and other.identity == event.identity and ir.within(other.place, loop.place)
    ]
    return bool(wrote) or event.detail is not None
