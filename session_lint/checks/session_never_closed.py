"""SES201: a session that is opened here and not closed on some way out."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks._around import unclosed_findings
from session_lint.checks._held import held_findings
from session_lint.checks._leaks import confidence_of, leak_findings
from session_lint.checks._leaving import leaving_findings
from session_lint.checks._parked import parked_findings
from session_lint.checks.context import Context, history
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.result import Exit, FunctionFlow, SessionInfo
from session_lint.flow.state import CLOSED
from session_lint.flow.values import Path, Session
from session_lint.ir_queries import own_expressions
from session_lint.project.call_graph import leaves_open
from session_lint.project.modules import FunctionRef


@rule("SES201", "session-never-closed", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    yield from leak_findings(context, "session")
    yield from parked_findings(context)
    yield from held_findings(context)
    yield from leaving_findings(context)
    yield from unclosed_findings(context)
    for flow in context.flows():
        if not flow.reference.function.is_generator:
            yield from _returned_to_fastapi(context, flow)


def _returned_to_fastapi(context: Context, flow: FunctionFlow) -> Iterator[Finding]:
    """A dependency that returns a session: FastAPI closes nothing that it was not given by a `yield`."""
    for way in flow.exits:
        info = _returned(flow, way)
        if info is None:
            continue
        users = [
            reference
            for reference, path, _ in context.project.dependencies.users(flow.reference)
            if _leaves_open(context, reference, path)
        ]
        if users:
            name = flow.reference.function.name
            message = (
                f"{name} returns {info.name} to FastAPI, which closes nothing that a dependency returns, and neither "
                f"does {users[0].function.name}; `yield` it inside `with`"
            )
            affected = [context.affected(user, f"{user.function.name} leaves it open") for user in dict.fromkeys(users)]
            confidence = confidence_of(flow, info).at_most(Confidence.LIKELY)
            trail = history(way.state.sessions[info.identity], "opened")
            yield context.finding(flow, way.place, message, confidence, trail, affected)
            return


def _returned(flow: FunctionFlow, way: Exit) -> SessionInfo | None:
    """The session that the function has opened, returns, and gives to nobody else."""
    if way.error is not None or not isinstance(way.value, Session):
        return None
    info = flow.sessions.get(way.value.identity)
    if info is None or info.origin != result.LOCAL or way.state.sessions[info.identity].transaction == CLOSED:
        return None
    name = ir.Name((info.name,))
    for statement in ir.statements(flow.reference.function.body):
        if isinstance(statement, ir.Assign) and statement.value == name:
            return None
        for part in own_expressions(statement):
            if isinstance(part, ir.Call) and any([argument.value == name for argument in part.arguments]):
                return None
    return info


def _leaves_open(context: Context, user: FunctionRef, path: Path) -> bool:
    """Whether a function that depends on the session may be left with its connection checked out."""
    flow = context.project.flow(user)
    if flow is None or user.function.is_generator:
        return False
    return any([leaves_open(way, path) for way in flow.exits])
