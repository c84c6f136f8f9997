"""Plain values of local variables that decide something: `rows = []` where a read has failed, `error = str(exc)`."""

from __future__ import annotations

from session_lint import ir
from session_lint.flow.answers import said
from session_lint.flow.operations import CALM_FUNCTIONS
from session_lint.flow.values import Truth, Value
from session_lint.ir_queries import names_in, own_expressions, path_of
from session_lint.project.bodies import Bodies

_MADE_BY = frozenset({"list", "dict", "set", "tuple"})
_GROWING = ("append", "add")


class PlainValues:
    """The local variables of one function that conditions or loops ask for, and that only assignments change."""

    def __init__(self, bodies: Bodies, function: ir.Function) -> None:
        self._bodies = bodies
        self._function = function
        self._known: set[str] | None = None

    def of(self, target: ir.Expr, node: ir.Expr | None) -> Value:
        """What an assignment gives a variable until the next one; None if nobody asks, or it may be anything."""
        if not isinstance(target, ir.Name) or len(target.path) != 1:
            return None
        value = Truth(False) if _is_empty(node) else said(node, None) if _is_text(node) else None
        return value if value is not None and self._is_known(target.path[0]) else None

    def grown(self, statement: ir.Expression) -> str:
        """The variable that a statement such as `failures.append(error)` puts something into; "" if nobody asks."""
        call = statement.value
        path = path_of(call.function) if isinstance(call, ir.Call) else ()
        return path[0] if len(path) == 2 and path[1] in _GROWING and self._is_known(path[0]) else ""

    def _is_known(self, name: str) -> bool:
        if self._known is None:
            self._known = self._asked() - self._filled()
        return name in self._known

    def _asked(self) -> set[str]:
        """What is iterated over or tested."""
        found: set[str] = set()
        for statement, nodes in self._bodies.parts(self._function.body):
            asked: list[ir.Expr] = []
            if isinstance(statement, (ir.If, ir.While)):
                asked += ir.expressions(statement.test)
            elif isinstance(statement, ir.For):
                asked.append(statement.iterable)
            for node in nodes:
                if isinstance(node, ir.Conditional):
                    asked += ir.expressions(node.test)
                elif isinstance(node, ir.Comprehension):
                    asked += [generator.iterable for generator in node.generators]
            found |= {node.path[0] for node in asked if isinstance(node, ir.Name)}
        return found

    def _filled(self) -> set[str]:
        """What a method is called on, or is given to somebody who may fill it, or has another name."""
        found: set[str] = set()
        handling = self._handling()
        for statement, nodes in self._bodies.parts(self._function.body):
            given: list[ir.Expr | None] = []
            if isinstance(statement, ir.Assign):
                given.append(statement.value)
                given += [target.base for target in statement.targets if isinstance(target, ir.Subscript)]
                given += statement.targets if statement.operator != "=" else ()
            elif isinstance(statement, ir.Define) and isinstance(statement.definition, ir.Function):
                found |= names_in(statement.definition)
            elif isinstance(statement, ir.Define):
                for inner in statement.definition.body:
                    found |= {node.path[0] for node in own_expressions(inner) if isinstance(node, ir.Name)}
            for node in nodes:
                if isinstance(node, ir.Name) and len(node.path) > 1:
                    if node.path[1] not in _GROWING or id(statement) not in handling:
                        found.add(node.path[0])
                elif isinstance(node, ir.Call) and not _only_looks(node):
                    given += [argument.value for argument in node.arguments]
                elif isinstance(node, ir.Collection):
                    given += node.items
                elif isinstance(node, (ir.Yield, ir.Walrus, ir.Await)):
                    given.append(node.value)
                elif isinstance(node, ir.Lambda):
                    found |= names_in(node.function)
            found |= {node.path[0] for node in given if isinstance(node, ir.Name)}
        return found

    def _handling(self) -> set[int]:
        """The statements in handlers. What is collected elsewhere would only make more states."""
        found: set[int] = set()
        for statement in self._bodies.statements(self._function.body):
            for handler in statement.handlers if isinstance(statement, ir.Try) else ():
                found.update([id(inner) for inner in self._bodies.statements(handler.body)])
        return found


def _is_empty(value: ir.Expr | None) -> bool:
    if isinstance(value, ir.Call):
        return len(path_of(value.function)) == 1 and path_of(value.function)[0] in _MADE_BY and not value.arguments
    return isinstance(value, ir.Collection) and not value.items


def _is_text(node: ir.Expr | None) -> bool:
    return isinstance(node, (ir.Constant, ir.Call)) or (isinstance(node, ir.Opaque) and node.is_text)


def _only_looks(call: ir.Call) -> bool:
    """`len(rows)`, `sorted(rows)`"""
    return (
        isinstance(call.function, ir.Name) and len(call.function.path) == 1 and call.function.path[0] in CALM_FUNCTIONS
    )
