"""What a handler of errors is there for, and so how sure it is that what it has caught leaves the session failed."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow import operations
from session_lint.flow.calm import is_calm
from session_lint.flow.result import FunctionFlow
from session_lint.flow.state import SessionState, failed_method
from session_lint.flow.values import Path
from session_lint.ir_queries import last_name, own_expressions, path_of
from session_lint.project.modules import External, FunctionRef, SymbolTable
from session_lint.project.statics import ENDS

_CONVERSIONS = frozenset("int float complex UUID Decimal fromisoformat strptime b64decode loads".split())
_QUERY = frozenset({"select", "delete", "insert", "text", "and_", "or_", "desc", "asc"})
"""Functions that make a statement, or a part of one."""

_FAILURES = frozenset({"SQLAlchemyError", "DBAPIError", "DatabaseError", "ProgrammingError", "DataError"})
"""What SQLAlchemy raises where a statement has failed. An OperationalError may be a database that can't be reached,
which breaks no session."""

_OF_VALUES = "sqlalchemy.exc.StatementError"
"""What SQLAlchemy raises, rather than one of the above, for a value that it can't send: nothing has been sent then."""

_ASKING = frozenset({"one", "scalar_one", "get_one"})
"""Methods that raise a SQLAlchemyError where there is no row; nothing has failed then."""


def handled(table: SymbolTable, flow: FunctionFlow, session: SessionState) -> tuple[ir.Try, ir.Handler] | None:
    """The handler that has caught the session's failure."""
    swallowed = session.witness.swallowed
    if swallowed is None:
        return None
    for statement in table.bodies.statements(flow.reference.function.body):
        for handler in statement.handlers if isinstance(statement, ir.Try) else ():
            if handler.place == swallowed.place and isinstance(statement, ir.Try):
                return statement, handler
    return None


def guards_alone(table: SymbolTable, flow: FunctionFlow, session: SessionState) -> bool:
    """Whether a handler is there for nothing but what has failed.

    It catches nothing else, or nothing else can raise in its `try`, nor in the call that has failed.
    """
    found = handled(table, flow, session)
    bodies = _guarded(table, found[0], session) if found is not None else []
    if found is None or not bodies:
        return False
    kinds = _kinds(table, flow, found[1])
    if kinds and all(map(_is_failure, kinds)):
        return True
    if _OF_VALUES in kinds and not any(map(_is_failure, kinds)):
        return False
    # An operation of the session itself, or a call that can be seen.
    is_seen = bool(session.witness.causes) or failed_method(session)[1] in operations.SESSION_METHODS
    return is_seen and all([_fails_alone(body, place) for body, place in bodies])


def catches_failures(table: SymbolTable, flow: FunctionFlow, session: SessionState) -> bool:
    """Whether the handler that has caught a session's failure catches nothing but the errors of failed statements."""
    found = handled(table, flow, session)
    if found is None or not _guarded(table, found[0], session):
        return False
    kinds = _kinds(table, flow, found[1])
    return bool(kinds) and all(map(_is_failure, kinds))


def _kinds(table: SymbolTable, flow: FunctionFlow, handler: ir.Handler) -> list[str]:
    """The exceptions that a handler names, "" for one that is not SQLAlchemy's; none if it names none."""
    nodes = handler.type.items if isinstance(handler.type, ir.Collection) else (handler.type,)
    symbols = [table.resolve(flow.reference.module, path_of(node)) for node in nodes if node is not None]
    return [symbol.name if isinstance(symbol, External) else "" for symbol in symbols]


def _is_failure(kind: str) -> bool:
    return kind.startswith("sqlalchemy.") and kind.rpartition(".")[2] in _FAILURES


def _guarded(table: SymbolTable, attempt: ir.Try, session: SessionState) -> list[tuple[tuple[ir.Stmt, ...], ir.Place]]:
    """The body of the `try` and those of the calls below it that have failed, each with the place where it has.

    Nothing if one of them can't be seen, or asks for a row that has to be there: so the handler may be for that.
    """
    failed = session.witness.failed
    if failed is None:
        return []
    bodies = [(attempt.body, failed.place)]
    for cause in session.witness.causes:
        function = table.function_at(cause.path, cause.function)
        if function is None:
            return []
        bodies.append((function.body, cause.place))
    asks = any([last_name(call.function) in _ASKING for body, _ in bodies for call in table.bodies.calls(body)])
    return [] if asks else bodies


def hands_over(table: SymbolTable, flow: FunctionFlow, session: SessionState) -> bool:
    """Whether what has failed is a function that only the run decides on, `handlers[name](session)`.

    It was given the session in order to work with it, so whatever fails in it may well be a statement.
    """
    failed = session.witness.failed
    if failed is None or session.witness.causes:
        return False
    body = flow.reference.function.body
    local = {parameter.name for parameter in flow.reference.function.parameters} | table.bodies.bound(body)
    return any(
        [
            isinstance(call.function, (ir.Subscript, ir.Call))
            or (isinstance(call.function, ir.Name) and len(call.function.path) == 1 and call.function.path[0] in local)
            for call in table.bodies.calls(body)
            if call.place == failed.place
        ]
    )


def helps_itself(table: SymbolTable, reference: FunctionRef, path: Path) -> bool:
    """Whether a function ends a session's transaction only where its own work with the session has failed.

    What others have left failed, it does not mend. A `try` around what only the run decides on may be around them.
    """
    body, parameters = reference.function.body, reference.function.parameters
    if reference.function.is_generator:
        return False
    given = {parameter.name for parameter in parameters} - {path[0]}
    own: set[ir.Place] = set()
    for statement in table.bodies.statements(body):
        if not isinstance(statement, ir.Try):
            continue
        called = [path_of(call.function) for call in table.bodies.calls(statement.body)]
        if any([each[:-1] == path for each in called]) and all([each and each[0] not in given for each in called]):
            own.update([call.place for handler in statement.handlers for call in table.bodies.calls(handler.body)])
    ends = [call.place for call in table.bodies.calls(body) if path_of(call.function) in {(*path, end) for end in ENDS}]
    return bool(ends) and own.issuperset(ends)


def _fails_alone(body: tuple[ir.Stmt, ...], place: ir.Place) -> bool:
    """Whether nothing in a body can raise but the statement around a place.

    Nor does that convert what it asks for: `session.get(User, int(text))`.
    """
    for statement in ir.statements(body):
        if isinstance(statement, (ir.Raise, ir.Assert)):
            return False
        may_raise = _converts if ir.within(place, statement.place) else _may_raise
        if any(map(may_raise, own_expressions(statement))):
            return False
    return True


def _converts(part: ir.Expr) -> bool:
    return isinstance(part, ir.Call) and last_name(part.function) in _CONVERSIONS


def _may_raise(part: ir.Expr) -> bool:
    """Whether it is a call that somebody expects to raise; the parts of a query are none."""
    return isinstance(part, ir.Call) and not is_calm(part) and last_name(part.function) not in _QUERY
