"""The walk that turns LibCST nodes into IR: what every visitor shares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import libcst as cst

from session_lint import ir
from session_lint.syntax import positions
from session_lint.syntax.children import children
from session_lint.syntax.depth import too_deep

_Expression = Callable[[Any, Any], ir.Expr]
_Statement = Callable[[Any, Any], "tuple[ir.Stmt, ...]"]
_EXPRESSIONS: dict[type[cst.CSTNode], _Expression] = {}
_STATEMENTS: dict[type[cst.CSTNode], _Statement] = {}


def visits_expression(*kinds: type[cst.CSTNode]) -> Callable[[_Expression], _Expression]:
    def register(visit: _Expression) -> _Expression:
        _EXPRESSIONS.update(dict.fromkeys(kinds, visit))
        return visit

    return register


def visits_statement(*kinds: type[cst.CSTNode]) -> Callable[[_Statement], _Statement]:
    def register(visit: _Statement) -> _Statement:
        _STATEMENTS.update(dict.fromkeys(kinds, visit))
        return visit

    return register


class Lowering:
    """Turns the statements of one module into IR.

    `block` and `expression` dispatch on the node's type to the functions registered as visitors.
    """

    def __init__(self, places: positions.Positions, package: str, is_package: bool) -> None:
        self.places = places
        self.package = package
        self.is_package = is_package
        self.scope: list[str] = []
        self.class_name: str | None = None
        self.yields: list[bool] = []

    # ------------------------------------------------------------------------------------------- dispatch

    def place(self, node: cst.CSTNode) -> ir.Place:
        return self.places.get(id(node), ir.NOWHERE)

    def block(self, body: Sequence[cst.CSTNode] | cst.BaseSuite) -> tuple[ir.Stmt, ...]:
        if isinstance(body, cst.BaseSuite):
            body = body.body
        result: list[ir.Stmt] = []
        for node in body:
            if isinstance(node, cst.SimpleStatementLine):
                for small in node.body:
                    visit = _STATEMENTS.get(type(small))
                    if visit is not None:
                        result.extend(visit(self, small))
            else:
                visit = _STATEMENTS.get(type(node))
                if visit is not None:
                    result.extend(visit(self, node))
        return tuple(result)

    def expression(self, node: cst.CSTNode | None) -> ir.Expr:
        if node is None:
            return ir.UNKNOWN
        visit = _EXPRESSIONS.get(type(node))
        if visit is not None:
            return visit(self, node)
        return self.opaque(children(node))

    def optional(self, node: cst.CSTNode | None) -> ir.Expr | None:
        return None if node is None else self.expression(node)

    def opaque(self, nodes: Any) -> ir.Expr:
        """What is computed from the nodes can't be a session; keep only what happens on the way."""
        parts = [self.expression(node) for node in nodes]
        reads: list[tuple[str, ...]] = []
        for part in parts:
            if isinstance(part, ir.Name) and len(part.path) > 1:
                reads.append(part.path)
            elif isinstance(part, ir.Opaque) and not part.parts:
                reads += part.reads
        parts = [part for part in parts if happens(part)]
        return ir.Opaque(tuple(parts), tuple(reads)) if parts or reads else ir.UNKNOWN

    def annotation(self, node: cst.Annotation | None) -> ir.Expr | None:
        return None if node is None else self.type(node.annotation)

    def type(self, node: cst.BaseExpression) -> ir.Expr:
        """An annotation; strings are read as the types they name."""
        if isinstance(node, (cst.SimpleString, cst.ConcatenatedString)):
            value = node.evaluated_value
            if not isinstance(value, str) or too_deep(value) is not None:
                return ir.UNKNOWN
            try:
                return self.type(cst.parse_expression(value))
            except cst.ParserSyntaxError:
                return ir.UNKNOWN
        if isinstance(node, cst.Subscript):
            items = [element.slice.value for element in node.slice if isinstance(element.slice, cst.Index)]
            return ir.Subscript(self.type(node.value), tuple([self.type(item) for item in items]))
        if isinstance(node, cst.BinaryOperation):  # X | None
            return ir.Subscript(ir.Name(("Union",)), (self.type(node.left), self.type(node.right)))
        return self.expression(node)


def happens(node: ir.Expr) -> bool:
    """Whether evaluating the expression can do anything or names anything."""
    return not isinstance(node, (ir.Constant, ir.Name)) and not (isinstance(node, ir.Opaque) and not node.parts)
