"""SES301: a coroutine of the session that is never awaited."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import operations as ops
from session_lint.flow import result
from session_lint.flow.result import FunctionFlow, SessionInfo
from session_lint.flow.values import Path
from session_lint.ir_queries import path_of


@rule("SES301", "missing-await", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for flow, event in context.events(result.NOT_AWAITED):
        if event.place in seen:
            continue
        seen.add(event.place)
        info = flow.sessions.get(event.identity)
        confidence = info.certainty if info is not None else Confidence.CERTAIN
        if event.identity and _is_sync_after_all(flow, event.identity):
            confidence = Confidence.POSSIBLE
        yield context.finding(flow, event.place, _message(event.text), confidence)
    for flow in context.flows():
        for call in _dropped(flow.reference.function) if flow.reference.function.is_async else ():
            path = path_of(call.function)
            if len(path) != 2 or path[1] not in ops.COROUTINES or call.place in seen:
                continue
            if _is_async_after_all(context, flow, path[0]):
                seen.add(call.place)
                yield context.finding(flow, call.place, _message(f"{'.'.join(path)}()"), Confidence.LIKELY)


def _message(text: str) -> str:
    return f"{text} is a coroutine and is never awaited, so nothing of it runs; write `await {text}`"


def _dropped(function: ir.Function) -> list[ir.Call]:
    """The calls whose result nobody takes."""
    return [
        statement.value
        for statement in ir.statements(function.body)
        if isinstance(statement, ir.Expression) and isinstance(statement.value, ir.Call)
    ]


def _is_async_after_all(context: Context, flow: FunctionFlow, name: str) -> bool:
    """Whether a session of which nothing says what it is comes from, or goes to, who has or wants an AsyncSession."""
    project, function = context.project, flow.reference.function
    for identity, info in flow.sessions.items():
        if info.name == name and not info.type.is_async and info.certainty != Confidence.CERTAIN:
            handings = [(each.callee, root) for each in flow.calls for root, given in each.given if given == identity]
            callees = [(project.flow(reference), root) for reference, root in handings]
            if any([callee is not None and _is_async(callee.sessions.get(root)) for callee, root in callees]):
                return True
    if any([each.name == name and each.annotation is None and each.default is None for each in function.parameters]):
        callers = project.call_graph.callers(flow.reference, (name,))
        flows = [(project.flow(caller.reference), caller.identity) for caller in callers]
        given = [each.sessions.get(identity) for each, identity in flows if each is not None]
        return bool(given) and all([_is_async(each) for each in given])
    return False


def _is_async(info: SessionInfo | None) -> bool:
    return info is not None and info.type.is_async and info.certainty == Confidence.CERTAIN


def _is_sync_after_all(flow: FunctionFlow, identity: Path) -> bool:
    """Whether only an annotation says that the session is async: a plain function works with what its methods give."""
    function = flow.reference.function
    if function.is_async or flow.sessions[identity].origin != result.PARAMETER:
        return False
    dropped = {call.place for call in _dropped(function)}
    events = [event for event in flow.events if event.kind == result.NOT_AWAITED and event.identity == identity]
    return any([event.place not in dropped for event in events])
