"""What a handler of errors is there for, and so how sure it is that what it has caught leaves the session failed."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow import operations
from session_lint.flow.calm import is_calm
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import SessionState, failed_method
from session_lint.ir_queries import bound_names, last_name, own_expressions
from session_lint.project.modules import SymbolTable

_QUERY = frozenset({"select", "delete", "insert", "text", "and_", "or_", "desc", "asc"})
"""Functions that make a statement, or a part of one."""


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
            # An operation of the session itself, or a call that can be seen.
            is_seen = bool(session.witness.causes) or failed_method(session)[1] in operations.SESSION_METHODS
            return is_seen and all([_fails_alone(body, place) for body, place in places])
    return False


def hands_over(table: SymbolTable, flow: FunctionFlow, session: SessionState) -> bool:
    """Whether what has failed is a function that only the run decides on, `handlers[name](session)`.

    It was given the session in order to work with it, so whatever fails in it may well be a statement.
    """
    failed = session.witness.failed
    if failed is None or session.witness.causes:
        return False
    body = flow.reference.function.body
    local = {parameter.name for parameter in flow.reference.function.parameters}
    for statement, nodes in table.bodies.parts(body):
        local.update(bound_names(statement, nodes))
    return any(
        [
            isinstance(call.function, (ir.Subscript, ir.Call))
            or (isinstance(call.function, ir.Name) and len(call.function.path) == 1 and call.function.path[0] in local)
            for call in table.bodies.calls(body)
            if call.place == failed.place
        ]
    )


def _fails_alone(body: tuple[ir.Stmt, ...], place: ir.Place) -> bool:
    """Whether nothing in a body can raise but the statement around a place."""
    for statement in ir.statements(body):
        if isinstance(statement, (ir.Raise, ir.Assert)):
            return False
        if not ir.within(place, statement.place) and any(map(_may_raise, own_expressions(statement))):
            return False
    return True


def _may_raise(part: ir.Expr) -> bool:
    """Whether it is a call that somebody expects to raise; the parts of a query are none."""
    return isinstance(part, ir.Call) and not is_calm(part.function) and last_name(part.function) not in _QUERY
