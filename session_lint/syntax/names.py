"""Names in the syntax tree of Python's own parser."""

from __future__ import annotations

import ast


def last_name(node: ast.expr | None) -> str:
    """The last part of a dotted name; "" of everything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def dotted_name(node: ast.expr) -> tuple[str, ...]:
    """The parts of a dotted name; none of everything else."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return (node.id, *reversed(parts)) if isinstance(node, ast.Name) else ()


def is_program(statement: ast.stmt) -> bool:
    """`if __name__ == "__main__":`: what a file does when it is run as a program."""
    test = statement.test if isinstance(statement, ast.If) else None
    return isinstance(test, ast.Compare) and "__name__" in [last_name(part) for part in (test.left, *test.comparators)]
