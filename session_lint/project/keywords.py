"""Keywords that a function takes out of its `**kwargs`, such as `commit = kwargs.pop("commit", False)`."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow.values import Const
from session_lint.ir_queries import path_of
from session_lint.project.bodies import Bodies

_TAKING = ("get", "pop")
_CHANGING = ("update", "setdefault", "clear")


def packed_in(function: ir.Function) -> str:
    """What the function calls its keywords; "" if it has none that are not named."""
    return next((parameter.name for parameter in function.parameters if parameter.kind == "**"), "")


def keyword_of(node: ir.Expr | None, packed: str) -> str:
    """`kwargs.get("session")`, `kwargs["session"]`: the keyword that is asked for, "" if none is."""
    key: ir.Expr | None = None
    if isinstance(node, ir.Call) and isinstance(node.function, ir.Name) and node.arguments:
        container, key = node.function.path[:-1], node.arguments[0].value
        if node.function.path[-1] not in _TAKING:
            return ""
    elif isinstance(node, ir.Subscript) and isinstance(node.base, ir.Name) and len(node.items) == 1:
        container, key = node.base.path, node.items[0]
    else:
        return ""
    is_keyword = bool(packed) and container == (packed,) and isinstance(key, ir.Constant)
    return key.value if is_keyword and isinstance(key, ir.Constant) and isinstance(key.value, str) else ""


def flags_in(bodies: Bodies, function: ir.Function, tests: list[ir.Expr]) -> dict[str, Const | None]:
    """The keywords that decide something in the function, and what they are if the caller does not give them.

    tests: what the function's conditions ask.
    """
    packed = packed_in(function)
    changed = _changed(bodies, function, packed) if packed else None
    if changed is None:
        return {}
    parts = [part for test in tests for part in ir.expressions(test)]
    names = {part.path for part in parts if isinstance(part, ir.Name)}
    parts += [
        statement.value
        for statement in bodies.statements(function.body)
        if isinstance(statement, ir.Assign)
        and statement.value is not None
        and any([isinstance(target, ir.Name) and target.path in names for target in statement.targets])
    ]
    found: dict[str, Const | None] = {}
    for part in parts:
        keyword = keyword_of(part, packed)
        if keyword and keyword not in changed:
            default = _default(part)
            found[keyword] = default if found.get(keyword, default) == default else None
    return found


def taken_out(function: ir.Function) -> set[str]:
    """The keywords that are gone from the `**kwargs` of a function when it hands them on."""
    packed = packed_in(function)
    values = [statement.value for statement in function.body if isinstance(statement, ir.Assign)] if packed else []
    calls = [value for value in values if isinstance(value, ir.Call) and path_of(value.function) == (packed, "pop")]
    return {keyword_of(call, packed) for call in calls}


def _changed(bodies: Bodies, function: ir.Function, packed: str) -> set[str] | None:
    """The keywords that the function sets itself; None if it may be any."""
    keys: set[str] = set()
    for statement in bodies.statements(function.body):
        for target in statement.targets if isinstance(statement, ir.Assign) else ():
            if path_of(target) == (packed,) or (isinstance(target, ir.Subscript) and path_of(target.base) == (packed,)):
                keys.add(keyword_of(target, packed))
    changing = [(packed, name) for name in _CHANGING]
    is_open = "" in keys or any([path_of(call.function) in changing for call in bodies.calls(function.body)])
    return None if is_open else keys


def _default(node: ir.Expr) -> Const | None:
    """What is taken if the keyword is not given: None if that is not plain, or an error."""
    if not isinstance(node, ir.Call):
        return None
    if len(node.arguments) == 1:
        return Const(None) if path_of(node.function)[-1:] == ("get",) else None
    given = node.arguments[1].value
    value = given.value if isinstance(given, ir.Constant) else ""
    return Const(value) if value is None or value is True or value is False else None
