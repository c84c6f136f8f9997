"""SES109: a conflict is expected, and what handles it takes earlier work along, or never sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._conflicts import flushed_before_savepoint, handles_conflicts
from session_lint.checks.context import Context, certainty, history, step_at
from session_lint.findings import Confidence, Finding, Severity, Step
from session_lint.flow import result
from session_lint.flow.result import Event, FunctionFlow
from session_lint.flow.state import Mark
from session_lint.ir_queries import last_name, own_expressions, path_of
from session_lint.project.swallows import counts_attempts

_REMEDY = "put what may conflict into `with {name}.begin_nested():`, inside of the try, and leave the rollback out"
_ADDING = (".add()", ".add_all()")


class Loss(NamedTuple):
    """Earlier work that a rollback throws away. flow: whose work. wrote: its first write. after: what goes on."""

    flow: FunctionFlow
    wrote: Mark
    rollback: ir.Place
    after: Mark
    again: bool


@rule("SES109", "conflict-without-savepoint", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        yield from _rolled_back(context, flow)
        for event in flushed_before_savepoint(flow):
            yield _flushed_first(context, flow, event)
        yield from _never_seen(context, flow)


# ------------------------------------------------------------------------------------------- earlier work is lost


def _rolled_back(context: Context, flow: FunctionFlow) -> Iterator[Finding]:
    told = set()
    for event in flow.events:
        attempt = _attempt(flow, event)
        if attempt is None or event.place in told or (event.session is not None and event.session.savepoints):
            continue
        loss = _loss(flow, event)
        own = [loss] if loss is not None and _is_other_work(flow, loss, attempt, event) else []
        losses = own or list(_of_callers(context, flow, event))
        if losses:
            told.add(event.place)
            # What only tests lose is no reason to tell anybody.
            yield _loses(context, flow, event, sorted(losses, key=lambda loss: _habitat(context, loss).rank))


def _attempt(flow: FunctionFlow, event: Event) -> ir.Try | None:
    """The try statement of which a rollback handles a conflict."""
    if event.kind != result.ROLLED_BACK:
        return None
    handlers = [frame.node for frame in event.frames if frame.kind == "except"]
    for statement in ir.statements(flow.reference.function.body):
        if isinstance(statement, ir.Try) and handlers and handlers[-1] in statement.handlers:
            return statement if handles_conflicts(handlers[-1]) else None
    return None


def _loss(flow: FunctionFlow, event: Event) -> Loss | None:
    """What a rollback takes from a function that then goes on as if nothing had happened."""
    session = event.session
    if session is None or not session.dirty or session.witness.wrote is None:
        return None
    for later in flow.events:
        if later.kind == result.LOST and later.identity == event.identity and later.detail == str(event.place):
            again = session.witness.again is not None
            return Loss(flow, session.witness.wrote, event.place, Mark(later.place, later.text), again)
    return None


def _is_other_work(flow: FunctionFlow, loss: Loss, attempt: ir.Try, rollback: Event) -> bool:
    """Whether more is lost than what was tried: by a loop, or by a write that was not the only one."""
    wrote = _done_at(flow, loss.wrote.place)
    in_loop = any([frame.kind in ("for", "while") for frame in rollback.frames])
    if not in_loop and _only_commits(flow, attempt):
        return False  # It is the whole unit of work that is tried.
    if loss.again:
        retries = _is_last(attempt) and _all_within(wrote, attempt) and _is_tried_again(wrote, attempt, rollback)
        return not retries and not _is_left_for_another_turn(wrote, rollback)
    if _all_within(wrote, attempt) or _is_tried_again(wrote, attempt, rollback):
        return False
    first = min(wrote)
    # A `try` that begins with the flush tries what was added before it, and what it adds then is built on that.
    last = attempt.place if _begins_with_flush(attempt) else attempt.body[-1].place
    later = [event for event in flow.events if event.kind == result.WROTE and first < event.place <= last]
    added = _added_at(flow, first) if later else ""
    return not all([_completes(event, added) for event in later])


def _only_commits(flow: FunctionFlow, attempt: ir.Try) -> bool:
    wrote = [event.place for event in flow.events if event.kind == result.WROTE]
    if any([ir.within(place, statement.place) for place in wrote for statement in attempt.body]):
        return False
    called = [last_name(part.function) for part in ir.expressions(attempt.body) if isinstance(part, ir.Call)]
    return "commit" in called and "flush" not in called


def _begins_with_flush(attempt: ir.Try) -> bool:
    calls = [part for part in own_expressions(attempt.body[0]) if isinstance(part, ir.Call)]
    return any([last_name(call.function) in ("flush", "commit") for call in calls])


def _added_at(flow: FunctionFlow, place: ir.Place) -> str:
    """What the object is called that is added at a place; "" if nothing with a name is."""
    for part in ir.expressions(flow.reference.function.body):
        if isinstance(part, ir.Call) and part.place == place and last_name(part.function) == "add" and part.arguments:
            return next(iter(path_of(part.arguments[0].value)), "")
    return ""


def _completes(event: Event, added: str) -> bool:
    """Whether a change is one of the very object that was added before: that is one write, not two."""
    return bool(added) and event.detail == result.CHANGE and event.text.rpartition(".")[0] == f"changing {added}"


def _done_at(flow: FunctionFlow, place: ir.Place) -> list[ir.Place]:
    """Where a function does what stands at a place: in a nested function, it is wherever that is called."""
    body = flow.reference.function.body
    for statement in ir.statements(body):
        if isinstance(statement, ir.Define) and ir.within(place, statement.place):
            calls = [part for part in ir.expressions(body) if isinstance(part, ir.Call)]
            return [call.place for call in calls if path_of(call.function) == (statement.definition.name,)] or [place]
    return [place]


def _all_within(places: list[ir.Place], statement: ir.Stmt | ir.Handler) -> bool:
    return all([ir.within(place, statement.place) for place in places])


def _is_tried_again(wrote: list[ir.Place], attempt: ir.Try, rollback: Event) -> bool:
    """Whether the next turn of the loop, which success leaves, does what is lost once more."""
    for frame in reversed(rollback.frames):
        if frame.kind in ("for", "while"):
            succeeding = ir.statements((*attempt.body, *attempt.orelse))
            leaves = any([isinstance(statement, (ir.Return, ir.Break)) for statement in succeeding])
            return leaves and _all_within(wrote, frame.node)
    return False


def _is_last(attempt: ir.Try) -> bool:
    """Whether what follows the last step of the attempt is the way out of the loop: the loop is not over items."""
    return isinstance((attempt.orelse or attempt.body)[-1], (ir.Return, ir.Break))


def _is_left_for_another_turn(wrote: list[ir.Place], rollback: Event) -> bool:
    """Whether the handler leaves the loop over the items, for the next attempt to do all that is lost once more."""
    loops = [frame.node for frame in rollback.frames if isinstance(frame.node, (ir.For, ir.While))]
    handlers = [frame.node for frame in rollback.frames if isinstance(frame.node, ir.Handler)]
    if len(loops) < 2 or not handlers or not isinstance(handlers[-1].body[-1], ir.Break):
        return False
    around = loops[-2]
    return isinstance(around, ir.For) and counts_attempts(around.iterable) and _all_within(wrote, around)


def _of_callers(context: Context, flow: FunctionFlow, event: Event) -> Iterator[Loss]:
    """What the callers have written before."""
    for caller in context.project.call_graph.callers(flow.reference, event.identity):
        outer = context.project.flow(caller.reference)
        for other in outer.events if outer is not None else ():
            if other.kind == result.ROLLED_BACK and (other.place, other.identity) == (caller.place, caller.identity):
                loss = _loss(outer, other) if outer is not None else None
                if loss is not None:
                    yield loss
                    break


def _habitat(context: Context, loss: Loss) -> Confidence:
    return context.habitat(loss.flow.reference.module)


def _loses(context: Context, flow: FunctionFlow, event: Event, losses: list[Loss]) -> Finding:
    info = flow.sessions[event.identity]
    first = losses[0]
    here = first.flow is flow
    earlier = "earlier turns of the loop have" if first.again and here else f"{first.flow.reference.function.name} has"
    message = (
        f"{event.text} after a conflict also throws away what {earlier} written and not committed, and the work goes "
        f"on without it; {_REMEDY.format(name=info.name)}"
    )
    module = first.flow.reference.module
    trail: list[Mark | Step] = [step_at(module, first.wrote.place, first.wrote.text)]
    if event.session is not None:
        trail += history(event.session, "failed")
    trail.append(Mark(event.place, f"{event.text} throws all of it away"))
    trail.append(step_at(module, first.after.place, first.after.text))
    affects = [
        context.affected(loss.flow.reference, f"loses what it has written before line {loss.rollback[0]}")
        for loss in losses
        if loss.flow is not flow
    ]
    confidence = certainty(info, Confidence.LIKELY).at_most(_habitat(context, first))
    return context.finding(flow, event.place, message, confidence, trail, affects)


# ------------------------------------------------------------------------------------ added before the savepoint


def _flushed_first(context: Context, flow: FunctionFlow, event: Event) -> Finding:
    assert event.session is not None
    info = flow.sessions[event.identity]
    added = event.session.witness.wrote
    where = f" (line {added.place[0]})" if added is not None else ""
    message = (
        f"begin_nested() flushes what was added before it{where}, ahead of its SAVEPOINT: a conflict breaks the whole "
        f"transaction, and the handler finds {info.name} failed; add it inside of the block"
    )
    trail = [
        *history(event.session, "wrote"),
        Mark(event.place, f"{event.text} flushes it, and sends SAVEPOINT after that"),
    ]
    return context.finding(flow, event.place, message, certainty(info, Confidence.LIKELY), trail)


# ------------------------------------------------------------------------------------ a handler that sees nothing


def _never_seen(context: Context, flow: FunctionFlow) -> Iterator[Finding]:
    """`try: session.add(x) except IntegrityError`: add() sends nothing, and the conflict comes at the next flush."""
    for statement in ir.statements(flow.reference.function.body):
        if not isinstance(statement, ir.Try):
            continue
        added = [
            event
            for event in flow.events
            if event.kind == result.WROTE
            and event.text.endswith(_ADDING)
            and not event.detail  # what a callee adds, it may send
            and any([ir.within(event.place, inner.place) for inner in statement.body])
        ]
        only_adds = bool(added) and _only_adds(statement, {event.place for event in added})
        for handler in statement.handlers if only_adds else ():
            if handles_conflicts(handler, only=True):
                info = flow.sessions[added[0].identity]
                message = (
                    f"{added[0].text} sends nothing, so this handler never sees a conflict: it comes out of the next "
                    f"flush or commit, where nobody expects it; flush inside of the try, in `with "
                    f"{info.name}.begin_nested():`"
                )
                trail = [Mark(added[0].place, f"{added[0].text} only notes it here")]
                yield context.finding(flow, handler.place, message, certainty(info, Confidence.LIKELY), trail)


def _only_adds(attempt: ir.Try, adding: set[ir.Place]) -> bool:
    """Whether its body calls nothing but add(), at these places, and constructors, which send nothing."""
    for statement in ir.statements(attempt.body):
        if isinstance(statement, (ir.With, ir.For)):
            return False
        for part in ir.expressions(statement):
            if isinstance(part, (ir.Await, ir.Yield)):
                return False
            if isinstance(part, ir.Call):
                path = path_of(part.function)
                if not path or not (path[-1][:1].isupper() or part.place in adding):
                    return False
    return True
