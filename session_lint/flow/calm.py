"""Calls of which nobody writes "this may raise": logging, containers, constructors, the parts of a query."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow import operations as ops
from session_lint.ir_queries import last_name


def is_calm(node: ir.Call) -> bool:
    """Whether a call, of which the callee can't be seen, is not expected to raise."""
    function = node.function
    last = last_name(function)
    if last == "pop" and len(node.arguments) == 2:
        return True  # `running.pop(key, None)`
    if isinstance(function, ir.Name):
        if len(function.path) == 1:
            return last in ops.CALM_FUNCTIONS or last[:1].isupper()
        return bool(ops.CALM_OBJECTS.intersection(function.path[:-1])) or last in ops.CALM_METHODS
    return last in ops.CALM_METHODS
