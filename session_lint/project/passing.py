"""Functions that a session only goes through: `session = with_history(session)`."""

from __future__ import annotations

from session_lint import ir
from session_lint.ir_queries import bound_names, last_name, names_in
from session_lint.project.bodies import Bodies

_LISTENING = frozenset({"listen", "listens_for"})
"""What SQLAlchemy's `event` does with a session: it is there later, and sends nothing now."""


def passed_on(bodies: Bodies, function: ir.Function) -> str:
    """The parameter that a function gives back whenever it returns, or ""."""
    last = function.body[-1] if function.body else None
    if not isinstance(last, ir.Return) or not isinstance(last.value, ir.Name) or function.is_generator:
        return ""
    name = last.value.path[0]
    if last.value.path not in [(parameter.name,) for parameter in function.parameters]:
        return ""
    for statement, nodes in bodies.parts(function.body):
        if isinstance(statement, ir.Return) and statement.value != last.value:
            return ""
        if name in bound_names(statement, nodes):
            return ""
    return name


def leaves_alone(bodies: Bodies, function: ir.Function, name: str) -> bool:
    """Whether a function does no more with a parameter than to give it back, listen to it, or note something in it.

    One that does nothing at all with it may have been written to be overridden.
    """
    is_mentioned = False
    for statement, nodes in bodies.parts(function.body):
        if isinstance(statement, ir.Define):
            definition = statement.definition
            if not isinstance(definition, ir.Function) or name in names_in(definition):
                return False
            nodes = [part for decorator in definition.decorators for part in ir.expressions(decorator)]
        calm = {id(statement.value)} if isinstance(statement, ir.Return) else set()
        if isinstance(statement, ir.Assign):  # `session.flush = refuse`
            calm |= {id(target) for target in statement.targets if isinstance(target, ir.Name) and len(target.path) > 1}
        for node in nodes:
            if isinstance(node, ir.Call) and last_name(node.function) in _LISTENING:
                calm |= {id(argument.value) for argument in node.arguments}
        for node in nodes:
            if isinstance(node, ir.Name) and node.path[0] == name:
                if id(node) not in calm and "info" not in node.path:
                    return False
                is_mentioned = True
    return is_mentioned
