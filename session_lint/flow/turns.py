"""Loops that are sure to have a turn: `for attempt in range(3)`, where the handler of each turn rolls back."""

from __future__ import annotations

from session_lint import ir
from session_lint.ir_queries import bound_names, path_of
from session_lint.project.bodies import Bodies

_ALL_OF = (("zip",), ("enumerate",), ("reversed",), ("sorted",), ("list",), ("tuple",), ("set",))
"""What gives an item for each of its arguments' items."""
_TAKING = ("clear", "pop", "popitem", "remove", "discard")


def has_turns(bodies: Bodies, function: ir.Function, iterable: ir.Expr) -> bool:
    """Whether a loop over it runs at least once."""
    if isinstance(iterable, ir.Collection):
        return _has_items(iterable)
    if isinstance(iterable, ir.Name):
        if any([item.name == iterable.path[0] for item in function.parameters]):
            return False
        display = _only_value(bodies, function, iterable)
        return (
            isinstance(display, ir.Collection) and _has_items(display) and not _loses_items(bodies, function, iterable)
        )
    if not isinstance(iterable, ir.Call) or any([argument.name is not None for argument in iterable.arguments]):
        return False
    if path_of(iterable.function) in _ALL_OF:
        return bool(iterable.arguments) and all(
            [has_turns(bodies, function, argument.value) for argument in iterable.arguments]
        )
    numbers = [_number(bodies, function, argument.value) for argument in iterable.arguments]
    name = path_of(iterable.function)
    if name[-1:] == ("count",):
        return name[:-1] in ((), ("itertools",))
    if name != ("range",) or not numbers:
        return False
    first, last = (0, numbers[0]) if len(numbers) == 1 else numbers[:2]
    return first is not None and last is not None and len(numbers) < 3 and first < last


def _has_items(display: ir.Collection) -> bool:
    if display.kind == "dict":
        return any([key is not None for key in display.keys])
    return bool(display.items) and (
        not display.has_star or any([isinstance(item, ir.Constant) for item in display.items])
    )


def _loses_items(bodies: Bodies, function: ir.Function, name: ir.Name) -> bool:
    """Whether a function may take items out of a variable's collection, or lets others do it."""
    if any([isinstance(each, ir.Delete) for each in bodies.statements(function.body)]):
        return True
    calls = bodies.calls(function.body)
    return any([path_of(call.function) in [(*name.path, taking) for taking in _TAKING] for call in calls])


def _number(bodies: Bodies, function: ir.Function, node: ir.Expr) -> int | None:
    """A literal, a variable that gets one only, or the default of a parameter: nobody asks for no attempt."""
    if isinstance(node, ir.Constant):
        return node.value if isinstance(node.value, int) else None
    value = _only_value(bodies, function, node)
    return value.value if isinstance(value, ir.Constant) and isinstance(value.value, int) else None


def _only_value(bodies: Bodies, function: ir.Function, node: ir.Expr) -> ir.Expr | None:
    """What a variable of the function gets, if that is one thing only."""
    if not isinstance(node, ir.Name) or len(node.path) > 1:
        return None
    values = [item.default for item in function.parameters if item.name == node.path[0]]
    for statement, nodes in bodies.parts(function.body):
        if node.path[0] in bound_names(statement, nodes):
            values.append(statement.value if isinstance(statement, ir.Assign) else None)
    return values[0] if len(values) == 1 else None
