"""Which attributes a class maps, by how they are declared in its body."""

from __future__ import annotations

import ast

from session_lint.syntax.names import last_name

_COLUMNS = frozenset({"Column", "mapped_column", "deferred", "composite", "synonym", "Field"})
_RELATIONS = frozenset({"relationship", "relation", "dynamic_loader", "association_proxy", "Relationship"})
_COLUMN_TYPES = frozenset({"Mapped"})
_RELATION_TYPES = frozenset({"DynamicMapped", "WriteOnlyMapped"})
_DECORATORS = frozenset({"declared_attr", "cascading", "directive"})


def mapped(definition: ast.ClassDef, is_sqlmodel: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns and the relations that a class declares.

    is_sqlmodel: its file is about SQLModel, whose columns may be plain annotations.
    """
    columns, relations = [], []
    for member in definition.body:
        if isinstance(member, (ast.Assign, ast.AnnAssign)):
            targets = member.targets if isinstance(member, ast.Assign) else [member.target]
            maker = _last(member.value.func) if isinstance(member.value, ast.Call) else ""
            kind = _last(member.annotation) if isinstance(member, ast.AnnAssign) else ""
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if maker in _RELATIONS or kind in _RELATION_TYPES:
                relations += names
            elif maker in _COLUMNS or kind in _COLUMN_TYPES or (is_sqlmodel and kind not in ("", "ClassVar")):
                columns += names
        elif isinstance(member, ast.FunctionDef) and not _DECORATORS.isdisjoint(map(_last, member.decorator_list)):
            columns.append(member.name)
    return tuple(columns), tuple(relations)


def _last(node: ast.expr) -> str:
    """The last part of a dotted name, whatever it is indexed with."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return "?" if isinstance(node, (ast.BinOp, ast.Constant)) else last_name(node)
