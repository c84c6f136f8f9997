"""Where the statements, calls, awaits and yields of a LibCST tree stand.

LibCST's `PositionProvider` generates the code again to find out and costs four to seven parses. The standard
library's `ast` knows positions and costs a sixth of one parse, and both trees hold the same nodes in the same
order: so list both and pair them. Should the lists differ (they never should), LibCST is asked after all.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence
from operator import attrgetter

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from session_lint.ir import Place
from session_lint.syntax.children import code_fields

Positions = dict[int, Place]
"""Place by `id()` of the LibCST node."""

Entry = tuple[str, Place]
"""A kind of node, the same for both trees, and its place."""

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
    cst.ExceptHandler: "ExceptHandler",
    cst.ExceptStarHandler: "ExceptHandler",
}
_FSTRINGS_HAVE_POSITIONS = sys.version_info >= (3, 12)


def pair(tree: cst.Module, entries: Sequence[Entry]) -> Positions | None:
    """Places of the nodes of `tree`, which was parsed from the statements that `entries` were collected from.

    None if the two don't agree.
    """
    ours = _cst_nodes(tree)
    if [kind for kind, _ in ours] != [kind for kind, _ in entries]:
        return None
    return {id(node): entry[1] for (_, node), entry in zip(ours, entries, strict=True)}


def generate(tree: cst.Module, numbers: Sequence[int]) -> tuple[cst.Module, Positions]:
    """Places by LibCST's own means: slow, for what the running Python's `ast` can't read.

    numbers: of the tree's lines in the file.
    """
    last = len(numbers) - 1
    wrapper = MetadataWrapper(tree, unsafe_skip_copy=True)
    ranges = wrapper.resolve(PositionProvider)
    positions = {}
    for _, node in _cst_nodes(wrapper.module):
        found = ranges[node]
        if isinstance(found, CodeRange):
            start, end = found.start, found.end
            first, end_line = (numbers[min(line - 1, last)] for line in (start.line, end.line))
            positions[id(node)] = (first, start.column + 1, end_line, end.column + 1)
    return wrapper.module, positions


# -------------------------------------------------------------------------------------------- LibCST's side

# By type: the kind (None for nodes without a place of their own) and the fields to look into, last one first.
# Types that can hold no code, and what is no node at all, have no entry.
_CST_TYPES: dict[type, tuple[str | None, tuple[str, ...]] | None] = {}


def _cst_type(kind: type) -> tuple[str | None, tuple[str, ...]] | None:
    known = None
    if issubclass(kind, cst.CSTNode):
        name = _CST_KINDS.get(kind)
        if name is None and issubclass(kind, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
            name = kind.__name__
        fields = tuple(reversed(code_fields(kind)))
        known = (name, fields) if name is not None or fields else None
    _CST_TYPES[kind] = known
    return known


def _cst_nodes(root: cst.CSTNode) -> list[tuple[str, cst.CSTNode]]:
    """The nodes that have places, in source order, outer before inner."""
    found: list[tuple[str, cst.CSTNode]] = []
    stack: list[object] = [root]
    types = _CST_TYPES
    while stack:
        node = stack.pop()
        kind = type(node)
        if kind is tuple:  # a definition whose decorators are done
            node = node[0]  # type: ignore[index]
            kind = type(node)
            known = types[kind]
            fields: tuple[str, ...] = known[1][:-1] if known else ()
        else:
            known = types[kind] if kind in types else _cst_type(kind)
            if known is None:
                continue
            fields = known[1]
            if fields and fields[-1] == "decorators" and node.decorators:  # type: ignore[attr-defined]
                # They stand before the line that gives the definition its place.
                stack.append((node,))
                stack.extend(reversed(node.decorators))  # type: ignore[attr-defined]
                continue
        if known is not None and known[0] is not None:
            found.append((known[0], node))  # type: ignore[arg-type]
        for name in fields:
            value = getattr(node, name)
            if value is None:
                continue
            kind = type(value)
            if kind is tuple or kind is list:
                stack.extend(reversed(value))
            elif types.get(kind, True):
                stack.append(value)
    return found


# ----------------------------------------------------------------------------------------------- ast's side

_Children = list[ast.AST]
_AST_TYPES: dict[type[ast.AST], tuple[str | None, tuple[str, ...]]] = {}
_position = attrgetter("lineno", "col_offset")


def _ast_type(kind: type[ast.AST]) -> tuple[str | None, tuple[str, ...]]:
    name = _AST_KINDS.get(kind)
    if name is None and issubclass(kind, ast.stmt):
        name = kind.__name__
    fields = tuple([name for name in reversed(kind._fields) if name not in _NO_CODE])
    _AST_TYPES[kind] = known = (name, fields)
    return known


# Most of what an expression consists of: it has no place of its own and nothing below it.
_LEAVES: frozenset[type] = frozenset((ast.Name, ast.Constant, str, int, bool, type(None)))
_NO_CODE = frozenset("ctx op ops id attr arg name names kind asname level module type_comment rest cls_name".split())


def _irregular(node: ast.AST) -> _Children | None:
    """The children in source order of nodes whose fields are in another one; without decorators."""
    if isinstance(node, ast.Call):
        if not node.keywords:
            return None
        return [node.func, *sorted([*node.args, *node.keywords], key=_position)]
    if isinstance(node, ast.arguments):
        every = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        every += [argument for argument in (node.vararg, node.kwarg) if argument is not None]
        found = [argument.annotation for argument in every if argument.annotation is not None]
        found += [*node.defaults, *[default for default in node.kw_defaults if default is not None]]
        return sorted(found, key=_position)
    if isinstance(node, ast.IfExp):
        return [node.body, node.test, node.orelse]
    if isinstance(node, ast.Dict):
        return [part for item in zip(node.keys, node.values, strict=True) for part in item if part is not None]
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        returns = [node.returns] if node.returns is not None else []
        return [*getattr(node, "type_params", ()), node.args, *returns, *node.body]
    if isinstance(node, ast.ClassDef):
        bases = sorted([*node.bases, *node.keywords], key=_position)
        return [*getattr(node, "type_params", ()), *bases, *node.body]
    if isinstance(node, ast.MatchMapping):
        return [part for item in zip(node.keys, node.patterns, strict=True) for part in item]
    return None


_IRREGULAR = frozenset(
    (
        ast.Call,
        ast.arguments,
        ast.IfExp,
        ast.Dict,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.MatchMapping,
    )
)


class TooDeep(Exception):  # noqa: N818 - it is reported, not handled
    """Statements are nested deeper than can be read. line: where."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def collect(statements: Iterable[ast.stmt], lines: Sequence[str], offset: int, limit: int) -> list[Entry]:
    """The places of what stands in the statements, in source order, outer before inner.

    lines: the text that the statements come from. offset: how many lines stand before it in the file. limit: how
    deep statements may be nested. What stands in an f-string gets the f-string's place on Pythons that count
    wrongly there.

    Raises:
        TooDeep: they are nested deeper.
    """
    found: list[Entry] = []
    types = _AST_TYPES
    # Nodes with their depth; an f-string that they stand in; and whether their decorators are done.
    stack: list[tuple[ast.AST, float, ast.JoinedStr | None, bool]] = [
        (statement, 1, None, False) for statement in reversed(list(statements))
    ]
    while stack:
        node, depth, string, undecorated = stack.pop()
        kind = type(node)
        if depth > limit:
            raise TooDeep(getattr(string or node, "lineno", 1) + offset)
        name, fields = types.get(kind) or _ast_type(kind)
        below = depth + 1
        if not undecorated and getattr(node, "decorator_list", None):
            stack.append((node, depth, string, True))
            decorators = node.decorator_list  # type: ignore[attr-defined]
            stack.extend([(decorator, below, string, False) for decorator in reversed(decorators)])
            continue
        if name is not None:
            found.append((name, _place(string or node, lines, offset)))
        if kind is ast.JoinedStr and string is None and not _FSTRINGS_HAVE_POSITIONS:
            string = node  # type: ignore[assignment]
        ordered = _irregular(node) if kind in _IRREGULAR else None
        if ordered is None:
            ordered = []
            for field in fields:
                value = getattr(node, field, None)
                if type(value) is list:
                    ordered += reversed(value)
                elif value is not None:
                    ordered.append(value)
        else:
            ordered.reverse()
        if kind is ast.BoolOp:  # one node for `ast`, and as many for LibCST as there are operators
            below += len(node.values) - 2  # type: ignore[attr-defined]
            if below > limit:
                raise TooDeep(getattr(string or node, "lineno", 1) + offset)
        elif kind is ast.If and _goes_on(node):  # type: ignore[arg-type]
            stack.append((ordered.pop(0), depth + _ELIF, string, False))
        stack += [(child, below, string, False) for child in ordered if type(child) not in _LEAVES]
    return found


_ELIF = 0.5
"""Of a level: LibCST and the representation hold the branches of a chain inside one another."""


def _goes_on(node: ast.If) -> bool:
    """Whether an `elif` follows, which people don't call deeper."""
    return len(node.orelse) == 1 and type(node.orelse[0]) is ast.If and node.orelse[0].col_offset == node.col_offset


def _place(node: ast.AST, lines: Sequence[str], offset: int) -> Place:
    line: int = node.lineno  # type: ignore[attr-defined]
    end: int = node.end_lineno  # type: ignore[attr-defined]
    first = _characters(lines[line - 1], node.col_offset)  # type: ignore[attr-defined]
    last = _characters(lines[end - 1], node.end_col_offset)  # type: ignore[attr-defined]
    return (line + offset, first + 1, end + offset, last + 1)


def _characters(line: str, offset: int) -> int:
    """`ast` counts UTF-8 bytes, people count characters."""
    if line.isascii():
        return offset
    return len(line.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "ignore"))
