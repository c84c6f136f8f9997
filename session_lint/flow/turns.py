"""Loops that are sure to have a turn: `for attempt in range(3)`, where the handler of each turn rolls back."""

from __future__ import annotations

from session_lint import ir
from session_lint.ir_queries import bound_names, path_of
from session_lint.project.bodies import Bodies


def has_turns(bodies: Bodies, function: ir.Function, iterable: ir.Expr) -> bool:
    """Whether a loop over it runs at least once."""
    if isinstance(iterable, ir.Collection):
        # Any other item may have a star, and be no item at all.
        return any([isinstance(item, ir.Constant) for item in iterable.items])
    if not isinstance(iterable, ir.Call) or any([argument.name is not None for argument in iterable.arguments]):
        return False
    numbers = [_number(bodies, function, argument.value) for argument in iterable.arguments]
    name = path_of(iterable.function)
    if name[-1:] == ("count",):
        return name[:-1] in ((), ("itertools",))
    if name != ("range",) or not numbers:
        return False
    first, last = (0, numbers[0]) if len(numbers) == 1 else numbers[:2]
    return first is not None and last is not None and len(numbers) < 3 and first < last


def _number(bodies: Bodies, function: ir.Function, node: ir.Expr) -> int | None:
    """A literal, a variable that gets one only, or the default of a parameter: nobody asks for no attempt."""
    if isinstance(node, ir.Constant):
        return node.value if isinstance(node.value, int) else None
    if not isinstance(node, ir.Name) or len(node.path) > 1:
        return None
    values = [item.default for item in function.parameters if item.name == node.path[0]]
    for statement, nodes in bodies.parts(function.body):
        if node.path[0] in bound_names(statement, nodes):
            values.append(statement.value if isinstance(statement, ir.Assign) else None)
    value = values[0] if len(values) == 1 else None
    return value.value if isinstance(value, ir.Constant) and isinstance(value.value, int) else None
