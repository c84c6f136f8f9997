"""SES102: an error is swallowed, and the session that it broke is used again or committed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._conflicts import guarded_savepoints, holds_the_conflict_alone
from session_lint.checks._sqlalchemy_1 import rolls_back_by_itself
from session_lint.checks.context import Context, causes, failed_operation, history, step_at
from session_lint.findings import Affected, Confidence, Finding, Severity
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.effects import is_active, loses_nothing
from session_lint.flow.errors import is_database_type
from session_lint.flow.result import Exit, FunctionFlow, SessionInfo
from session_lint.flow.state import BROKEN, FAILED, Mark, SessionState
from session_lint.flow.values import Const, Path
from session_lint.ir_queries import path_of, uncalled
from session_lint.project import ownership
from session_lint.project.databases import fails_on_forgiving_only
from session_lint.project.guards import catches_failures, handled
from session_lint.project.modules import ClassRef, VariableRef
from session_lint.project.swallows import Reuse, Swallower, Use, ends_well, is_retry
from session_lint.source import entry_words


@rule("SES102", "error-swallowed-without-rollback", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        told: set[Path] = set()
        late = {event.place for event in guarded_savepoints(flow)}
        suffering = {
            _place(swallower.session): (swallower, uses)
            for swallower, uses in _users(context, flow)
            if not _fails_at(swallower.session, late)
        }
        for own, identity, place in _own(context, flow, late):
            told.add(identity)
            swallower, uses = suffering.pop(place, (None, []))
            if swallower is not None and uses[0].confidence.rank < own.confidence.rank:
                yield _suffered(context, swallower, uses)  # of two uses the surer one is told
            else:
                yield replace(own, affects=(*own.affects, *_affected(context, uses)))
        for swallower, uses in suffering.values():
            told.add(swallower.identity)
            yield _suffered(context, swallower, uses)
        yield from _left_behind(context, flow, told)


def _users(context: Context, flow: FunctionFlow) -> Iterator[tuple[Swallower, list[Use]]]:
    """Those who suffer from what the function swallows, the surest first; tests are no reason to tell anybody."""
    for swallower, uses in context.project.swallows.users(flow):
        judged = [
            use._replace(confidence=use.confidence.at_most(context.habitat(use.flow.reference.module))) for use in uses
        ]
        yield swallower, sorted(judged, key=lambda use: (use.confidence.rank, use.flow.reference.module.path))


def _own(context: Context, flow: FunctionFlow, late: set[ir.Place]) -> Iterator[tuple[Finding, Path, ir.Place | None]]:
    """The errors that the function swallows itself and suffers from itself, with the handler's place.

    late: the savepoints that SES109 tells about.
    """
    lost = set()
    for reuse in context.project.swallows.reuses(flow):
        if is_retry(reuse) or _fails_at(reuse.session, late):
            continue
        if rolls_back_by_itself(context, flow, reuse.event.identity, reuse.session):
            continue
        if _is_forgiven(flow, reuse.session):
            continue
        lost.add(reuse.event.identity)
        if context.project.swallows.swallower(flow, reuse.event.identity, reuse.session).flow is flow:
            yield _reused(context, flow, reuse), reuse.event.identity, _place(reuse.session)
    ends = [(event, event.session) for event in flow.events if event.kind == result.LOST_IN_BLOCK and event.session]
    # Of several failures the surest is told.
    for event, session in sorted(ends, key=lambda end: (ends_well(*end), end[1].transaction != FAILED)):
        if event.identity not in lost:
            lost.add(event.identity)
            if context.project.swallows.swallower(flow, event.identity, session).flow is flow:
                yield _lost(context, flow, event, session), event.identity, _place(session)


def _fails_at(session: SessionState, places: set[ir.Place]) -> bool:
    return session.witness.failed is not None and session.witness.failed.place in places


def _is_forgiven(flow: FunctionFlow, session: SessionState) -> bool:
    """Whether only a statement of a database that takes back no more than the statement can have failed."""
    failed = session.witness.failed
    is_alone = failed is not None and not session.witness.causes and is_active(session) is True
    return is_alone and failed is not None and fails_on_forgiving_only(flow.reference.function.body, failed.place)


def _place(session: SessionState) -> ir.Place | None:
    return session.witness.swallowed.place if session.witness.swallowed else None


def _affected(context: Context, uses: list[Use]) -> list[Affected]:
    """The functions that go on with the session."""
    return list(
        dict.fromkeys(
            context.affected(use.flow.reference, f"{use.event.text} {_suffers(use)} (line {use.event.place[0]})")
            for use in uses
        )
    )


def _suffers(use: Use) -> str:
    if use.event.detail == result.RELEASE:
        return "fails at its RELEASE"
    return "commits nothing, or fails at its commit" if use.loses else "uses the failed session"


def _suffered(context: Context, swallower: Swallower, uses: list[Use]) -> Finding:
    """The function returns as if nothing had happened, and its callers go on with the session."""
    flow, session, first = swallower.flow, swallower.session, uses[0]
    name, info = flow.reference.function.name, flow.sessions[swallower.identity]
    module = first.flow.reference.module
    where = context.line(module, first.event.place)
    message = (
        f"the error of {failed_operation(session)} is swallowed and {name} returns with {info.name} failed; "
        f"then {first.event.text} {_suffers(first)} in {first.flow.reference.function.name} ({where}): "
        "roll back in the handler, or use begin_nested()"
    )
    end = step_at(module, first.event.place, f"{first.event.text} {_suffers(first)} here")
    place = _place(session) or flow.reference.function.place
    affects = [*causes(session), *_affected(context, uses)]
    return context.finding(
        flow, place, message, first.confidence, [*history(session, "failed", "swallowed"), end], affects
    )


def _reused(context: Context, flow: FunctionFlow, reuse: Reuse) -> Finding:
    event, session = reuse.event, reuse.session
    info = flow.sessions[event.identity]
    what = failed_operation(session)
    # An object may be read in the very handler that lets the error out again.
    then = "nothing was rolled back" if event.detail == ops.LOAD else "the error was swallowed without a rollback"
    message = (
        f"{event.text} uses {info.name} after {what} may have failed and {then}; "
        f"roll back in the handler, or put what may fail into `with {info.name}.begin_nested():`"
    )
    place = _place(session) or event.place
    trail = [*history(session, "failed", "swallowed")]
    return context.finding(flow, place, message, reuse.confidence, [*trail, _mark(event)], causes(session))


def _mark(event: result.Event) -> Mark:
    return Mark(event.place, f"{event.text} uses the failed session here")


def _lost(context: Context, flow: FunctionFlow, event: result.Event, session: SessionState) -> Finding:
    info = flow.sessions[event.identity]
    what = failed_operation(session)
    if event.detail == result.RELEASE:
        message = (
            f"the error of {what} is swallowed inside {event.text}, whose RELEASE then fails and leaves the "
            "transaction aborted; catch the error outside of the block"
        )
    else:
        message = (
            f"the error of {what} is swallowed inside {event.text}, which then commits nothing, or fails at its "
            f"commit; let the error out, or put what may fail into `with {info.name}.begin_nested():`"
        )
    place = session.witness.swallowed.place if session.witness.swallowed else info.place
    is_lost = session.transaction == FAILED and not context.project.outlives(session) and not ends_well(event, session)
    if is_lost and (found := handled(context.project.table, flow, session)) is not None:
        is_lost = not holds_the_conflict_alone(flow, event, session, found[1])
    confidence = info.certainty.at_most(session.certainty if is_lost else Confidence.POSSIBLE)
    return context.finding(flow, place, message, confidence, history(session, "failed", "swallowed"), causes(session))


def _left_behind(context: Context, flow: FunctionFlow, told: set[tuple[str, ...]]) -> Iterator[Finding]:
    """The function returns normally and leaves the session failed."""
    if flow.reference.function.is_generator:
        return
    for way in flow.exits:
        if way.error is not None:
            continue
        for identity, session in way.state.sessions.items():
            info = flow.sessions[identity]
            if identity in told or session.transaction not in BROKEN or session.witness.swallowed is None:
                continue
            ahead = _runs_ahead(flow.reference.function) and way.value == Const(None)
            if session.transaction != FAILED and not _is_told_of_read(context, flow, session, ahead):
                continue
            if context.project.swallows.swallower(flow, identity, session).flow is not flow:
                continue
            if info.origin in result.OPENED_HERE:
                continue
            told.add(identity)
            yield from _judge_left(context, flow, info, session, way, ahead)


def _runs_ahead(function: ir.Function) -> bool:
    """Whether the handler of the same request runs after the function, with the same session of its scope."""
    return any([path_of(uncalled(decorator))[-1:] in _AHEAD for decorator in function.decorators])


_AHEAD = frozenset([(name,) for name in entry_words.AHEAD])


def _is_told_of_read(context: Context, flow: FunctionFlow, session: SessionState, ahead: bool) -> bool:
    """Whether a read that may have failed is worth a word: its handler is there for that, and nobody else is seen."""
    project = context.project
    if ahead:
        return project.swallows.is_for_reads(flow, session)
    return (
        project.aborts_transactions
        and catches_failures(project.table, flow, session)
        and not project.call_graph.is_called(flow.reference)  # The callers use it no more.
    )


def _judge_left(
    context: Context, flow: FunctionFlow, info: SessionInfo, session: SessionState, way: Exit, ahead: bool
) -> Iterator[Finding]:
    owner = context.project.ownership.of(flow, info)
    ahead = ahead and info.origin not in (result.PARAMETER, result.ATTRIBUTE)
    if owner.verdict == ownership.CLEANED and not ahead and not owner.commits and not context.local:
        return
    doubt = Confidence.LIKELY if ahead else owner.confidence
    is_given = info.origin in (result.PARAMETER, result.ATTRIBUTE) and not _may_be_wrapped(context, flow)
    if context.local or (is_given and _expects_it(context, flow, session)):
        # Who catches IntegrityError knows that the session fails here, and leaves it so to everybody else.
        doubt = Confidence.LIKELY
    if (owner.commits and loses_nothing(session)) or context.project.outlives(session):
        # Unless a caller has written before, which is not seen here; or it is a deadlock in MySQL.
        doubt = Confidence.POSSIBLE
    confidence = info.certainty.at_most(session.certainty).at_most(doubt)
    what = failed_operation(session)
    message = f"the error of {what} is swallowed and {flow.reference.function.name} returns with {info.name} failed"
    if owner.commits and not ahead:
        message += f"; {owner.text} and commits, which fails or loses everything: roll back, or use begin_nested()"
    elif ahead:
        message += "; the request's handler comes next and gets an error: roll back here, or use begin_nested()"
    else:
        message += "; whoever uses it next gets an error: roll back in the handler, or use begin_nested()"
    place = session.witness.swallowed.place if session.witness.swallowed else way.place
    trail = history(session, "failed", "swallowed")
    yield context.finding(flow, place, message, confidence, trail, causes(session))


def _may_be_wrapped(context: Context, flow: FunctionFlow) -> bool:
    """Whether a metaclass of the project's own makes the class: each method may open and close a session around it."""
    module, function = flow.reference
    table, definition = context.project.table, module.classes.get(function.owner or "")
    if definition is None:
        return False
    for symbol in table.ancestors(ClassRef(module, definition)):
        if isinstance(symbol, ClassRef) and isinstance(symbol.definition.metaclass, ir.Name):
            made_by = table.resolve(symbol.module, symbol.definition.metaclass.path)
            if isinstance(made_by, VariableRef):
                return True
            if isinstance(made_by, ClassRef) and table.method(made_by, "__new__") is not None:
                return True
    return False


def _expects_it(context: Context, flow: FunctionFlow, session: SessionState) -> bool:
    """Whether the handler that swallowed the error names a database error."""
    found = handled(context.project.table, flow, session)
    kinds = ir.expressions(found[1].type) if found is not None and found[1].type is not None else ()
    return any([isinstance(part, ir.Name) and is_database_type(part.path[-1]) for part in kinds])
