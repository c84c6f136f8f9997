"""For SES114: which returns answer a request with an error, and which hooks see every answer."""

from __future__ import annotations

from http import HTTPStatus

from session_lint import ir
from session_lint.ir_queries import decorator_name, path_of

_HOOKS = frozenset({"after_request", "after_app_request", "teardown_request", "teardown_appcontext"})
"""Flask runs these for error responses, too."""
_ASKING = ("status", "code", "ok", "error", "exc", "fail", "success")


def error_status(body: tuple[ir.Stmt, ...], place: ir.Place) -> int | None:
    """The status of 400 or more with which the return statement at a place answers; None if it does not say one."""
    for index, statement in enumerate(body):
        if isinstance(statement, ir.Return) and statement.place == place:
            said = _status_of(statement.value)
            for before in body[:index]:
                if (
                    said is None
                    and isinstance(before, ir.Assign)
                    and path_of(before.targets[0])[-1:] == ("status_code",)
                ):
                    said = _number(before.value)
            return said if said is not None and said >= 400 else None
        for block in ir.blocks(statement):
            found = error_status(block, place)
            if found is not None:
                return found
    return None


def _status_of(value: ir.Expr | None) -> int | None:
    """`JSONResponse(..., status_code=400)`, `make_response(..., 400)`, `return {...}, 400`."""
    if isinstance(value, ir.Collection) and value.kind == "tuple" and len(value.items) > 1:
        return _number(value.items[1])
    if not isinstance(value, ir.Call) or not path_of(value.function)[-1:]:
        return None
    name = path_of(value.function)[-1]
    if not name.endswith("Response") and name != "make_response":
        return None
    for position, argument in enumerate(value.arguments):
        if argument.name in ("status_code", "status") or (argument.name is None and position == 1):
            return _number(argument.value)
    return None


def _number(value: ir.Expr | None) -> int | None:
    """`400`, `status.HTTP_400_BAD_REQUEST`, `HTTPStatus.BAD_REQUEST`."""
    if isinstance(value, ir.Constant) and type(value.value) is int:
        return value.value
    path = path_of(value) if value is not None else ()
    if path and path[-1] == "value":
        path = path[:-1]
    if not path:
        return None
    parts = path[-1].split("_")
    if parts[0] == "HTTP" and len(parts) > 1 and parts[1].isdigit():
        return int(parts[1])
    return HTTPStatus[path[-1]].value if path[-1] in HTTPStatus.__members__ else None


def branch_of(body: tuple[ir.Stmt, ...], place: ir.Place) -> tuple[ir.Stmt, ...]:
    """The innermost block of a condition, loop or handler that a place lies in; empty if it lies in none."""
    for statement in body:
        if not ir.within(place, statement.place):
            continue
        for block in ir.blocks(statement):
            if any([ir.within(place, inner.place) for inner in block]):
                deeper = branch_of(block, place)
                return deeper or (() if isinstance(statement, ir.With) else block)
    return ()


def passed_on_at(function: ir.Function) -> ir.Place | None:
    """Where a middleware hands the request on; NOWHERE for a hook that is called when that is done; else None."""
    if any([decorator_name(decorator) in _HOOKS for decorator in function.decorators]):
        return ir.NOWHERE
    if any([parameter.name == "call_next" for parameter in function.parameters]):
        for statement in ir.statements(function.body):
            for part in ir.expressions(statement):
                if isinstance(part, ir.Call) and path_of(part.function) == ("call_next",):
                    return part.place
    return None


def asks_for_the_outcome(function: ir.Function) -> bool:
    """Whether any of its conditions looks at the answer's status, or at an exception."""
    hands = {parameter.name for parameter in function.parameters}
    for statement in ir.statements(function.body):
        tests = [statement.test] if isinstance(statement, (ir.If, ir.While)) else []
        tests += [part.test for part in ir.expressions(statement) if isinstance(part, ir.Conditional)]
        if isinstance(statement, ir.Match):
            tests.append(statement.subject)
        for test in tests:
            for part in ir.expressions(test):
                if isinstance(part, ir.Opaque):
                    return True  # a comparison such as `response.status_code < 400`
                words = (
                    part.path if isinstance(part, ir.Name) else (part.name,) if isinstance(part, ir.Attribute) else ()
                )
                if words and (words in {(name,) for name in hands} or any([word in words[-1] for word in _ASKING])):
                    return True
    return False
