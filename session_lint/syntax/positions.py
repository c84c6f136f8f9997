"""Where the statements, calls, awaits and yields of a LibCST tree stand.

LibCST's `PositionProvider` generates the code again to find out and costs four to seven parses. The standard
library's `ast` knows positions and costs a sixth of one parse, and both trees hold the same nodes in the same
order: so list both and pair them. Should the lists differ (they never should), LibCST is asked after all.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from session_lint.ir import Place
from session_lint.syntax.children import children

Positions = dict[int, Place]
"""Place by `id()` of the LibCST node."""

_AST_KINDS: dict[type[ast.AST], str] = {
    ast.Call: "Call",
    ast.Await: "Await",
    ast.Yield: "Yield",
    ast.YieldFrom: "Yield",
    ast.AsyncFor: "For",
    ast.AsyncWith: "With",
    ast.AsyncFunctionDef: "FunctionDef",
    ast.ExceptHandler: "ExceptHandler",
}
_CST_KINDS: dict[type[cst.CSTNode], str] = {
    cst.Call: "Call",
    cst.Await: "Await",
    cst.Yield: "Yield",
    cst.Del: "Delete",
    cst.TryStar: "TryStar",
    cst.ExceptHandler: "ExceptHandler",
    cst.ExceptStarHandler: "ExceptHandler",
}
_FSTRINGS_HAVE_POSITIONS = sys.version_info >= (3, 12)


def pair(tree: cst.Module, statements: Sequence[ast.stmt], lines: Sequence[str]) -> Positions:
    """Places of the nodes of `tree`, which was parsed from the same statements as `statements`.

    lines: the text of the file that the `ast` statements come from.
    """
    ours = list(_cst_nodes(tree))
    theirs: list[tuple[tuple[int, ...], str, Place]] = []
    for statement in statements:
        _collect(statement, theirs, lines)
    theirs.sort(key=lambda entry: entry[0])
    if len(ours) != len(theirs) or any(kind != entry[1] for (kind, _), entry in zip(ours, theirs, strict=True)):
        return {}
    return {id(node): place for (_, node), (_, _, place) in zip(ours, theirs, strict=True)}


def generate(tree: cst.Module) -> tuple[cst.Module, Positions]:
    """Places by LibCST's own means: slow, for files that the running Python's `ast` can't read."""
    wrapper = MetadataWrapper(tree, unsafe_skip_copy=True)
    ranges = wrapper.resolve(PositionProvider)
    positions = {}
    for _, node in _cst_nodes(wrapper.module):
        found = ranges[node]
        if isinstance(found, CodeRange):
            start, end = found.start, found.end
            positions[id(node)] = (start.line, start.column + 1, end.line, end.column + 1)
    return wrapper.module, positions


def _cst_nodes(root: cst.CSTNode) -> Iterator[tuple[str, cst.CSTNode]]:
    stack: list[tuple[cst.CSTNode, bool]] = [(root, False)]
    while stack:
        node, visited = stack.pop()
        if not visited:
            # A decorator stands before the line that gives its definition a place.
            if isinstance(node, (cst.FunctionDef, cst.ClassDef)) and node.decorators:
                below = list(children(node))
                stack.extend([(child, False) for child in reversed(below[len(node.decorators) :])])
                stack.append((node, True))
                stack.extend([(child, False) for child in reversed(node.decorators)])
                continue
            stack.extend([(child, False) for child in reversed(list(children(node)))])
        kind = _CST_KINDS.get(type(node))
        if kind is not None:
            yield kind, node
        elif isinstance(node, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
            yield type(node).__name__, node


def _collect(node: ast.AST, found: list[tuple[tuple[int, ...], str, Place]], lines: Sequence[str]) -> None:
    """Add `node` and all below it with a key that sorts by source order, outer before inner.

    What stands in an f-string gets the f-string's place on Pythons that count wrongly there.
    """
    stack: list[tuple[ast.AST, ast.JoinedStr | None]] = [(node, None)]
    order = 0
    while stack:
        node, string = stack.pop()
        kind = _AST_KINDS.get(type(node))
        is_statement = isinstance(node, ast.stmt)
        if kind is None and is_statement:
            kind = type(node).__name__
        if kind is not None:
            order += 1
            at = string or node
            line, column = at.lineno, at.col_offset  # type: ignore[attr-defined]
            end_line, end_column = at.end_lineno, at.end_col_offset  # type: ignore[attr-defined]
            if string is None:
                key = (line, column, -end_line, -end_column, 0 if is_statement else 1, 0)
            else:
                key = (line, column, -end_line, -end_column, 2, order)
            found.append((key, kind, _place(lines, line, column, end_line, end_column)))
        if string is None and not _FSTRINGS_HAVE_POSITIONS and isinstance(node, ast.JoinedStr):
            string = node
        stack.extend([(child, string) for child in reversed(list(ast.iter_child_nodes(node)))])


def _place(lines: Sequence[str], line: int, column: int, end_line: int, end_column: int) -> Place:
    return (line, _characters(lines, line, column) + 1, end_line, _characters(lines, end_line, end_column) + 1)


def _characters(lines: Sequence[str], line: int, offset: int) -> int:
    """`ast` counts UTF-8 bytes, people count characters."""
    text = lines[line - 1] if line <= len(lines) else ""
    if text.isascii():
        return offset
    return len(text.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "ignore"))
