"""SES212: a context manager where FastAPI, or a loop, wants a generator."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.checks import rule
from session_lint.checks.context import Context
from session_lint.findings import Confidence, Finding, Severity
from session_lint.flow import result
from session_lint.flow.values import Dependency, Function
from session_lint.project.modules import FunctionRef


@rule("SES212", "context-manager-as-dependency", Severity.ERROR)
def check(context: Context) -> Iterator[Finding]:
    seen = set()
    for call, function in _calls(context):
        value = context.project.statics.expression(context.module, call)
        if not isinstance(value, Dependency) or not isinstance(value.provider, Function) or call.place in seen:
            continue
        seen.add(call.place)
        reference = value.provider.reference
        if context.project.statics.results.is_manager(reference):
            flow = context.project.flow(FunctionRef(context.module, function)) if function is not None else None
            message = (
                f"{reference.function.name} is a context manager: Depends() gives the manager itself, not what it "
                "yields; "
                "depend on the generator function without its contextmanager decorator"
            )
            yield context.finding(flow, call.place, message, Confidence.CERTAIN)
    for flow, event in context.events(result.MANAGER_ITERATED):
        if event.place in seen:
            continue
        seen.add(event.place)
        name = event.detail.function.name if isinstance(event.detail, FunctionRef) else "it"
        message = f"{name}() is a context manager and can't be iterated (TypeError); use `with {name}() as ...:`"
        yield context.finding(flow, event.place, message, Confidence.CERTAIN)


def _calls(context: Context) -> Iterator[tuple[ir.Call, ir.Function | None]]:
    """Every `Depends(...)` of the module and the function that it stands at."""
    for function in context.module.functions.values():
        for parameter in function.parameters:
            for node in (parameter.default, parameter.annotation):
                yield from _depends(node, function)
        for decorator in function.decorators:
            yield from _depends(decorator, function)
    for statement in context.module.tree.body:
        if isinstance(statement, (ir.Assign, ir.Expression)):
            yield from _depends(statement.value, None)


def _depends(node: ir.Expr | None, function: ir.Function | None) -> Iterator[tuple[ir.Call, ir.Function | None]]:
    if node is None:
        return
    for part in ir.expressions(node):
        if (
            isinstance(part, ir.Call)
            and isinstance(part.function, ir.Name)
            and part.function.path[-1] in ("Depends", "Security")
        ):
            yield part, function
