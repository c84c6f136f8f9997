"""Handlers that are there for one operation: nothing else in their `try` can raise."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow import operations
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import Mark, SessionState
from session_lint.ir_queries import own_expressions, path_of
from session_lint.project.modules import SymbolTable

_QUERY = frozenset({"select", "delete", "insert", "text", "and_", "or_", "desc", "asc"})
_CALM_ENDS = frozenset([(name,) for name in operations.CALM_METHODS | _QUERY])


def guards_alone(table: SymbolTable, flow: FunctionFlow, session: SessionState) -> bool:
    """Whether a handler is there for nothing but what has failed: nothing else can raise in its `try`.

    If it is a call that has failed, the same must hold inside of it.
    """
    failed, swallowed = session.witness.failed, session.witness.swallowed
    if failed is None or swallowed is None:
        return False
    for statement in table.bodies.statements(flow.reference.function.body):
        if isinstance(statement, ir.Try) and any([item.place == swallowed.place for item in statement.handlers]):
            places = [(statement.body, failed.place)]
            for cause in session.witness.causes:
                function = table.function_at(cause.path, cause.function)
                if function is None:
                    return False
                places.append((function.body, cause.place))
            is_seen = bool(session.witness.causes) or _is_statement(failed)
            return is_seen and all([_fails_alone(body, place) for body, place in places])
    return False


def _is_statement(failed: Mark) -> bool:
    """Whether what has failed is an operation of the session itself, and no call that can't be seen."""
    return operations.SESSION_METHODS.get(failed.text.partition("()")[0].rpartition(".")[2]) is not None


def _fails_alone(body: tuple[ir.Stmt, ...], place: ir.Place) -> bool:
    """Whether nothing in a body can raise but the statement around a place."""
    for statement in ir.statements(body):
        if isinstance(statement, (ir.Raise, ir.Assert)):
            return False
        if not ir.within(place, statement.place) and any(
            [isinstance(part, ir.Call) and not _is_calm(part) for part in own_expressions(statement)]
        ):
            return False
    return True


def _is_calm(call: ir.Call) -> bool:
    """Whether nobody expects a call to raise: logging, containers, the parts of a query."""
    path = path_of(call.function)
    if len(path) == 1 and isinstance(call.function, ir.Name):
        return path[0] in operations.CALM_FUNCTIONS | _QUERY or path[0][:1].isupper()
    return bool(operations.CALM_OBJECTS.intersection(path[:-1])) or path[-1:] in _CALM_ENDS
