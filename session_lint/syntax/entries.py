"""Functions that a framework or a thread calls and that call the project's own: routes, views, jobs."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Sequence
from functools import cached_property

from session_lint.source import entry_words
from session_lint.syntax.names import dotted_name, last_name

_FOREIGN = frozenset(
    "aiohttp apscheduler celery django falcon fastapi flask flask_jwt_extended flask_login flask_restful flask_restplus"
    " flask_restx litestar marshmallow numpy pandas pydantic pyramid redis requests starlette tornado werkzeug"
    " wtforms".split()
).union(sys.stdlib_module_names)
"""Packages that are never the project's own."""

_Function = (ast.FunctionDef, ast.AsyncFunctionDef)


class Entries:
    """Those of one file. body: its statements. adds: it has a call in it that may register or begin functions."""

    def __init__(self, body: Sequence[ast.stmt], adds: bool) -> None:
        self._body = body
        self._adds = adds

    @cached_property
    def _own(self) -> frozenset[str]:
        """What the project may have made: what it imports, defines, and makes of that."""
        own = {"self", "cls", *_imports(self._body)}
        own.update([item.name for item in self._body if isinstance(item, (*_Function, ast.ClassDef))])
        for item in self._body:
            if isinstance(item, ast.Assign) and isinstance(item.value, ast.Call) and _root(item.value) in own:
                own.update([target.id for target in item.targets if isinstance(target, ast.Name)])
        return frozenset(own)

    @cached_property
    def _added(self) -> frozenset[str]:
        """The functions that the file registers by a call, or begins in a thread."""
        return frozenset(
            [
                last_name(given)
                for item in (self._body if self._adds else ())
                for node in ast.walk(item)
                if isinstance(node, ast.Call) and _registers(node)
                for given in (*node.args, *[keyword.value for keyword in node.keywords])
            ]
        )

    def have(self, function: ast.FunctionDef | ast.AsyncFunctionDef, owner: ast.ClassDef | None = None) -> bool:
        """Whether a framework calls it, and it calls something that the project may have made."""
        if not (
            any([_is_entry(decorator) for decorator in function.decorator_list])
            or (owner is not None and function.name in entry_words.METHODS and _is_view_or_worker(owner))
            or function.name in self._added
        ):
            return False
        own = self._own.union(_imports(list(ast.walk(function))))
        arguments = function.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            if argument.annotation is not None and not own.isdisjoint(_names(argument.annotation)):
                own = own.union([argument.arg])
        return any(
            [
                isinstance(node, ast.Call) and _root(node) in own
                for statement in function.body
                for node in ast.walk(statement)
            ]
        )


def tables(body: Sequence[ast.stmt], names: Iterable[str]) -> dict[int, str]:
    """The statements, by identity, that put functions of these names into a table of commands, and what it is called.

    `COMMANDS = {"add": add}`, `COMMANDS["add"] = add`.
    """
    found: dict[int, str] = {}
    for item in body:
        if isinstance(item, ast.Assign):
            target, listed = item.targets[0], [item.value]
            if isinstance(target, ast.Subscript):
                target = target.value
            elif isinstance(item.value, ast.Dict):
                listed = item.value.values
            else:
                continue
            if isinstance(target, ast.Name) and any([isinstance(one, ast.Name) and one.id in names for one in listed]):
                found[id(item)] = target.id
    return found


def _imports(nodes: Iterable[ast.AST]) -> set[str]:
    """The names of what is imported and may be the project's own."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").partition(".")[0] not in _FOREIGN):
            names.update([alias.asname or alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            names.update(
                [
                    alias.asname or first
                    for alias in node.names
                    if (first := alias.name.partition(".")[0]) not in _FOREIGN
                ]
            )
    return names


def _registers(call: ast.Call) -> bool:
    name = last_name(call.func)
    return f".{name}(" in entry_words.ADDING or name.endswith(entry_words.HOLDER) or name in entry_words.STARTING


def _names(node: ast.expr) -> list[str]:
    return [part.id for part in ast.walk(node) if isinstance(part, ast.Name)]


def _root(node: ast.expr) -> str:
    """The name that a chain of attributes and calls begins with."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, (ast.Attribute, ast.Subscript, ast.Await)):
            node = node.value
        else:
            return ""
    return node.id


def _is_entry(decorator: ast.expr) -> bool:
    if isinstance(decorator, ast.Call):
        name = dotted_name(decorator.func)
        first = decorator.args[0] if decorator.args else None
        given = first.value if isinstance(first, ast.Constant) else None
        return entry_words.is_route(name, given) or entry_words.is_job(name)
    return entry_words.is_job(dotted_name(decorator))


def _is_view_or_worker(definition: ast.ClassDef) -> bool:
    return any([last_name(base) in entry_words.BASES for base in definition.bases])
