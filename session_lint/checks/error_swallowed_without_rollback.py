"""SES102: an error is swallowed, and the session that it broke is used again or committed."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._conflicts import guarded_savepoints
from session_lint.checks._swallowed import Reuse, failed_operation, is_retry, is_told_by_callee, reuses
from session_lint.checks.context import Context, causes, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.errors import is_database_type
from session_lint.flow.result import Exit, FunctionFlow, SessionInfo
from session_lint.flow.state import FAILED, Mark, SessionState
from session_lint.project import ownership


@rule("SES102", "error-swallowed-without-rollback", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    for flow in context.flows():
        told = set()
        late = {event.place for event in guarded_savepoints(flow)}
        for reuse in reuses(flow):
            failed = reuse.session.witness.failed
            if failed is not None and failed.place in late:
                continue  # SES109
            if is_told_by_callee(context.project, flow, reuse):
                told.add(reuse.event.identity)
            elif not is_retry(reuse):
                told.add(reuse.event.identity)
                yield _reused(context, flow, reuse)
        for event in flow.events:
            if event.kind == result.LOST_IN_BLOCK and event.session is not None and event.identity not in told:
                told.add(event.identity)
                yield _lost(context, flow, event.identity, event.session, event.text)
        yield from _left_behind(context, flow, told)


def _reused(context: Context, flow: FunctionFlow, reuse: Reuse) -> Finding:
    event, session = reuse.event, reuse.session
    info = flow.sessions[event.identity]
    what = failed_operation(session)
    message = (
        f"{event.text} uses {info.name} after {what} may have failed and the error was swallowed without a rollback; "
        f"roll back in the handler, or put what may fail into `with {info.name}.begin_nested():`"
    )
    place = session.witness.swallowed.place if session.witness.swallowed else event.place
    trail = [*history(session, "failed", "swallowed")]
    return context.finding(flow, place, message, reuse.confidence, [*trail, _mark(event)], causes(session))


def _mark(event: result.Event) -> Mark:
    return Mark(event.place, f"{event.text} uses the failed session here")


def _lost(context: Context, flow: FunctionFlow, identity: tuple[str, ...], session: SessionState, who: str) -> Finding:
    info = flow.sessions[identity]
    what = failed_operation(session)
    message = (
        f"the error of {what} is swallowed inside {who}, which then commits nothing, or fails at its commit; "
        f"let the error out, or put what may fail into `with {info.name}.begin_nested():`"
    )
    place = session.witness.swallowed.place if session.witness.swallowed else info.place
    confidence = info.certainty if session.transaction == FAILED else Confidence.POSSIBLE
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
            if identity in told or session.transaction != FAILED or session.witness.swallowed is None:
                continue
            if info.origin in (result.LOCAL, result.PROVIDED, result.ITERATED):
                continue
            told.add(identity)
            yield from _judge_left(context, flow, info, session, way)


def _judge_left(
    context: Context, flow: FunctionFlow, info: SessionInfo, session: SessionState, way: Exit
) -> Iterator[Finding]:
    owner = context.project.ownership.of(flow, info)
    if owner.verdict == ownership.CLEANED and not owner.commits and not context.local:
        return
    doubt = owner.confidence
    if context.local or (_expects_it(flow, session) and info.origin in (result.PARAMETER, result.ATTRIBUTE)):
        # Who catches IntegrityError knows that the session fails here, and leaves it so to everybody else.
        doubt = Confidence.LIKELY
    confidence = info.certainty.at_most(doubt)
    what = failed_operation(session)
    message = f"the error of {what} is swallowed and {flow.reference.function.name} returns with {info.name} failed"
    if owner.commits:
        message += f"; {owner.text} and commits, which fails or loses everything: roll back, or use begin_nested()"
    else:
        message += "; whoever uses it next gets an error: roll back in the handler, or use begin_nested()"
    place = session.witness.swallowed.place if session.witness.swallowed else way.place
    trail = history(session, "failed", "swallowed")
    yield context.finding(flow, place, message, confidence, trail, causes(session))


def _expects_it(flow: FunctionFlow, session: SessionState) -> bool:
    """Whether the handler that swallowed the error names a database error."""
    swallowed = session.witness.swallowed
    if swallowed is None:
        return False
    for statement in ir.statements(flow.reference.function.body):
        if isinstance(statement, ir.Try):
            for handler in statement.handlers:
                if handler.place == swallowed.place and handler.type is not None:
                    names = [part.path[-1] for part in ir.expressions(handler.type) if isinstance(part, ir.Name)]
                    return any([is_database_type(name) for name in names])
    return False
