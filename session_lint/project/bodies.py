"""The statements of a body with their expressions: walked once, because a dozen questions go through all of them."""

from __future__ import annotations

from collections.abc import Iterator

from session_lint import ir
from session_lint.ir_queries import bound_names, names_in, own_expressions

Body = tuple[ir.Stmt, ...]


class Bodies:
    """Answers by the body itself, not by what is equal to it. Answers are kept."""

    def __init__(self) -> None:
        # The body comes along so that no other one can get its id.
        self._statements: dict[int, tuple[Body, list[ir.Stmt]]] = {}
        self._parts: dict[int, list[tuple[ir.Stmt, list[ir.Expr]]]] = {}
        self._calls: dict[int, list[ir.Call]] = {}
        self._names: dict[int, tuple[ir.Function, set[str]]] = {}
        self._bound: dict[int, frozenset[str]] = {}
        self._stored: dict[int, frozenset[str]] = {}

    def statements(self, body: Body) -> list[ir.Stmt]:
        """All statements below a body, in the order of the source, without those of nested definitions."""
        known = self._statements.get(id(body))
        if known is None:
            known = self._statements[id(body)] = (body, ir.statements(body))
        return known[1]

    def parts(self, body: Body) -> list[tuple[ir.Stmt, list[ir.Expr]]]:
        """These statements, each with its own expressions."""
        found = self._parts.get(id(body))
        if found is None:
            found = [(statement, own_expressions(statement)) for statement in self.statements(body)]
            self._parts[id(body)] = found
        return found

    def expressions(self, body: Body) -> Iterator[ir.Expr]:
        """All expressions below a body, but not those of nested functions."""
        for _, nodes in self.parts(body):
            yield from nodes

    def calls(self, body: Body) -> list[ir.Call]:
        """The calls among them."""
        found = self._calls.get(id(body))
        if found is None:
            found = [node for node in self.expressions(body) if isinstance(node, ir.Call)]
            self._calls[id(body)] = found
        return found

    def names(self, function: ir.Function) -> set[str]:
        """The names that a nested function mentions."""
        known = self._names.get(id(function))
        if known is None:
            known = self._names[id(function)] = (function, names_in(function))
        return known[1]

    def bound(self, body: Body) -> frozenset[str]:
        """The plain names that its statements bind."""
        found = self._bound.get(id(body))
        if found is None:
            names = [name for statement, nodes in self.parts(body) for name in bound_names(statement, nodes)]
            found = self._bound[id(body)] = frozenset(names)
        return found

    def stored(self, body: Body) -> frozenset[str]:
        """The names whose values a body puts into objects: `book.session = session`, `cache[key] = session`."""
        found = self._stored.get(id(body))
        if found is None:
            found = self._stored[id(body)] = frozenset(
                [
                    statement.value.path[0]
                    for statement in self.statements(body)
                    if isinstance(statement, ir.Assign)
                    and isinstance(statement.value, ir.Name)
                    and len(statement.value.path) == 1
                    and any([not isinstance(target, ir.Name) or len(target.path) > 1 for target in statement.targets])
                ]
            )
        return found

    def only_stored(self, body: Body) -> frozenset[str]:
        """Those of them that no call gets or is made on."""
        stored = self.stored(body)
        if not stored:
            return stored
        parts = [part for call in self.calls(body) for part in ir.expressions(call)]
        return stored - {part.path[0] for part in parts if isinstance(part, ir.Name)}
